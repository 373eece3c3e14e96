"""How far a study is and how it ended, for someone who watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.errors import HpsearchError
from hpsearch.space import Value
from hpsearch.store import GROUPED
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, EpochReport, Finished, Grouped, RunKey, State, Trial

#: the same exception in so many first runs is a bug in the training code, not bad luck
FIRST_RUNS = 3


@final
@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is, for someone who watches."""

    study: str
    strategy: str
    metric: str
    direction: Direction
    #: trials by state
    counts: Mapping[State, int]
    #: all trials there will be, baselines included; None where nobody knows
    n_trials: int | None
    #: runs that have ended, pruned ones included
    runs_done: int
    #: None where ``n_trials`` is
    runs_total: int | None
    #: at most five complete trials, best first; their ``runs`` are left out
    best: tuple[Trial, ...]
    #: the current batch or round, from 0
    batch: int
    #: the part of the space the current batch is drawn from, in the parameters' own units; {} where it is all of it
    window: Mapping[str, tuple[Value, Value]]
    #: of coordinator's time, over all restarts
    seconds: float
    #: until the end at the present pace; None where nobody knows
    eta_s: float | None
    #: (``trial/seed``, reason) of the failed runs, newest first, at most five
    failures: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    #: how runs were trained so far, a line each: ``64 lanes, vmap on cpu``, ``solo on cpu: LSTM has no ...``
    engines: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a search ended."""

    #: ``complete``, ``stopped``, ``interrupted`` or ``failed``
    state: str
    reason: str
    progress: Progress
    error: HpsearchError | None = None


@final
class Engines:
    """How the runs of a study were trained: what workers said of it, each thing once.

    Args:
        known: what former coordinators have recorded of it.
    """

    def __init__(self, known: Sequence[Decision]) -> None:
        self._known: set[tuple[str, str, int, str]] = set()
        #: (engine, device, reason) -> the most lanes
        self._lanes: dict[tuple[str, str, str], int] = {}
        for decision in known:
            said = decision.details
            self._keep(str(said["engine"]), str(said["device"]), int(said["lanes"]), str(said["reason"]))

    def hear(self, report: Grouped) -> list[Decision]:
        """What there is to record of it: nothing where it was said before."""
        if not self._keep(report.engine, report.device, report.lanes, report.reason):
            return []
        return [
            Decision(
                kind=GROUPED,
                subject=str(len(report.runs)),
                reason=_line(report.engine, report.device, report.lanes, report.reason),
                details={
                    "engine": report.engine,
                    "device": report.device,
                    "lanes": report.lanes,
                    "reason": report.reason,
                    "first": str(min(report.runs)) if report.runs else "",
                },
            )
        ]

    def lines(self) -> tuple[str, ...]:
        """A line for each way of training and its reason, with the most lanes that it had."""
        return tuple(_line(engine, device, lanes, why) for (engine, device, why), lanes in self._lanes.items())

    def _keep(self, engine: str, device: str, lanes: int, reason: str) -> bool:
        """Whether it is new."""
        before = len(self._known)
        self._known.add((engine, device, lanes, reason))
        self._lanes[engine, device, reason] = max(lanes, self._lanes.get((engine, device, reason), 0))
        return len(self._known) > before


@final
class Failures:
    """What has failed: the newest ones, and whether the first runs all failed alike."""

    def __init__(self) -> None:
        self._newest: deque[tuple[str, str]] = deque(maxlen=5)
        self._first: list[tuple[str, str]] = []

    @property
    def newest(self) -> tuple[tuple[str, str], ...]:
        """(``trial/seed``, reason), newest first, at most five."""
        return tuple(self._newest)

    def hear(self, report: Finished, done: int) -> str:
        """A run has ended, as the ``done``-th of its study; what is wrong, where the training code must be."""
        if report.state is State.FAILED:
            self._newest.appendleft((str(report.run), report.reason))
        if done > FIRST_RUNS:
            return ""
        last = report.error.strip().splitlines()[-1] if report.error.strip() else ""
        self._first.append((report.reason, last))
        alike = len(self._first) == FIRST_RUNS and len(set(self._first)) == 1 and report.reason == "exception"
        return f"the first {FIRST_RUNS} runs all failed with the same exception" if alike else ""


@final
class Pace:
    """How fast a study goes: by runs, or by epochs where a pruner ends most runs early.

    Args:
        seconds: that the study had taken when this coordinator began.
        runs: that had ended then.
        epochs: that all runs take together; None: count runs.
        curves: the epochs that were reported before, by run.
    """

    def __init__(
        self, *, seconds: float, runs: int, epochs: int | None, curves: Mapping[RunKey, Mapping[int, float]]
    ) -> None:
        self._epochs = epochs
        #: how many epochs each run has come to
        self._come = {key: max(curve) + 1 for key, curve in curves.items() if curve}
        self._trained = sum(self._come.values())
        self._since = (seconds, runs if epochs is None else self._trained)

    def hear(self, report: EpochReport) -> None:
        """An epoch was trained; one that is trained again does not count."""
        if self._epochs is None:
            return
        before = self._come.get(report.run, 0)
        if report.epoch >= before:
            self._come[report.run] = report.epoch + 1
            self._trained += report.epoch + 1 - before

    def eta_s(self, *, seconds: float, runs: int, total: int | None) -> float | None:
        """Seconds until the end, at the pace since this coordinator began; None where nobody knows.

        Args:
            seconds: that the study has taken.
            runs: that have ended, of ``total`` runs.
        """
        done, end = (runs, total) if self._epochs is None else (self._trained, self._epochs)
        began, before = self._since
        if end is None or done <= before or seconds <= began:
            return None
        return max(end - done, 0) * (seconds - began) / (done - before)


def _line(engine: str, device: str, lanes: int, reason: str) -> str:
    how = Grouped(runs=(), engine=engine, device=device, lanes=lanes).how
    return f"{how}: {reason}" if reason else how
