"""What takes seconds and a heavy library is made in a process of its own, which ends when it has had nothing to do for
a while: the server stays small and quick. Who asks for what mattered too early is told to ask again; a report is waited
for.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar, cast, final

from hpsearch.errors import StoreError
from hpsearch.figures.subject import Subject
from hpsearch.importance import RESAMPLES, Importances, Method, importances, order, usable
from hpsearch.pictures import BeingMade
from hpsearch.space import SearchSpace
from hpsearch.trial import Direction, Trial

T = TypeVar("T")
#: results that are kept
KEPT = 64
#: seconds without work after which the process ends
IDLE_S = 30.0
#: fANOVA takes half a minute of that many trials, so beyond it there is PED-ANOVA alone, of a sample, drawn less often:
#: a second of work
BOTH, SAMPLE, FEWER_RESAMPLES = 300, 500, 20
#: while a study runs, what mattered is found out anew when it has so many times as many trials
GROWTH = 1.1


@final
@dataclass(frozen=True)
class Asked:
    """Trials of which it is asked what mattered; asked again and again, what it takes is found out once."""

    #: names the choice of trials
    key: Hashable
    subject: Subject
    #: more trials come: what was said of nine tenths of them will do
    running: bool = False

    @cached_property
    def used(self) -> list[Trial]:
        """The trials that say something."""
        return usable(self.subject.space, self.subject.trials)

    @cached_property
    def nothing(self) -> Importances:
        """No importances; its ``reason`` is empty where there can be some."""
        return importances(self.subject.space, self.subject.trials, self.subject.direction, methods=())

    @cached_property
    def names(self) -> list[str]:
        """The searched hyperparameters, as the space has them."""
        return list(self.subject.space.hard().searched)

    @cached_property
    def of(self) -> Hashable:
        """What says whether there are other trials now; while they come, only when there are a tenth more."""
        if self.running:
            return int(math.log(len(self.used) + 1, GROWTH))
        return hash(tuple((trial.number, trial.value) for trial in self.used))

    def given(self) -> tuple[Any, ...]:
        """What ``_importances`` and ``_order`` take: trials without their runs; of many a sample."""
        few = random.Random(0).sample(self.used, SAMPLE) if len(self.used) > SAMPLE else self.used
        trials = [replace(trial, runs=()) for trial in few]
        return self.subject.space, trials, self.subject.direction, len(self.used)


@final
class Workshop:
    """Makes one thing after the other. Any thread may ask."""

    def __init__(self) -> None:
        #: a job may end, and be taken, while it is begun
        self._lock = threading.RLock()
        #: key -> (what it was made of, what was made)
        self._made: OrderedDict[Hashable, tuple[Hashable, Any]] = OrderedDict()
        self._jobs: dict[Hashable, Future[Any]] = {}
        self._pool: ProcessPoolExecutor | None = None
        self._closing: threading.Timer | None = None

    def importances(self, asked: Asked) -> Importances:
        """What mattered; of many trials a sample, by PED-ANOVA alone.

        Raises:
            BeingMade: it is being found out.
        """
        if asked.nothing.reason:
            return asked.nothing
        try:
            return self.made(("importances", asked.key), asked.of, _importances, asked.given, old=asked.running)
        except BrokenProcessPool:
            return replace(asked.nothing, reason="the process that was finding it out was lost")

    def order(self, asked: Asked) -> list[str]:
        """The searched hyperparameters, those that mattered most first, else as in the space; as ``importances``."""
        if asked.nothing.reason:
            return asked.names
        try:
            return self.made(("order", asked.key), asked.of, _order, asked.given, old=asked.running)
        except BrokenProcessPool:
            return asked.names

    def report(self, url: str, study: str) -> bytes:
        """The page of ``hpsearch report``.

        Raises:
            StoreError: its process was lost. What ``report.page`` raises.
        """
        key = ("report", url, study)
        with self._lock:
            job = self._jobs.get(key) or self._begin(key, _report, (url, study), lambda job: None)
        try:
            return cast(bytes, job.result())
        except (BrokenProcessPool, CancelledError):
            said = "the report was not made: the process that was making it was lost"
            raise StoreError(said, hint=f"hpsearch report {study}") from None

    def made(
        self,
        key: Hashable,
        of: Hashable,
        make: Callable[..., T],
        given: Callable[[], tuple[Any, ...]],
        *,
        old: bool = True,
    ) -> T:
        """What ``make`` gives.

        Args:
            key: names the thing.
            of: the thing is made anew where this has changed.
            make: a function of a module; it goes to another process.
            given: what it is to be given; asked for only where it is made.
            old: while it is made anew, what it gave before will do.

        Raises:
            BeingMade: it is not there yet. BrokenProcessPool: its process was lost. What ``make`` raises.
        """
        with self._lock:
            known = self._made.get(key)
            if (known is None or known[0] != of) and key not in self._jobs:
                self._begin(key, make, given(), partial(self._keep, key, of))
            if known is None or (known[0] != of and not old):
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

    def _begin(
        self, key: Hashable, make: Callable[..., Any], given: tuple[Any, ...], then: Callable[[Future[Any]], None]
    ) -> Future[Any]:
        try:
            job = self._open().submit(make, *given)
        except BrokenProcessPool:  # its process was ended while it had nothing to do
            self._pool = None
            job = self._open().submit(make, *given)
        self._jobs[key] = job
        job.add_done_callback(partial(self._end, key, then))
        return job

    def _open(self) -> ProcessPoolExecutor:
        if self._closing is not None:
            self._closing.cancel()
        if self._pool is None:
            # Not forked: this process has threads.
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_end_with_the_server)
        return self._pool

    def _end(self, key: Hashable, then: Callable[[Future[Any]], None], job: Future[Any]) -> None:
        with self._lock:
            self._jobs.pop(key, None)
            if not job.cancelled():
                then(job)
                if isinstance(job.exception(), BrokenProcessPool):
                    self._pool = None
            if not self._jobs and self._pool is not None:
                self._closing = threading.Timer(IDLE_S, self._rest)
                self._closing.daemon = True
                self._closing.start()

    def _keep(self, key: Hashable, of: Hashable, job: Future[Any]) -> None:
        self._made[key] = (of, job.exception() or job.result())
        self._made.move_to_end(key)
        while len(self._made) > KEPT:
            self._made.popitem(last=False)

    def _rest(self) -> None:
        with self._lock:
            if not self._jobs:
                self.close()


def _end_with_the_server() -> None:
    """In the other process: outlive nobody, also a server that was killed; what trains goes first."""
    with contextlib.suppress(OSError):
        os.nice(5)
    server = multiprocessing.parent_process()

    def wait() -> None:
        if server is not None:
            server.join()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _importances(space: SearchSpace, trials: Sequence[Trial], direction: Direction, n_usable: int) -> Importances:
    """In the other process."""
    methods: list[Method] = ["ped_anova", "fanova"] if n_usable <= BOTH else ["ped_anova"]
    resamples = RESAMPLES if n_usable <= BOTH else FEWER_RESAMPLES
    found = importances(space, trials, direction, resamples=resamples, methods=methods)
    return replace(found, n_usable=n_usable)


def _order(space: SearchSpace, trials: Sequence[Trial], direction: Direction, n_usable: int) -> list[str]:
    """In the other process."""
    return order(space, trials, direction)


def _report(url: str, study: str) -> bytes:
    """In the other process."""
    from hpsearch.report import page
    from hpsearch.results import load

    return page(load(study, db=url)).encode("utf-8", "replace")
