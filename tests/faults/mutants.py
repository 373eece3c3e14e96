"""Bugs that were planted: the sweep must find each. A mutant changes the real code of the process that calls it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hpsearch.ledger import Ledger
from hpsearch.space import Params
from hpsearch.store import Command, Turn
from hpsearch.stores.sql import turn as turns
from hpsearch.stores.sql.write import SqlStore
from hpsearch.strategies.coarse_to_fine import CoarseToFine
from hpsearch.strategy import History
from hpsearch.trial import Grouped, Report


def no_fence() -> None:
    """A report counts for the run that it names, whichever attempt it is of."""
    apply = Ledger.apply

    def unfenced(self: Ledger, reports: Sequence[Report]) -> None:
        def believed(report: Any) -> Any:
            attempt = None if isinstance(report, Grouped) else self._running.get(report.run)
            return report if attempt is None else replace(report, attempt=attempt)

        for report in reports:
            apply(self, [believed(report)])

    Ledger.apply = unfenced  # type: ignore[method-assign]


def requeue_in_two_transactions() -> None:
    """A lost attempt is written first, and its run queued again in a transaction of its own."""
    write, writer = SqlStore.write, turns.TurnWriter

    def lose_only(self: Any, connection: Any, turn: Turn, at: float) -> None:
        rows = [
            self._run(lost.run, lost.attempt)
            | {"set_ended": at, "set_cause": lost.cause, "set_seconds": lost.seconds, "set_worker": lost.worker}
            for lost in turn.losses
        ]
        self._guarded(connection, turns._LOSE, rows, "a lost attempt")

    def in_two(self: SqlStore, turn: Turn) -> None:
        if not turn.losses:
            write(self, turn)
            return
        write(self, replace(turn, claims=()))
        done = {report.run for report in turn.finished}
        rows = [self._turns._run(lost.run, lost.attempt) for lost in turn.losses if lost.run not in done]
        self._transact(lambda connection: self._turns._guarded(connection, turns._REQUEUE, rows, "a lost run"))
        if turn.claims:
            write(self, Turn(claims=turn.claims))

    writer._lose = lose_only  # type: ignore[method-assign]
    SqlStore.write = in_two  # type: ignore[method-assign]


def acknowledge_before_commit() -> None:
    """A turn is acted upon at once, and written together with the next one."""
    write, renew, close = SqlStore.write, SqlStore.renew, SqlStore.close
    waiting: list[Turn] = []

    def flush(self: SqlStore) -> None:
        while waiting:
            write(self, waiting.pop())

    def later(self: SqlStore, turn: Turn) -> None:
        flush(self)
        waiting.append(turn)

    def renew_after(self: SqlStore, seconds: float) -> list[Command]:
        flush(self)
        return renew(self, seconds)

    def close_after(self: SqlStore, state: str, reason: str = "") -> None:
        flush(self)
        close(self, state, reason)

    SqlStore.write, SqlStore.renew = later, renew_after  # type: ignore[method-assign]
    SqlStore.close = close_after  # type: ignore[method-assign]


def rng_in_memory() -> None:
    """Suggestions come from a generator that lives as long as its process."""
    generator = random.Random(0)

    def ask(self: CoarseToFine, history: History, n: int) -> list[Params]:
        space, wanted = history.search_space, min(n, self.trials_per_round - history.index)
        return [space.from_unit([generator.random() for _ in range(space.dimensions)]) for _ in range(wanted)]

    CoarseToFine.ask = ask  # type: ignore[method-assign]


#: name -> what plants it
MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (no_fence, requeue_in_two_transactions, acknowledge_before_commit, rng_in_memory)
}
