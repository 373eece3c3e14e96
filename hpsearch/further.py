"""Runs beyond the search: of trials that are final, with fresh seeds or once more. No strategy or pruner sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.strategy import Decision
from hpsearch.trial import Run, RunKey, Trial

#: kinds of decisions beyond the search: a race begins, a trial leaves it, it is over; the test set was looked at
RACE, DROP, CONFIRMED, REVEAL = "race", "drop", "confirmed", "reveal"


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


#: asked with all trials and all their runs whenever no further run is open. Pure: the same record, the same answer
Chooser = Callable[[Sequence[Trial]], Further]


def further_runs(trial: Trial) -> tuple[Run, ...]:
    """Those of a trial's runs that no search has made."""
    mine = {run.key for run in trial.search_runs}
    return tuple(run for run in trial.runs if run.key not in mine)
