"""Add seeds to trials, and repeat runs that have failed: recorded, as extra runs (``extra``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.archive import Archive
from hpsearch.errors import UsageError
from hpsearch.extra import MOST_SEEDS, ExtraRuns, NewSeeds, Repetitions, Request, failed_runs, reserved, under_way
from hpsearch.launch import Outcome, Place, go_further
from hpsearch.study import Study
from hpsearch.trial import Run, RunKey, Trial


@final
@dataclass(frozen=True, kw_only=True)
class Repeated:
    """What came of extra runs."""

    #: how making them ended; None where there was nothing to make
    outcome: Outcome | None
    #: what was under way when this began, then what this has asked for
    requests: Sequence[Request]
    #: all of the study, as they are now
    trials: Sequence[Trial]

    @property
    def over(self) -> bool:
        """False where it was interrupted: the same again goes on."""
        return self.outcome is None or self.outcome.state == "complete"

    def runs(self, request: Request) -> list[Run]:
        """A request's, in its order."""
        found = {run.key: run for trial in self.trials for run in trial.runs}
        return [found[key] for key in request.runs]


def add_seeds(study: Study, archive: Archive, place: Place, trials: Iterable[int], n: int) -> Repeated:
    """Train these trials with ``n`` further seeds, the same for all: the first that no run of the study has used.

    The very same wish that was interrupted goes on; another one that was is ended first.

    Args:
        study: as it is stored.
        archive: of the same database as ``place``.
        place: where and how the runs are made.
        trials: numbers of trials that are final.
        n: from 1 to 10,000.

    Raises:
        UsageError: ``n`` is out of range, or a trial has not ended. The others as ``launch.go_further`` says.
    """
    if not 1 <= n <= MOST_SEEDS:
        raise UsageError(f"--add-seeds: must be from 1 to {MOST_SEEDS:,}, not {n}")
    numbers = tuple(sorted(set(trials)))
    _refuse_open(study, archive.trials(study.name, numbers))
    return _make(study, archive, place, NewSeeds(trials=numbers, n=n, apart=reserved(archive.decisions(study.name))))


def repeat_failed(study: Study, archive: Archive, place: Place, runs: Iterable[RunKey]) -> Repeated:
    """Train runs that have failed once more, with the same seed; the failed rows stay.

    What was interrupted goes on; a run that fails again is repeated by the next call.

    Args:
        study: as it is stored.
        archive: of the same database as ``place``.
        place: where and how the runs are made.
        runs: of these, those whose last repetition has failed; those of trials that have not ended are left out.

    Raises:
        UsageError, StoreError and others: as ``launch.go_further`` says.
    """
    return _make(study, archive, place, Repetitions(of=frozenset(run[:2] for run in runs)))


def _make(study: Study, archive: Archive, place: Place, wish: NewSeeds | Repetitions) -> Repeated:
    trials, decisions = archive.trials(study.name), archive.decisions(study.name)
    last = under_way(trials, decisions)
    if last is None and isinstance(wish, Repetitions) and not any(k[:2] in wish.of for k in failed_runs(trials)):
        return Repeated(outcome=None, requests=(), trials=trials)
    chooser = ExtraRuns(wish, last)
    outcome = go_further(study, chooser, place)
    made = [request for request in (last, chooser.made) if request]
    return Repeated(outcome=outcome, requests=made, trials=archive.trials(study.name))


def _refuse_open(study: Study, trials: Sequence[Trial]) -> None:
    left = [f"{study.name}/{trial.number} has not ended ({trial.state})" for trial in trials if not trial.state.final]
    if left:
        hint = f"hpsearch resume {study.name}, or name the other trials alone"
        raise UsageError("\n".join(["seeds are added to trials that have ended:", *left]), hint=hint)
