"""The end of a run's log, as text without secrets. Nothing outside the study's files is ever read, wherever a link
there points.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpsearch.settings import group_log, log_file
from hpsearch.trial import RunKey
from hpsearch.written import printable, redacted

#: what is shown at most: lines, characters of one, characters in all
LINES, WIDTH, CHARACTERS = 200, 2000, 60_000
#: what is read of a file at most, from its end
BYTES = 256 * 1024


@final
@dataclass(frozen=True, kw_only=True)
class Tail:
    """The last lines of a log."""

    lines: Sequence[str]
    #: below the study's files, with ``/``
    files: Sequence[str]
    #: there is more above
    cut: bool


def tail(files: Path, run: RunKey) -> Tail | None:
    """The end of what a run has printed, or the group that it trained in; None where there is no log.

    Args:
        files: the study's files.
        run: of the study.
    """
    own = log_file(files, run)
    found = _end(files, own)
    if found is None:
        return None
    (mine, cut), names = found, [_below(files, own)]
    lines: list[str] = []
    for line in mine:
        lines.append(line)
        name = group_log(line)
        if name is None or name in names:
            continue
        shared = _end(files, files / name)
        if shared is not None:
            names.append(name)
            lines += shared[0]
            cut |= shared[1]
    kept: list[str] = []
    size = 0
    for line in map(redacted, reversed(lines)):  # before it is cut: half a password is told by nothing
        short = printable(line if len(line) <= WIDTH else f"{line[:WIDTH]}…", lines=True)
        size += len(short) + 1
        if len(kept) == LINES or size > CHARACTERS:
            cut = True
            break
        kept.append(short)
    return Tail(lines=kept[::-1], files=names, cut=cut)


def _end(files: Path, path: Path) -> tuple[list[str], bool] | None:
    """(lines, whether there is more above) of the end of a file; None where it is none of ours."""
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(files.resolve(strict=True)) or not real.is_file():
            return None
        # A file that was swapped for a link meanwhile is not followed.
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - BYTES))
            text = stream.read(BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    lines = text.splitlines()
    return (lines[1:], True) if size > BYTES else (lines, False)


def _below(files: Path, path: Path) -> str:
    return path.relative_to(files).as_posix()
