"""Successive halving: at each rung the best 1/eta go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from hpsearch import halving
from hpsearch.errors import Problem
from hpsearch.pruner import Bracket, Pruner, Rung, Verdict, broken_rules, last_epoch


@final
@dataclass(frozen=True, kw_only=True)
class SuccessiveHalving(Pruner):
    """All trials train for ``min_epochs``, the best 1/eta of them ``eta`` times as long, and so on to the last epoch.

    81 trials with eta 3 and 27 epochs: 81 to epoch 1, 27 to 3, 9 to 9, 3 to 27; 243 epochs in place of 2,187.

    Source: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization" (AISTATS
    2016). ``asynchronous``: Li et al., "A system for massively parallel hyperparameter tuning" (MLSys 2020): no trial
    waits for slower ones, and which go on depends on timing.
    """

    name: ClassVar[str] = "successive_halving"

    #: one of so many goes on, >= 2
    eta: int = 3
    #: the first rung, >= 1
    min_epochs: int = 1
    #: all rungs lie below it; None: the run's own number of epochs
    max_epochs: int | None = None
    cohort: int | None = None
    asynchronous: bool = False

    def brackets(self, trials: int, epochs: int | None) -> list[Bracket]:
        """One: rungs at ``min_epochs * eta**k`` for as long as more than one trial is left."""
        last = last_epoch(self.max_epochs, epochs)
        rungs = halving.rungs(trials, self.min_epochs, self.eta, last, asynchronous=self.asynchronous)
        return [Bracket(trials=trials, rungs=rungs)]

    def decide(self, rung: Rung) -> Verdict:
        """The best floor(n / eta) of all n that came to the rung, and at least one."""
        return halving.keep_best(rung, self.eta, asynchronous=self.asynchronous)

    def problems(self, epochs: int | None) -> list[Problem]:
        """Options out of range, and rungs that no run comes to."""
        last = last_epoch(self.max_epochs, epochs)
        words = f"must be below the last epoch ({last}), where nothing is left to save"
        rules = [
            ("eta", self.eta >= 2, "must be at least 2"),
            ("min_epochs", self.min_epochs >= 1, "must be at least 1"),
            ("min_epochs", last is None or self.min_epochs < last, words),
            ("cohort", self.cohort is None or self.cohort >= 2, "must be at least 2"),
        ]
        return broken_rules(self, rules)
