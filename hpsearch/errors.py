"""Every error that hpsearch raises on purpose.

HpsearchError                 exit code
├── StudyError                2   the study (file) has mistakes; all of them, each a Problem
├── ObjectiveError            2   the training code does not fit the study
├── StudyChangedError         2   a study of this name is stored with another spec or code
├── UsageError                2   a command or call asks for what cannot be
├── NotFoundError             3   no such study, trial, run or database
├── UnusableError             4   the study ended without a usable result
├── CheckError                5   a check that the user asked for is not met
├── StoreError                6   the database cannot be reached, read or written
├── ExecutorError             6   no worker can be started or kept
└── StudyHeldError            7   another coordinator holds the study

Stopped (BaseException)           raised inside a training function when its run is to end
├── Pruned                        the trial is not worth more epochs
└── Paused                        the run waits at a rung and may go on later
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final


def shown(value: object) -> str:
    """A value as an error message may echo it: on one line, without control characters, at most 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print whole numbers of more than 4300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:44]}... ({len(text)} characters)"


@final
@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in a study, with the way out."""

    #: dotted path of the field: ``search_space.lr.low``
    field: str
    #: what is wrong, in words, without the field's name
    message: str
    #: what would be right; empty where the message says it already
    hint: str = ""
    #: the offending value as it was written; None where there is none
    value: object = None
    #: ``file:line:column`` where known
    where: str = ""

    def __str__(self) -> str:
        head = f"{self.where}  " if self.where else ""
        text = f"{head}{self.field}: {self.message}"
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class HpsearchError(Exception):
    """Something went wrong that a user can act on."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        #: the way out, one line; empty where the message says it
        self.hint = hint


class StudyError(HpsearchError):
    """The study has mistakes. ``problems`` holds all of them."""

    exit_code = 2

    def __init__(self, problems: list[Problem], *, file: str = "") -> None:
        self.problems = problems
        self.file = file
        count = "a mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        head = f"{file or 'the study'} has {count}"
        super().__init__("\n".join([head, *(str(problem) for problem in problems)]))


class ObjectiveError(HpsearchError):
    """The training code cannot be found, or does not fit the study."""

    exit_code = 2


class StudyChangedError(HpsearchError):
    """A study of this name is stored with another spec or other code."""

    exit_code = 2


class UsageError(HpsearchError):
    """A command or a call asks for what cannot be; the message says what and why."""

    exit_code = 2


class NotFoundError(HpsearchError):
    """No such study, trial, run or database."""

    exit_code = 3


class UnusableError(HpsearchError):
    """The study ended without a usable result, or too many of its trials failed."""

    exit_code = 4


class CheckError(HpsearchError):
    """A check that the user asked for is not met."""

    exit_code = 5


class StoreError(HpsearchError):
    """The database cannot be reached, read or written."""

    exit_code = 6


class ExecutorError(HpsearchError):
    """No worker can be started or kept."""

    exit_code = 6


class StudyHeldError(HpsearchError):
    """Another coordinator holds the study, or has taken it over."""

    exit_code = 7


class Stopped(BaseException):
    """Raised by ``run.report`` inside a training function when its run is to end.

    Not an ``Exception``: a training function's own ``except Exception`` must not swallow it.
    """


class Pruned(Stopped):
    """The trial is not worth more epochs."""


class Paused(Stopped):
    """The run waits at a rung; it may go on later from its checkpoint."""
