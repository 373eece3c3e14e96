"""Where the record and its files are when nobody says so."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hpsearch.trial import RunKey

DEFAULT_DB = "sqlite:///hpsearch.db"


def database(db: str | None = None) -> str:
    """The database's URL: ``db``, else ``HPSEARCH_DB``, else ``sqlite:///hpsearch.db`` in the current folder."""
    return db or os.environ.get("HPSEARCH_DB") or DEFAULT_DB


def files_folder(db: str, study: str) -> Path:
    """Where a study's logs and checkpoints go by default: ``STUDY`` in ``HPSEARCH_FILES``, else in ``hpsearch-files``
    beside an SQLite database, or here.
    """
    if named := os.environ.get("HPSEARCH_FILES"):
        return (Path(named) / study).resolve()
    path = Path(db.removeprefix("sqlite:///")) if db.startswith("sqlite:///") else Path("hpsearch.db")
    return (path.parent / "hpsearch-files" / study).resolve()


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


def forget_checkpoints(files: Path, runs: Iterable[RunKey]) -> None:
    """Remove the checkpoints of these runs, where there are any."""
    for run in runs:
        with suppress(OSError):  # what cannot be removed now, `hpsearch artifacts prune` finds
            checkpoint_file(files, run).unlink(missing_ok=True)
