"""Which checkpoints are kept: those of the best trials of the search, as many as the study says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from hpsearch.study import Study
from hpsearch.trial import Finished, RunKey, Trial, best_trials


@final
class Kept:
    """The best trials so far, by the checkpoints that they have.

    Args:
        study: says how many.
        trials: that are there when a coordinator begins.
    """

    def __init__(self, study: Study, trials: Sequence[Trial]) -> None:
        self._study = study
        #: trials of which a run has left a checkpoint, as far as anyone knows
        self._have = {trial.number for trial in trials}
        self._best = best_trials(trials, study.direction, study.keep)

    def hear(self, report: Finished) -> None:
        """A run of the search has ended."""
        if report.checkpoint is not None:
            self._have.add(report.run.trial)

    def score(self, trial: Trial) -> list[RunKey]:
        """A trial is final: the runs whose checkpoints are not kept any more."""
        if trial.number not in self._have:
            return []
        before = [*self._best, trial]
        self._best = best_trials(before, self._study.direction, self._study.keep)
        kept = {one.number for one in self._best}
        gone = [one.number for one in before if one.number not in kept]
        self._have.difference_update(gone)
        return [RunKey(number, seed) for number in gone for seed in self._study.seeds]
