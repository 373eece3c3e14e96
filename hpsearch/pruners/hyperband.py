"""Hyperband: several successive halvings side by side, from the most eager to plain random search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from hpsearch import halving
from hpsearch.errors import Problem
from hpsearch.pruner import Bracket, Pruner, Rung, Verdict, broken_rules, last_epoch, no_last_epoch


@final
@dataclass(frozen=True, kw_only=True)
class Hyperband(Pruner):
    """A cohort is divided into brackets of successive halving, whose first rungs are ever later; the last has none.

    With R epochs at most and s_max the largest s for which ``min_epochs * eta**s <= R``, bracket s (from s_max down to
    0) has its rungs at R / eta**s, R / eta**(s-1) .. R / eta, in whole epochs, rounded down. Algorithm 1 gives it
    ceil((s_max + 1) * eta**s / (s + 1)) trials, so that all brackets cost about the same (their own table 1 rounds
    otherwise). A cohort of any size is divided in the proportions eta**s / (s + 1), each share rounded down, and what
    is left given to the largest remainders, of equal ones to the more eager bracket; a bracket without trials is left
    out. So 143 trials with R = 81 and eta = 3 are 81, 34, 15, 8 and 5, as in the algorithm. The trials with the lowest
    numbers of a cohort are in the most eager bracket.

    Source: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: a novel bandit-based approach to
    hyperparameter optimization" (JMLR 18, 2018), algorithm 1. A trial goes on from where it stopped, where the
    algorithm counts it from its start; ``asynchronous``: as in successive halving.
    """

    name: ClassVar[str] = "hyperband"

    #: one of so many goes on, >= 2
    eta: int = 3
    #: no rung lies before it, >= 1
    min_epochs: int = 1
    #: R; None: the run's own number of epochs
    max_epochs: int | None = None
    cohort: int | None = None
    asynchronous: bool = False

    def brackets(self, trials: int, epochs: int | None) -> list[Bracket]:
        """At most s_max + 1; one without rungs where nobody knows R."""
        last = last_epoch(self.max_epochs, epochs)
        if last is None:
            return [Bracket(trials=trials, rungs=())]
        most = 0
        while self.min_epochs * self.eta ** (most + 1) <= last:
            most += 1
        steps = range(most, -1, -1)
        brackets = []
        for s, count in zip(steps, _shares(trials, [(self.eta**s, s + 1) for s in steps]), strict=True):
            # floor(floor(R / eta**s) * eta**k) would drift from R / eta: each rung is counted from R.
            wanted = halving.rungs(count, 1, self.eta, self.eta**s, asynchronous=self.asynchronous)
            rungs = tuple(last * step // self.eta**s for step in wanted)
            if count:
                brackets.append(Bracket(trials=count, rungs=rungs))
        return brackets

    def decide(self, rung: Rung) -> Verdict:
        """The best floor(n / eta) of all n of the bracket that came to the rung, and at least one."""
        return halving.keep_best(rung, self.eta, asynchronous=self.asynchronous)

    def problems(self, epochs: int | None) -> list[Problem]:
        """Options out of range, no R, or an R that leaves one bracket, without a rung."""
        last = last_epoch(self.max_epochs, epochs)
        least = self.min_epochs * self.eta
        rules = [
            ("eta", self.eta >= 2, "must be at least 2"),
            ("min_epochs", self.min_epochs >= 1, "must be at least 1"),
            ("cohort", self.cohort is None or self.cohort >= 2, "must be at least 2"),
        ]
        if last is not None:
            words = f"is too many for runs of {last} epochs: with eta {self.eta} they need {least}"
            rules.append(("min_epochs", least <= last, words))
        problems = broken_rules(self, rules)
        return [*problems, no_last_epoch(self)] if last is None else problems


def _shares(trials: int, weights: list[tuple[int, int]]) -> list[int]:
    """``trials`` in the proportions of ``weights``, fractions (over, under), by the largest remainders; exact."""
    common = 1
    for _, under in weights:
        common *= under
    sizes = [over * common // under for over, under in weights]
    total = sum(sizes)
    shares = [trials * size // total for size in sizes]
    left = sorted(range(len(sizes)), key=lambda k: (-(trials * sizes[k] % total), k))
    for k in left[: trials - sum(shares)]:
        shares[k] += 1
    return shares
