"""What lost workers cost their runs: each loss is charged up to a budget for its cause, then the run has failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import final

from hpsearch.trial import Finished, Lost, RunKey, State

#: how many attempts a run may lose to a cause before it has failed; causes that are nobody's fault are not charged
UNCHARGED = ("drained", "stopped", "coordinator")
LOSS_BUDGETS = {"oom": 1, **dict.fromkeys(UNCHARGED)}
LOSS_BUDGET = 5
#: before the cause of a loss that is charged to all runs the worker had in hand, and so to none of them
TOGETHER = "together: "


@final
class Losses:
    """What each run has lost so far.

    Args:
        known: lost attempts in the record, by run and cause.
    """

    def __init__(self, known: Mapping[RunKey, Mapping[str, int]]) -> None:
        self._counts = {key: Counter(causes) for key, causes in known.items()}

    def may_lose(self, key: RunKey, cause: str) -> bool:
        """True where one more loss by this cause is within the run's budget."""
        budget = LOSS_BUDGETS.get(cause, LOSS_BUDGET)
        return budget is None or self._counts.get(key, Counter())[cause] < budget

    def charge(self, report: Lost) -> Finished | None:
        """Count a loss; the run's end, where it was one too many."""
        within = self.may_lose(report.run, report.cause)
        causes = self._counts.setdefault(report.run, Counter())
        causes[report.cause] += 1
        if within:
            return None
        times = causes[report.cause]
        return Finished(
            run=report.run,
            attempt=report.attempt,
            state=State.FAILED,
            reason=f"{report.cause} ({times} times)" if times > 1 else report.cause,
            error=f"{times} workers were lost with this run; the last by {report.cause}",
            seconds=report.seconds,
            worker=report.worker,
        )
