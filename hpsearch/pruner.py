"""What stops trials early: a pure function of the recorded curves.

A cohort of trials trains to a rung, an epoch, and waits there, saved and in no worker. What ``decide`` lets go on is
started again where it stopped; what it stops is pruned. Trials are pruned, not single runs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from hpsearch.errors import Problem, shown
from hpsearch.trial import Direction


@final
@dataclass(frozen=True, kw_only=True)
class Bracket:
    """Trials of a cohort that share their rungs."""

    #: how many trials of the cohort, in number order
    trials: int
    #: the epochs (counted from 1, increasing, below the run's last) after which they wait
    rungs: tuple[int, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Rung:
    """One rung of one bracket, as the record has it. Baselines are never pruned and are not here."""

    epoch: int
    direction: Direction
    #: trial number -> its metric at this epoch, a value a seed (the same seeds in the same order for all), for every
    #: trial of the bracket that has come so far. One that diverged or failed on the way has the worst value.
    values: Mapping[int, Sequence[float]]
    #: of those, the ones that wait here; the others were let go on already, or have ended
    waiting: frozenset[int]
    #: how many trials of the bracket may still come to this rung: those on their way, and those that wait at an earlier
    #: rung, undecided
    expected: int
    #: trials of earlier cohorts: number -> the metric at this epoch
    earlier: Mapping[int, Sequence[float]] = field(default_factory=dict)

    def cost(self, values: Sequence[float]) -> float:
        """The mean over the seeds, so signed that less is better; inf, the worst, where any of them is not finite."""
        if not values or not all(math.isfinite(value) for value in values):
            return math.inf
        # Divided first: the sum of values near the end of the float range would be inf.
        mean = sum(value / len(values) for value in values)
        return self.direction.sign * mean


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of waiting trials; those in neither set wait on."""

    go: frozenset[int] = frozenset()
    stop: frozenset[int] = frozenset()
    #: in words, for the record: ``best 27 of 81 at epoch 1``
    reason: str = ""


def last_epoch(max_epochs: int | None, epochs: int | None) -> int | None:
    """Below which rungs lie: the smaller of what a pruner and a run say; None where neither does."""
    return min((n for n in (max_epochs, epochs) if n is not None), default=None)


def no_last_epoch(pruner: Pruner) -> Problem:
    """What a pruner says that must know the last epoch where nobody does."""
    message = "is missing: the training code does not say how many epochs a run takes"
    hint = f"pruner: {{{pruner.name}: {{max_epochs: 20}}}}, or epochs: 20 in search_space"
    return Problem(field="pruner.max_epochs", message=message, hint=hint)


def broken_rules(pruner: Pruner, rules: Sequence[tuple[str, bool, str]]) -> list[Problem]:
    """The problems of a pruner's options. ``rules``: (option, whether it holds, the rule in words)."""
    values = {option: getattr(pruner, option) for option, _, _ in rules}
    return [
        Problem(field=f"pruner.{option}", message=f"{rule}, not {shown(values[option])}", value=values[option])
        for option, holds, rule in rules
        if not holds
    ]


class Pruner(ABC):
    """Decides which trials go no further. A member is a frozen dataclass of its options."""

    name: ClassVar[str]
    #: trials that are compared with each other; None: the strategy's batch, or all trials of the study
    cohort: int | None
    #: decide at once among those there so far; False: when all have come, so that no decision depends on timing
    asynchronous: bool

    @abstractmethod
    def brackets(self, trials: int, epochs: int | None) -> list[Bracket]:
        """How a cohort of ``trials`` >= 1 trials is divided, where a run takes ``epochs`` epochs at most.

        ``epochs`` is None where nobody knows. Each bracket has a trial at least, and together they have all.
        """

    @abstractmethod
    def decide(self, rung: Rung) -> Verdict:
        """Pure. With ``expected == 0`` every waiting trial is in ``go`` or in ``stop``.

        A synchronous pruner decides nothing while trials are expected, so that no decision depends on timing. A trial
        whose metric is not finite (with any seed) never goes on.
        """

    @abstractmethod
    def problems(self, epochs: int | None) -> list[Problem]:
        """What is wrong with the options for runs of so many epochs at most (None: nobody knows); ``pruner...``."""
