"""What takes seconds and a heavy library is made in a process of its own, which ends when it has had nothing to do for
a while: the server stays small and quick, and whoever asks too early is told to ask again.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar, cast, final

from hpsearch.figures.subject import Subject
from hpsearch.importance import Importances, importances, order
from hpsearch.pictures import BeingMade
from hpsearch.trial import State, Trial

T = TypeVar("T")
#: results that are kept
KEPT = 64
#: seconds without work after which the process ends
IDLE_S = 30.0
#: of more trials, so many are looked at: a minute of work at 20 hyperparameters
MOST_TRIALS = 1000


@final
class Workshop:
    """Makes one thing after the other. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: key -> (what it was made of, what was made)
        self._made: OrderedDict[Hashable, tuple[Hashable, Any]] = OrderedDict()
        self._jobs: dict[Hashable, Future[Any]] = {}
        self._pool: ProcessPoolExecutor | None = None
        self._closing: threading.Timer | None = None

    def importances(self, key: Hashable, subject: Subject) -> Importances:
        """What mattered, of at most 1,000 trials. Raises what ``made`` does."""
        return self.made(("importances", key), len(subject.ended), importances, lambda: _given(subject))

    def order(self, key: Hashable, subject: Subject) -> list[str]:
        """The searched hyperparameters, those that mattered most first. Raises what ``made`` does."""
        return self.made(("order", key), len(subject.ended), order, lambda: _given(subject))

    def made(self, key: Hashable, of: Hashable, make: Callable[..., T], given: Callable[[], tuple[Any, ...]]) -> T:
        """What ``make`` gives; while it is made anew, what it gave before.

        Args:
            key: names the thing.
            of: the thing is made anew where this has changed.
            make: a function of a module; it goes to another process.
            given: what it is to be given; asked for only where it is made.

        Raises:
            BeingMade: there is nothing yet. What ``make`` raises.
        """
        with self._lock:
            known = self._made.get(key)
            if (known is None or known[0] != of) and key not in self._jobs:
                job = self._jobs[key] = self._open().submit(make, *given())
                job.add_done_callback(lambda job: self._take(key, of, job))
            if known is None:
                raise BeingMade
            self._made.move_to_end(key)
        if isinstance(known[1], BaseException):
            raise known[1]
        return cast(T, known[1])

    def close(self) -> None:
        """End the process."""
        with self._lock:
            pool, self._pool = self._pool, None
            if self._closing is not None:
                self._closing.cancel()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> ProcessPoolExecutor:
        if self._closing is not None:
            self._closing.cancel()
        if self._pool is None:
            # Not forked: this process has threads.
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_end_with_the_server)
        return self._pool

    def _take(self, key: Hashable, of: Hashable, job: Future[Any]) -> None:
        with self._lock:
            self._jobs.pop(key, None)
            if not job.cancelled():
                self._made[key] = (of, job.exception() or job.result())
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
            if not self._jobs and self._pool is not None:
                self._closing = threading.Timer(IDLE_S, self.close)
                self._closing.daemon = True
                self._closing.start()


def _end_with_the_server() -> None:
    """In the other process: outlive nobody, also one that was killed."""
    server = multiprocessing.parent_process()

    def wait() -> None:
        if server is not None:
            server.join()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _given(subject: Subject) -> tuple[Any, ...]:
    """What ``importances`` and ``order`` take."""
    return subject.space, _few(subject), subject.direction


def _few(subject: Subject) -> list[Trial]:
    """The trials that say something, without their runs; of many a fixed sample."""
    used = [t for t in subject.trials if t.state in (State.COMPLETE, State.DIVERGED)]
    if len(used) > MOST_TRIALS:
        used = random.Random(0).sample(used, MOST_TRIALS)
    return [replace(trial, runs=()) for trial in used]
