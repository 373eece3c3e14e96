"""``study``, ``study/trial`` and ``study/trial/seed``: how a user names what something is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from hpsearch.archive import Archive, StudySummary
from hpsearch.errors import NotFoundError, UsageError
from hpsearch.trial import Run, Trial


@final
@dataclass(frozen=True, kw_only=True)
class Address:
    """A study, one of its trials, or one of its runs; ``study`` may be the beginning of a name."""

    study: str
    trial: int | None = None
    seed: int | None = None
    repeat: int = 0

    def __str__(self) -> str:
        parts = [str(part) for part in (self.study, self.trial, self.seed) if part is not None]
        return "/".join(parts) + (f".{self.repeat}" if self.repeat else "")


def parse(text: str) -> Address:
    """An address as it was typed.

    Raises:
        UsageError: it is none.
    """
    study, *rest = text.split("/")
    repeat = ""
    if len(rest) == 2:
        rest[1], _, repeat = rest[1].partition(".")
    numbers = [part.removeprefix("#") for part in [*rest, *([repeat] if repeat else [])]]
    if not study or len(rest) > 2 or not all(part.isdecimal() for part in numbers):
        hint = "study, study/trial or study/trial/seed: digits/12/0"
        raise UsageError(f"{text!r} is no address", hint=hint)
    trial, seed, number = [int(part) for part in numbers] + [None] * (3 - len(numbers))
    return Address(study=study, trial=trial, seed=seed, repeat=number or 0)


def study_of(archive: Archive, name: str) -> StudySummary:
    """The study of this name, or the only one whose name begins so.

    Raises:
        NotFoundError: no such study, or several begin so; names them.
    """
    try:
        return archive.study(name)
    except NotFoundError:
        found = [study for study in archive.studies() if study.name.startswith(name)] if name else []
        if len(found) == 1:
            return found[0]
        if not found:
            raise
        names = ", ".join(sorted(study.name for study in found)[:8])
        raise NotFoundError(f"{len(found)} studies begin with {name!r}", hint=f"say more: {names}") from None


def found(archive: Archive, text: str) -> Address:
    """The whole address of what is there.

    Raises:
        UsageError: it is no address. NotFoundError: nothing has it.
    """
    wanted = parse(text)
    wanted = replace(wanted, study=study_of(archive, wanted.study).name)
    if wanted.trial is not None:
        trial = trial_of(archive, wanted.study, wanted.trial)
        if wanted.seed is not None:
            run_of(wanted.study, trial, wanted)
    return wanted


def trial_of(archive: Archive, study: str, number: int) -> Trial:
    """One trial.

    Raises:
        NotFoundError: the study has no such trial.
    """
    trials = archive.trials(study, [number])
    if not trials:
        raise NotFoundError(f"{study} has no trial {number}", hint=f"hpsearch show {study}")
    return trials[0]


def run_of(study: str, trial: Trial, address: Address) -> Run:
    """One run of a trial.

    Raises:
        NotFoundError: the trial has no such run.
    """
    for run in trial.runs:
        if (run.key.seed, run.key.repeat) == (address.seed, address.repeat):
            return run
    seeds = ", ".join(str(run.key).partition("/")[2] for run in trial.runs)
    raise NotFoundError(f"{study}/{trial.number} has no run with seed {address.seed}", hint=f"its seeds: {seeds}")
