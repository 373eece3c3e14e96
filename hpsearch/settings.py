"""Where the record and its files are when nobody says so."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from hpsearch.errors import ExecutorError, UsageError
from hpsearch.trial import RunKey

DEFAULT_DB = "sqlite:///hpsearch.db"


def database(db: str | None = None) -> str:
    """The database's URL: ``db``, else ``HPSEARCH_DB``, else ``sqlite:///hpsearch.db`` in the current folder."""
    return db or os.environ.get("HPSEARCH_DB") or DEFAULT_DB


def files_folder(db: str, study: str, files: Path | None = None) -> Path:
    """Where a study's logs and checkpoints go: ``STUDY`` in ``files``, else in ``HPSEARCH_FILES``, else in
    ``hpsearch-files`` beside an SQLite database, or here.

    Raises:
        UsageError: as ``study_files`` says.
    """
    if files is not None:
        return study_files(files, study)
    if named := os.environ.get("HPSEARCH_FILES"):
        return (Path(named) / study).resolve()
    path = Path(db.removeprefix("sqlite:///")) if db.startswith("sqlite:///") else Path("hpsearch.db")
    return (path.parent / "hpsearch-files" / study).resolve()


def study_files(files: Path, study: str) -> Path:
    """Where a study's files are in the folder that ``--files`` names, which several studies may share.

    Raises:
        UsageError: a study's runs lie in it directly, as they did before each study had a folder of its own there.
    """
    folder = files / study
    if not folder.is_dir() and any(files.glob("[0-9]*/[0-9]*/checkpoint")):
        raise UsageError(
            f"{files} has a study's runs, which are now expected in {folder}",
            hint=f"move them there (mkdir {folder}; mv {files}/[0-9]* {files}/groups {folder}), or name another folder",
        )
    return folder


def log_file(files: Path, run: RunKey) -> Path:
    """The log of a run: what it has printed, or the line that names the log of the group that it trained in."""
    return files / str(run) / "log.txt"


def group_line(opening: str, log: str) -> str:
    """A line of a run's log: what was printed from here on is in ``log``, a path below the study's files."""
    return f"--- {opening}; trains with other runs, and what they print is in {log} ---\n"


def group_log(line: str) -> str | None:
    """The inverse of ``group_line``: the path below the study's files; None for any other line."""
    found = re.fullmatch(r"--- .*; trains with other runs, and what they print is in (groups/[\w.-]+) ---\n?", line)
    return found[1] if found else None


def checkpoint_file(files: Path, run: RunKey) -> Path:
    """The weights of a run's best epoch, where they are kept."""
    return files / str(run) / "best.pt"


def checkpoint_folder(files: Path, run: RunKey) -> Path:
    """What training code has as ``run.checkpoint_dir``."""
    return files / str(run) / "checkpoint"


def empty_checkpoints(files: Path, runs: Iterable[RunKey], sure: Callable[[], object]) -> None:
    """Empty the checkpoint folders of runs that nobody has begun: a study of the same name has left them.

    Args:
        files: the study's.
        runs: whose they are.
        sure: called before anything is removed; raises where the runs are not ours to begin.

    Raises:
        ExecutorError: a folder cannot be emptied, or is reached by a link that leads elsewhere.
    """
    left = [folder for run in runs if _has_something(folder := checkpoint_folder(files, run))]
    if left:
        sure()
    for folder in left:
        hint = f"remove {folder} by hand: a run would go on from it that is not its own"
        if not folder.parent.resolve().is_relative_to(files.resolve()):
            raise ExecutorError(f"{folder.parent} is a link to {folder.parent.resolve()}", hint=hint)
        try:
            shutil.rmtree(folder) if folder.is_dir() and not folder.is_symlink() else folder.unlink()
        except OSError as error:
            raise ExecutorError(f"{folder} has another study's files: {error.strerror}", hint=hint) from error


def _has_something(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return os.path.lexists(folder)
    return any(folder.iterdir())


def pause_file(files: Path, run: RunKey) -> Path:
    """What a run of a TrainingTask goes on from when it was paused."""
    return checkpoint_folder(files, run) / "hpsearch.pt"


def forget_checkpoints(files: Path, runs: Iterable[RunKey], ended: Iterable[RunKey], *, paused: bool) -> None:
    """Remove the checkpoints of these runs, and what those that have ended were to go on from, where there are any.

    Args:
        files: the study's.
        runs: whose best weights are not kept.
        ended: runs that are final.
        paused: True where they are of a TrainingTask; what a plain function saves is its own, whatever it is called.
    """
    gone = [checkpoint_file(files, run) for run in runs]
    gone += [pause_file(files, run) for run in ended] if paused else []
    for file in gone:
        with suppress(OSError):  # what cannot be removed now, `hpsearch artifacts prune` finds
            file.unlink(missing_ok=True)
