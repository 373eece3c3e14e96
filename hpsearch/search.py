"""The loop: ask -> start -> poll -> record. It knows contracts only.

Each turn is decided in memory (``ledger.py``), written in one transaction, and acted upon only when it is durable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, final

from hpsearch.errors import ExecutorError, ObjectiveError
from hpsearch.executor import Executor
from hpsearch.further import Chooser
from hpsearch.ledger import Ledger
from hpsearch.objective import Workload
from hpsearch.plan import plan
from hpsearch.progress import Ending, Progress
from hpsearch.store import Command, Holder, Store, StudyRecord
from hpsearch.study import Study
from hpsearch.trial import RunKey

#: how long one turn waits for a report
POLL_S = 0.5
#: how often the lease is renewed and commands are read
RENEW_S = 2.0
#: how often an observer hears of the progress
OBSERVE_S = 0.2

Observer = Callable[[Progress], None]


class Interrupt(Protocol):
    """How often the user has asked the study to stop: 0 not at all, 1 in good order, 2 now."""

    level: int


@final
class _Clock:
    """This coordinator's time: each second goes into the record once."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._written = 0.0
        self._last: dict[str, float] = {}

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def unwritten(self) -> float:
        seconds = self.elapsed() - self._written
        self._written += seconds
        return seconds

    def due(self, what: str, every_s: float) -> bool:
        """True where ``every_s`` have passed since it was last true for ``what``."""
        now = self.elapsed()
        if now - self._last.get(what, 0.0) < every_s:
            return False
        self._last[what] = now
        return True


@final
class _Asked:
    """How far the study is asked to stop: 0 not at all, 1 in good order, 2 now, also when the grace is over."""

    def __init__(self, grace_s: float, renew: Callable[[], Sequence[Command]]) -> None:
        self.level, self._grace_s, self._deadline = 0, grace_s, 0.0
        self._renew = renew

    def look(self, level: int) -> None:
        """So far it is asked by this process."""
        if level and not self.level:
            self._deadline = time.monotonic() + self._grace_s
        self.level = max(self.level, level)
        if self.level and time.monotonic() >= self._deadline:
            self.level = 2

    def renew(self) -> None:
        """Renew the lease, and hear what ``hpsearch stop`` has asked: then the grace begins anew."""
        if level := _stop_level(self._renew()):
            self.level, self._deadline = max(self.level, level), time.monotonic() + self._grace_s


def search(
    study: Study,
    record: StudyRecord,
    *,
    store: Store,
    executor: Executor,
    workload: Workload,
    holder: Holder,
    interrupt: Interrupt,
    lease_s: float = 60.0,
    grace_s: float = 30.0,
    allow_changed: bool = False,
    observer: Observer = lambda progress: None,
    chooser: Chooser | None = None,
    leave: tuple[str, str] | None = None,
    forget: Callable[[Sequence[RunKey], Sequence[RunKey]], None] = lambda runs, ended: None,
    empty: Callable[[Sequence[RunKey], Callable[[], object]], None] = lambda runs, sure: None,
) -> Ending:
    """Run a study from where its record stands to its end, or to the user's.

    Args:
        chooser: where given, nothing is searched: further runs of trials that are final are made, as it says, without
            the budget that the search has.
        forget: removes the checkpoints of these runs, which the record does not have any more; and what those others,
            which have ended, were to go on from.
        empty: removes what lies in the checkpoint folders of these runs, which nobody has begun; before it does, it
            makes sure that the study is still ours.
        leave: the state that the study is left in, and its reason; None: as it ends.

    Raises:
        StudyChangedError, StudyHeldError, StoreError: as ``Store.open`` and ``Store.write`` say.
    """
    curves = study.metric if study.pruner else None
    snapshot = store.open(record, holder, lease_s=lease_s, allow_changed=allow_changed, curves=curves)
    pruning = plan(study, show=0).pruning
    epochs = pruning.epochs if pruning and not chooser else None
    ledger, clock = Ledger(study, snapshot, epochs=epochs, chooser=chooser), _Clock()
    asked = _Asked(grace_s, lambda: store.renew(clock.unwritten()))
    while True:
        try:
            ledger.apply(executor.poll(POLL_S if ledger.running else 0.0))
        except ExecutorError as error:
            ledger.abandon(error)
        ledger.seconds = snapshot.seconds + clock.elapsed()
        over_budget = not chooser and study.budget_s is not None and ledger.seconds >= study.budget_s
        asked.look(2 if ledger.fatal else interrupt.level)
        if asked.level == 2 and ledger.running:
            executor.stop(ledger.running, now=True)
        assignments = []
        if not asked.level and not over_budget:
            ledger.ask()
            assignments = ledger.claim(executor.capacity(), executor.idle())
        turn = ledger.take()
        if not turn.empty:
            # Before the claims are durable: after a kill in between, nobody could tell whose the files are.
            empty([claim.run for claim in turn.claims if claim.first], asked.renew)
            store.write(replace(turn, seconds=clock.unwritten()))
            forget(turn.forgotten, [report.run for report in turn.finished])
        if assignments:
            executor.start(assignments, workload)
        if clock.due("renew", RENEW_S):
            asked.renew()
        if clock.due("observe", OBSERVE_S):
            observer(ledger.progress())
        if not ledger.running and (asked.level or over_budget or ledger.done):
            break
    ending = ledger.ending(stopped=asked.level > 0, interrupted=interrupt.level > 0)
    store.close(*(leave or (ending.state, ending.reason)))
    if isinstance(ledger.fatal, ObjectiveError) and ledger.spoiled:
        # Nothing has run, so nothing is worth keeping, and the name is free for the mended study.
        store.delete(study.name)
    observer(ending.progress)
    return ending


def _stop_level(commands: Sequence[Command]) -> int:
    """What ``hpsearch stop`` has asked for: 0 nothing, 1 in good order, 2 now."""
    return max((2 if c.payload.get("now") else 1 for c in commands if c.verb == "stop"), default=0)
