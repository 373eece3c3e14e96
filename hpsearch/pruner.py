"""What stops trials early: a pure function of the recorded curves.

A cohort of trials trains to a rung, an epoch, and waits there, saved and in no worker. What ``decide`` lets go on is
started again where it stopped; what it stops is pruned. Trials are pruned, not single runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from hpsearch.errors import Problem
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
    #: how many trials of the bracket are still on their way to this rung
    expected: int
    #: trials of earlier cohorts: number -> the metric at this epoch
    earlier: Mapping[int, Sequence[float]] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of waiting trials; those in neither set wait on."""

    go: frozenset[int] = frozenset()
    stop: frozenset[int] = frozenset()
    #: in words, for the record: ``best 27 of 81 at epoch 1``
    reason: str = ""


class Pruner(ABC):
    """Decides which trials go no further. A member is a frozen dataclass of its options."""

    name: ClassVar[str]
    #: trials that are compared with each other; None: the strategy's batch, or all trials of the study
    cohort: int | None

    @abstractmethod
    def brackets(self, trials: int, epochs: int) -> list[Bracket]:
        """How a cohort of so many trials is divided, where a run takes ``epochs`` epochs at most."""

    @abstractmethod
    def decide(self, rung: Rung) -> Verdict:
        """Pure. With ``expected == 0`` every waiting trial is in ``go`` or in ``stop``.

        A synchronous pruner decides nothing while trials are expected, so that no decision depends on timing.
        """

    @abstractmethod
    def problems(self) -> list[Problem]:
        """What is wrong with the options."""
