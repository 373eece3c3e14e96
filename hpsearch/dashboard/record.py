"""The record as the dashboard holds it: read once a revision, however many ask."""

from __future__ import annotations

import shlex
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar, cast, final

from hpsearch import mirror
from hpsearch.archive import Archive, StudySummary
from hpsearch.dashboard.workshop import Asked, Workshop
from hpsearch.errors import NotFoundError
from hpsearch.figures import subject
from hpsearch.figures.subject import Subject
from hpsearch.mirror import Mirror
from hpsearch.pictures import Source
from hpsearch.results import Results
from hpsearch.settings import DEFAULT_DB, files_folder
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Trial

T = TypeVar("T")
#: studies whose trials are kept in memory, and trials of all of them; the latest one is kept whatever its size
KEPT, KEPT_TRIALS = 4, 25_000
#: what is kept of a study at one revision: so many things, and bytes where they are answers
THINGS, BYTES = 256, 16_000_000
#: after a look that took ``s`` seconds, the next one that finds a change waits until ``PAUSE * s`` have passed, at most
#: ``LONGEST_PAUSE_S``: a study that changes with every look does not keep a core busy
PAUSE, LONGEST_PAUSE_S = 3.0, 0.3


@final
@dataclass(frozen=True)
class View:
    """One study at one revision, with what was computed of it."""

    results: Results
    #: as the mirror had it
    read: mirror.View
    workshop: Workshop
    _made: OrderedDict[Hashable, Future[Any]] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def summary(self) -> StudySummary:
        return self.results.study

    @property
    def revision(self) -> str:
        """What changes with anything that a reader sees of the study; also its ETag."""
        return str(self.read.revision)

    @property
    def decisions(self) -> Sequence[Decision]:
        """All, oldest first."""
        return self.read.decisions

    @property
    def name(self) -> str:
        return self.summary.name

    @property
    def trials(self) -> Sequence[Trial]:
        return self.results.trials

    @property
    def direction(self) -> Direction:
        return self.results.direction

    @property
    def archive(self) -> Archive:
        return self.results.archive

    @property
    def subject(self) -> Subject:
        """All trials, as pictures see them."""
        return self.once("subject", lambda: subject.of(self.results))

    @property
    def source(self) -> Source:
        """What pictures of all trials are made of."""
        return self.once("source", lambda: self._source(None, self.subject))

    def source_of(self, key: Hashable, trials: Callable[[], Sequence[Trial]]) -> Source:
        """What pictures of some trials are made of; ``key`` names the choice."""
        return self.once(("source", key), lambda: self._source(key, replace(self.subject, trials=trials())))

    def _source(self, key: Hashable, subject: Subject) -> Source:
        asked = Asked((self.name, self.summary.created, key), subject, running=self.summary.state == "running")
        return Source(
            subject,
            self.decisions,
            self.archive,
            mattered=partial(self.workshop.importances, asked),
            ranked=partial(self.workshop.order, asked),
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for this revision: who asks meanwhile waits for it, and for nothing else.

        Of many things the ones that were not asked for longest are forgotten, and made again when they are.
        """
        with self._lock:
            found = self._made.get(key)
            mine = found is None
            if found is None:
                found = self._made[key] = Future()
            self._made.move_to_end(key)
        if mine:
            try:
                found.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._made.get(key) is found:
                        del self._made[key]
                found.set_exception(error)
                raise
            self._forget()
        return cast(T, found.result())

    def _forget(self) -> None:
        with self._lock:
            sizes = {key: _size(made) for key, made in self._made.items()}
            total = sum(sizes.values())
            for key, size in sizes.items():
                if len(self._made) <= THINGS and total <= BYTES:
                    return
                if (len(self._made) > THINGS or size) and self._made[key].done():
                    del self._made[key]
                    total -= size

    def trial(self, number: int) -> Trial:
        """One trial.

        Raises:
            NotFoundError: there is no such trial.
        """
        return self.results.trial(number).trial


def _size(made: Future[Any]) -> int:
    """The bytes of an answer that is kept; 0 for anything else."""
    found = made.result() if made.done() and made.exception() is None else None
    return len(found) if isinstance(found, bytes) else 0


@final
class Kept:
    """A study that is kept in memory."""

    def __init__(self, archive: Archive, study: str) -> None:
        self.mirror = Mirror(archive, study)
        #: held while it is read: who asks meanwhile waits, and reads nothing
        self.lock = threading.Lock()
        self.view: View | None = None
        #: on the monotonic clock: not to be read again before
        self.rests_until = 0.0


@final
class Record:
    """All studies of a database, for readers; nothing is ever written or created through it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._archive: Archive | None = None
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._values: dict[str, tuple[str, list[tuple[int, float]]]] = {}
        self._lock = threading.Lock()
        self.workshop = Workshop()

    @property
    def shown_url(self) -> str:
        """The database's address without its password."""
        from hpsearch.stores.sql.engine import parse, redacted

        return redacted(parse(self.url))

    @property
    def portable_url(self) -> str:
        """The database's address without its password, as a command can be typed with it from any folder."""
        from hpsearch.stores.sql.engine import parse, portable

        return portable(parse(self.url))

    @property
    def db_option(self) -> str:
        """What a copied command needs to find the record; empty where it would anyway.

        An address with a password is not for a page: then the shell's ``HPSEARCH_DB`` must name it.
        """
        return f" --db {shlex.quote(self.url)}" if self.shown_url == self.url != DEFAULT_DB else ""

    @property
    def archive(self) -> Archive:
        """The database's door.

        Raises:
            NotFoundError: it is not there (yet).
        """
        from hpsearch.stores.sql import open_archive

        if self._archive is None:
            self._archive = open_archive(self.url)
        return self._archive

    def studies(self) -> list[StudySummary]:
        """All studies, the latest changed first; [] where there is no database yet."""
        try:
            return self.archive.studies()
        except NotFoundError:
            return []

    def values(self, study: str, revision: str) -> list[tuple[int, float]]:
        """(number, value) of a study's complete trials, read once a revision."""
        with self._lock:
            kept = self._values.get(study)
        if kept is None or kept[0] != revision:
            kept = (revision, self.archive.values(study))
            with self._lock:
                self._values[study] = kept
        return kept[1]

    def revisions(self) -> dict[str, str]:
        """Study -> what changes with anything that a reader sees of it; empty where there is no database yet."""
        try:
            return {name: str(revision) for name, revision in self.archive.revisions().items()}
        except NotFoundError:
            return {}

    def view(self, study: str) -> View:
        """One study as it is now.

        Raises:
            NotFoundError: there is no such study.
        """
        revision = self.archive.revisions().get(study)
        with self._lock:
            if revision is None:
                self._kept.pop(study, None)
            else:
                kept = self._kept.setdefault(study, Kept(self.archive, study))
                self._kept.move_to_end(study)
        if revision is None:
            self.archive.study(study)  # says which names are near
            raise NotFoundError(f"there is no study {study!r}", hint="hpsearch list names all studies")
        view = kept.view
        if view is not None and view.revision == str(revision):
            return view
        with kept.lock:
            view = kept.view = self._read(kept)
        self._drop()
        return view

    def _read(self, kept: Kept) -> View:
        time.sleep(max(kept.rests_until - time.monotonic(), 0.0))
        begun = time.monotonic()
        found = kept.mirror.refresh()
        ended = time.monotonic()
        kept.rests_until = ended + min(PAUSE * (ended - begun), LONGEST_PAUSE_S)
        if kept.view is not None and kept.view.revision == str(found.revision):
            return kept.view
        files = files_folder(self.url, found.summary.name)
        results = Results(found.summary, found.trials, self.archive, files)
        return View(results, found, self.workshop)

    def _drop(self) -> None:
        with self._lock:
            sizes = {name: len(kept.view.trials) if kept.view else 0 for name, kept in self._kept.items()}
            for name in list(sizes)[:-1]:
                if len(self._kept) <= KEPT and sum(sizes.values()) <= KEPT_TRIALS:
                    return
                del self._kept[name], sizes[name]
