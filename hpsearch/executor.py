"""Where workers are. An executor starts runs and hears of them; it knows nothing of trials, stores or strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.objective import Workload
from hpsearch.space import Params
from hpsearch.trial import Report, RunKey


@final
@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One attempt at one run."""

    run: RunKey
    params: Params
    #: from 1; every report carries it back
    attempt: int
    #: pause after so many epochs; None: train to the end
    until_epoch: int | None = None
    #: how many of the run's first epochs are recorded: what was saved later than that is not gone on from; None: any
    from_epoch: int | None = None
    #: shares a worker with the runs of this group only; None: with any
    group: int | None = None


class Executor(ABC):
    """Places runs on workers. Made for one ``Workload``; used by one thread.

    For every started assignment, ``poll`` gives exactly one ``Finished``, ``PausedReport`` or ``Lost`` in the end,
    and after it nothing more of that attempt; but for a worker that was lost because it said nothing (``silent``) and
    speaks again: what it says of those attempts is given too, and is for its caller to refuse.
    """

    @abstractmethod
    def capacity(self) -> int:
        """How many more runs it would take now: the lanes that are free, over all workers."""

    @abstractmethod
    def idle(self) -> int:
        """How many workers have nothing in hand: so many groups (``Assignment.group``) it would take now."""

    @abstractmethod
    def start(self, assignments: Sequence[Assignment], workload: Workload) -> None:
        """Begin. Never blocks for the length of a run; what goes wrong is a report.

        Spreads the runs evenly over the workers, such as may train together to the same one; runs of one ``group`` go
        to one idle worker, which takes no other run until it has ended them all.
        """

    @abstractmethod
    def poll(self, timeout_s: float) -> list[Report]:
        """What has been said since the last poll, in order for each run; waits at most so long for the first."""

    @abstractmethod
    def stop(self, runs: Collection[RunKey], *, now: bool = False) -> None:
        """End these runs: at their next report (``Finished``, cancelled), or ``now`` (``Lost``, cause ``stopped``)."""

    @abstractmethod
    def close(self) -> None:
        """End every worker and everything it started. Safe to call twice."""
