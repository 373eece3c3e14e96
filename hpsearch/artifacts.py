"""The files that the record speaks of, and those that it does not: what is there, what is missing, what may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpsearch.archive import Archive
from hpsearch.declaration import is_task
from hpsearch.errors import StudyHeldError
from hpsearch.settings import checkpoint_file, checkpoint_folder
from hpsearch.trial import Checkpoint, RunKey

#: below a study's files: ``<trial>/<seed>[.<repeat>]/best.pt``, and what an interrupted write of one has left
_PATTERNS = ("*/*/best.pt", "*/*/best.pt.part")
#: what paused runs go on from
_PAUSED = ("*/*/checkpoint/hpsearch.pt", "*/*/checkpoint/hpsearch.part")


@final
@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A checkpoint that the record has."""

    run: RunKey
    checkpoint: Checkpoint
    file: Path
    #: the file is there, of the size that it had
    there: bool


def artifacts(archive: Archive, study: str, files: Path) -> list[Artifact]:
    """The checkpoints of a study's runs, in the order of the runs.

    Args:
        archive: of the study.
        study: its name.
        files: the folder of its files.
    """
    found = []
    for run, kept in sorted(archive.checkpoints(study).items()):
        file = files / kept.path
        there = file.is_file() and file.stat().st_size == kept.bytes
        found.append(Artifact(run=run, checkpoint=kept, file=file, there=there))
    return found


def orphans(archive: Archive, study: str, files: Path) -> list[Path]:
    """Checkpoints below ``files`` that the record does not have, of runs that a kill has cut off from it; and what runs
    were to go on from that have ended.
    """
    known = {checkpoint_file(files, run) for run in archive.checkpoints(study)}
    lost = [file for pattern in _PATTERNS for file in files.glob(pattern) if file not in known]
    return sorted([*lost, *_outlived(archive, study, files)])


def _outlived(archive: Archive, study: str, files: Path) -> list[Path]:
    """Of a TrainingTask's: a plain function, or code that is gone, may have given files of its own this name."""
    found = [file for pattern in _PAUSED for file in files.glob(pattern)]
    if not found or not is_task(archive.study(study).objective):
        return []
    runs = [run for trial in archive.trials(study) for run in trial.runs]
    waiting = {checkpoint_folder(files, run.key) for run in runs if not run.state.final}
    return [file for file in found if file.parent not in waiting]


def prune(archive: Archive, study: str, files: Path) -> Sequence[tuple[Path, int]]:
    """Remove the orphans: (file, bytes) of each that is gone.

    Raises:
        StudyHeldError: a coordinator has the study, and its runs may just be writing them.
    """
    summary = archive.study(study)
    if summary.holder:
        raise StudyHeldError(
            f"{study} is held by {summary.holder}, whose runs write checkpoints now", hint=f"hpsearch stop {study}"
        )
    gone = []
    for file in orphans(archive, study, files):
        size = file.stat().st_size
        file.unlink()
        gone.append((file, size))
    return gone
