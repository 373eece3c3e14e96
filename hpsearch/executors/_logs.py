"""What runs that train together print cannot be told apart: it goes to one log, which the log of each run names."""

from __future__ import annotations

import contextlib
import itertools
import os
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

from hpsearch.settings import group_line, log_file
from hpsearch.trial import RunKey

_numbers = itertools.count(1)


def opening(attempt: int) -> str:
    """What a log says where an attempt begins."""
    return f"attempt {attempt}, {_moment()}, process {os.getpid()}"


@final
class GroupLog:
    """The log of the runs that one worker trains at once: ``groups/TIME-PROCESS-NUMBER.txt`` below the study's files.

    Args:
        files: the study's files.
    """

    def __init__(self, files: Path) -> None:
        self._files = files
        self._name = f"groups/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{next(_numbers)}.txt"

    @property
    def file(self) -> Path:
        """Where it is."""
        return self._files / self._name

    def add(self, runs: Mapping[RunKey, int]) -> str:
        """Name this log in those of further runs (run -> attempt); gives what this log is to say of them."""
        for run, attempt in runs.items():
            # A log that cannot be written (a full disk) must not cost the run.
            with contextlib.suppress(OSError):
                log = log_file(self._files, run)
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(group_line(opening(attempt), self._name))
        names = [f"{run} (attempt {attempt})" if attempt > 1 else str(run) for run, attempt in runs.items()]
        text = f"--- {_moment()}, process {os.getpid()}: {', '.join(names)} ---"
        return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _moment() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
