"""The median rule: what is worse than the median of all others at the same epoch goes no further."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from hpsearch.errors import Problem
from hpsearch.pruner import Bracket, Pruner, Rung, Verdict, broken_rules, last_epoch, no_last_epoch


@final
@dataclass(frozen=True, kw_only=True)
class Median(Pruner):
    """At each rung a trial stops whose mean over the seeds is worse than the median of all trials there.

    All: those of its cohort and of earlier ones that have come so far, itself and diverged ones included.

    Source: Golovin et al., "Google Vizier: a service for black-box optimization" (KDD 2017), section 3.2.2, which
    compares a trial's best value so far with the median of the others' running averages; here both are the values of
    the rung's epoch. ``asynchronous``: no trial waits for slower ones, and which stop depends on timing.
    """

    name: ClassVar[str] = "median"

    #: the first rung, >= 1
    warmup_epochs: int = 5
    #: epochs from one rung to the next, >= 1; each rung costs a checkpoint
    every: int = 5
    #: all rungs lie below it; None: the run's own number of epochs
    max_epochs: int | None = None
    #: with fewer trials than this at a rung, those of earlier cohorts counted, nobody is stopped, >= 2
    min_trials: int = 5
    cohort: int | None = None
    asynchronous: bool = False

    def brackets(self, trials: int, epochs: int | None) -> list[Bracket]:
        """One: rungs at ``warmup_epochs`` and ``every`` so many epochs after it; none where nobody knows the last."""
        last = last_epoch(self.max_epochs, epochs)
        return [Bracket(trials=trials, rungs=tuple(range(self.warmup_epochs, last or 0, self.every)))]

    def decide(self, rung: Rung) -> Verdict:
        """Strictly worse than the median stops, so the best never does, nor any of equals."""
        if not rung.waiting or (rung.expected and not self.asynchronous):
            return Verdict()
        costs = {number: rung.cost(values) for number, values in rung.values.items()}
        everyone = sorted([*costs.values(), *map(rung.cost, rung.earlier.values())])
        n = len(everyone)
        few = n < self.min_trials
        bound = math.inf if few else _middle(everyone)
        go = frozenset(number for number in rung.waiting if costs[number] <= bound and costs[number] < math.inf)
        if few:
            reason = f"fewer than {self.min_trials} trials at epoch {rung.epoch}: none is compared"
        else:
            median = rung.direction.sign * bound
            reason = f"median {median:.4g} of {n} at epoch {rung.epoch}"
        return Verdict(go=go, stop=rung.waiting - go, reason=reason)

    def problems(self, epochs: int | None) -> list[Problem]:
        """Options out of range, no last epoch, or rungs that no run comes to."""
        last = last_epoch(self.max_epochs, epochs)
        words = f"must be below the last epoch ({last}), where nothing is left to save"
        rules = [
            ("warmup_epochs", self.warmup_epochs >= 1, "must be at least 1"),
            ("warmup_epochs", last is None or self.warmup_epochs < last, words),
            ("every", self.every >= 1, "must be at least 1"),
            ("min_trials", self.min_trials >= 2, "must be at least 2"),
            ("cohort", self.cohort is None or self.cohort >= 2, "must be at least 2"),
        ]
        problems = broken_rules(self, rules)
        return [*problems, no_last_epoch(self)] if last is None else problems


def _middle(ordered: list[float]) -> float:
    """The median of sorted values, also where their sum is no float any more."""
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    # Halves of the smallest floats round to 0: never below the lower of the two, so that equals stay equal.
    return max(ordered[half - 1], ordered[half - 1] / 2 + ordered[half] / 2)
