"""The record as the dashboard holds it: read once a revision, however many ask."""

from __future__ import annotations

import shlex
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar, cast, final

from hpsearch import mirror
from hpsearch.archive import Archive, StudySummary
from hpsearch.dashboard.workshop import Workshop
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
#: studies whose trials are kept in memory
KEPT = 4


@final
@dataclass(frozen=True)
class View:
    """One study at one revision, with what was computed of it."""

    results: Results
    #: as the mirror had it
    read: mirror.View
    workshop: Workshop
    _made: dict[Hashable, Future[Any]] = field(default_factory=dict, repr=False)
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
        name = (self.name, self.summary.created, key)
        return Source(
            subject,
            self.decisions,
            self.archive,
            mattered=partial(self.workshop.importances, name, subject),
            ranked=partial(self.workshop.order, name, subject),
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for this revision: who asks meanwhile waits for it, and for nothing else."""
        with self._lock:
            found = self._made.get(key)
            mine = found is None
            if found is None:
                found = self._made[key] = Future()
        if mine:
            try:
                found.set_result(make())
            except BaseException as error:
                with self._lock:
                    del self._made[key]
                found.set_exception(error)
                raise
        return cast(T, found.result())

    def trial(self, number: int) -> Trial:
        """One trial.

        Raises:
            NotFoundError: there is no such trial.
        """
        return self.results.trial(number).trial


@final
class Record:
    """All studies of a database, for readers; nothing is ever written or created through it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._archive: Archive | None = None
        self._views: OrderedDict[str, View] = OrderedDict()
        self._mirrors: dict[str, Mirror] = {}
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
        """Study -> what changes with anything that a reader sees of it; one small query."""
        try:
            return {name: str(revision) for name, revision in self.archive.revisions().items()}
        except NotFoundError:
            return {}

    def view(self, study: str) -> View:
        """One study as it is now: of what was read before, only what has changed is read again.

        Raises:
            NotFoundError: there is no such study.
        """
        with self._lock:
            held = self._mirrors.get(study) or Mirror(self.archive, study)
        now = held.refresh()  # whoever comes meanwhile waits for the same reading
        with self._lock:
            kept = self._views.get(study)
            if kept is None or kept.read is not now:
                files = files_folder(self.url, study)
                kept = View(Results(now.summary, now.trials, self.archive, files), now, self.workshop)
            self._views[study], self._mirrors[study] = kept, held
            self._views.move_to_end(study)
            while len(self._views) > KEPT:
                name, _ = self._views.popitem(last=False)
                del self._mirrors[name]
        return kept
