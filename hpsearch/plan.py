"""What a study will run, and what it will cost: plain data, from the study alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.space import Params
from hpsearch.strategy import History
from hpsearch.study import Study, warnings_of


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run, timed in a worker process."""

    #: seconds from the start of the worker process to the first report
    first_s: float
    #: seconds of one epoch; None where the run reported fewer than two
    epoch_s: float | None
    #: how many epochs a run has at most; None where the training code does not say
    epochs: int | None
    #: seconds of the whole run, where it ended while it was watched
    run_s: float | None

    @property
    def estimate_s(self) -> float | None:
        """Seconds of a whole run in a warm worker; None where nothing tells."""
        if self.run_s is not None:
            return self.run_s
        if self.epoch_s is None or self.epochs is None:
            return None
        return self.epoch_s * self.epochs


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study will run."""

    #: baselines included; None where only the time budget ends it
    trials: int | None
    #: trials x seeds
    runs: int | None
    baselines: Sequence[Params]
    #: the first settings that the strategy chooses
    first: Sequence[Params]
    #: what the user should know before the start
    notes: Sequence[str]

    def seconds(self, measured: Measured, workers: int) -> float | None:
        """How long it will take on so many workers, by one measured run; None where nothing tells."""
        run_s = measured.estimate_s
        if run_s is None or self.runs is None:
            return None
        return measured.first_s + run_s * max(1.0, self.runs / workers)


def plan(study: Study, show: int = 5) -> Plan:
    """What the study will run. Asks the strategy for its first ``show`` settings; runs and records nothing."""
    size = study.strategy.size(study.search_space)
    ends = [n for n in (study.n_trials, size) if n is not None]
    trials = min(ends) + len(study.baselines) if ends else None
    history = History(search_space=study.search_space, direction=study.direction, seed=study.seed)
    first = study.strategy.ask(history, min([show, *ends])) if show > 0 else []
    return Plan(
        trials=trials,
        runs=None if trials is None else trials * len(study.seeds),
        baselines=study.baselines,
        first=first,
        notes=warnings_of(study),
    )
