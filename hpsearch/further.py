"""Runs beyond the search: of trials that are final, with fresh seeds or once more. No strategy or pruner sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from hpsearch.strategy import Decision
from hpsearch.trial import Run, RunKey, Stage, Trial

#: kinds of decisions beyond the search: a race begins, a trial leaves it, it is over; the test set was looked at
RACE, DROP, CONFIRMED, REVEAL = "race", "drop", "confirmed", "reveal"
#: further seeds of trials, or failed runs once more, were asked for
EXTRA = "extra"


def sealed(decision: Decision) -> Decision:
    """A decision as anyone may read it: of a look at the test set not what was seen, which ``hpsearch ship`` tells."""
    if decision.kind != REVEAL:
        return decision
    return replace(decision, details={name: said for name, said in decision.details.items() if name != "test"})


@final
@dataclass(frozen=True, kw_only=True)
class Further:
    """What to do next with trials that are final."""

    #: queued, of the stages ``confirm`` and ``extra``
    runs: Sequence[Run] = ()
    decisions: Sequence[Decision] = ()
    #: runs whose checkpoints are not kept
    forgotten: Sequence[RunKey] = ()
    #: there will be no more
    over: bool = False


class Chooser(ABC):
    """Says which further runs to make. Pure: the same record, the same answer."""

    @property
    @abstractmethod
    def stage(self) -> Stage:
        """Of all its runs. Open runs of another stage wait for their own chooser."""

    @abstractmethod
    def __call__(self, trials: Sequence[Trial]) -> Further:
        """Asked with all trials and all their runs, whenever none of its stage is open."""


def parted(trial: Trial, chooser: Chooser | None) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """The runs of a trial that are the chooser's (None: the search's) to make, and the others."""
    searched = {run.key for run in trial.search_runs}
    mine: list[Run] = []
    others: list[Run] = []
    for run in trial.runs:
        made = run.key in searched if chooser is None else run.key not in searched and run.stage is chooser.stage
        (mine if made else others).append(run)
    return tuple(mine), tuple(others)
