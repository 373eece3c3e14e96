"""A study's trials in memory, kept up with the record: for a reader that looks again and again, as a dashboard does.

A look at a study in which nothing has changed is one small query. Otherwise only the trials that have changed are read,
at most ``MOST`` in one transaction, so that a writer never waits long for a reader. Measured on SQLite with 10,000
trials of 3 seeds and 20 epochs: 0.6 ms of CPU where nothing has changed, 49 ms where ten trials have, 0.9 s the first
time; 30 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import final

from hpsearch.archive import Archive, Outline, Revision, StudySummary
from hpsearch.strategy import Decision
from hpsearch.trial import Trial

#: changed trials in one transaction
MOST = 1000


@final
@dataclass(frozen=True, kw_only=True)
class View:
    """A study at one moment."""

    revision: Revision
    summary: StudySummary
    #: all, in number order, with all their runs
    trials: Sequence[Trial]
    #: all, oldest first
    decisions: Sequence[Decision]


@final
class Mirror:
    """One study, as the record had it at the last ``refresh``. Any thread may use it.

    Args:
        archive: the record; used by one thread at a time.
        study: its name.
    """

    def __init__(self, archive: Archive, study: str) -> None:
        self._archive, self._study = archive, study
        self._lock = Lock()
        self._view: View | None = None
        self._outlines: dict[int, Outline] = {}
        self._trials: dict[int, Trial] = {}
        self._decisions: list[Decision] = []

    def refresh(self) -> View:
        """The study as it is now. The same object while nothing has changed.

        Raises:
            NotFoundError: there is no such study (any more). StoreError: the record cannot be read.
        """
        with self._lock:
            revision = self._archive.revisions().get(self._study)
            if self._view is None or revision != self._view.revision:
                self._view = self._read()
            return self._view

    def _read(self) -> View:
        created = self._view.revision.created if self._view is not None else None
        while True:
            had = len(self._decisions)
            found = self._archive.changes(self._study, self._outlines, decisions=had, most=MOST)
            if created is not None and found.revision.created != created:
                # The study was deleted, and another has its name: what is known is of no use.
                self._outlines, self._trials, self._decisions, created = {}, {}, [], None
                continue
            created = found.revision.created
            self._outlines.update(found.outlines)
            self._trials.update((trial.number, trial) for trial in found.trials)
            self._decisions += found.decisions
            if not found.left:
                return View(
                    revision=found.revision,
                    summary=found.summary,
                    trials=tuple(self._trials[number] for number in sorted(self._trials)),
                    decisions=tuple(self._decisions),
                )
