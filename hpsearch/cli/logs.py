"""``hpsearch logs``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hpsearch.address import parse, run_of, study_of, trial_of
from hpsearch.archive import Archive
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out, say
from hpsearch.errors import NotFoundError, UsageError
from hpsearch.settings import files_folder, group_log, log_file
from hpsearch.trial import RunKey

#: seconds between two looks at a file that grows
FOLLOW_S = 0.2
CHUNK = 65_536


def logs(
    address: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", show_default=False)] = False,
    files: Path | None = None,
    common: Common = COMMON,
) -> None:
    """Print what a trial's runs have printed, or the groups that they trained in: a group has one log.

    Args:
        address: study/trial or study/trial/seed.
        follow: Go on until the run has ended (one run only).
        files: Where the study's files are, if it was run with --files.
    """
    from hpsearch.stores.sql import open_archive

    url = common.database
    archive, wanted = open_archive(url), parse(address)
    if wanted.trial is None:
        raise UsageError(f"{address!r} names no trial", hint=f"hpsearch logs {address}/0")
    study = study_of(archive, wanted.study).name
    folder = files_folder(url, study, files)
    trial = trial_of(archive, study, wanted.trial)
    runs = list(trial.runs) if wanted.seed is None else [run_of(study, trial, wanted)]
    if follow and len(runs) > 1:
        seeds = ", ".join(str(run.key.seed) for run in runs)
        raise UsageError(f"{address} has {len(runs)} runs; --follow takes one", hint=f"{address}/SEED, of {seeds}")
    found, shown = False, set[str]()
    for run in runs:
        file = log_file(folder, run.key)
        if not file.exists() and not (follow and not run.state.final):
            continue
        found = True
        if len(runs) > 1 and not common.quiet:
            say(f"── {study}/{run.key} ({run.state}) {file}", style="dim")
        growing = partial(_growing, archive, study, run.key) if follow else lambda: False
        for text in _with_groups(folder, file, growing, shown):
            out(text.removesuffix("\n"))
    if not found:
        raise NotFoundError(f"{address} has no log in {folder}", hint="--files names the folder the study was run with")


def _growing(archive: Archive, study: str, key: RunKey) -> bool:
    return not any(run.state.final for run in trial_of(archive, study, key.trial).runs if run.key == key)


def _with_groups(folder: Path, file: Path, growing: Callable[[], bool], shown: set[str]) -> Iterator[str]:
    """A run's log, and after each line that names the log of a group, that one, if it was not ``shown`` before."""
    for text in _pieces(file, growing):
        plain: list[str] = []
        lines = text.removesuffix("\n").split("\n")
        for place, line in enumerate(lines):
            plain.append(line)
            name = group_log(line)
            if name is None or not (folder / name).is_file():
                continue
            yield "\n".join(plain)
            plain = []
            if name in shown:
                yield "(see above)"
                continue
            shown.add(name)
            last = place == len(lines) - 1
            stays = partial(_stays, growing, file, file.stat().st_size) if last else lambda: False
            yield from _pieces(folder / name, stays)
        if plain:
            yield "\n".join(plain)


def _stays(growing: Callable[[], bool], file: Path, size: int) -> bool:
    """Whether a run may still train in its group: it has left it where its own log goes on."""
    return growing() and file.stat().st_size == size


def _pieces(file: Path, growing: Callable[[], bool]) -> Iterator[str]:
    """Whole lines of a file, in pieces, until its end; while ``growing`` also those that come after."""
    while not file.exists():
        if not growing():
            return
        time.sleep(FOLLOW_S)
    rest = ""
    with file.open(encoding="utf-8", errors="replace") as stream:
        while True:
            more = growing()  # asked before the read: what was written before the run's end is read after it
            text = stream.read(CHUNK)
            lines, end, rest = (rest + text).rpartition("\n")
            if end:
                yield lines + end
            if text:
                continue
            if not more:
                break
            time.sleep(FOLLOW_S)
    if rest:
        yield rest
