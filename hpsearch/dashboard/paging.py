"""A page of trials in an order, and where the next one begins: by the last trial's place, not by a count of rows, so
that trials which come in meanwhile shift nothing.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from hpsearch.dashboard.query import COLUMNS, ordered, place, way_of
from hpsearch.errors import UsageError, shown
from hpsearch.figures.subject import Subject
from hpsearch.trial import Trial


@final
@dataclass(frozen=True, kw_only=True)
class Page:
    """Some trials that follow each other in an order."""

    trials: Sequence[Trial]
    #: trials that the filter leaves, on all pages
    total: int
    #: how many of them come before this page
    before: int
    #: where the next page begins; empty on the last one
    next: str


def page(trials: Sequence[Trial], subject: Subject, sort: str, limit: int, cursor: str = "") -> Page:
    """The trials after ``cursor``, at most ``limit``.

    Args:
        trials: those that the filter leaves.
        subject: the study.
        sort: as ``query.ordered`` takes it: a column or a hyperparameter, ``-`` before it for the other way round.
        cursor: ``Page.next`` of the page before, asked for in the same order; empty: from the beginning.

    Raises:
        UsageError: there is no such column, or the cursor is none of ours.
    """
    name, down = way_of(sort, subject.metric, subject.direction)
    known = [*COLUMNS, *subject.space.parameters]
    if name not in known:
        raise UsageError(
            f"sort: the trials have no {shown(name)}", hint=f"rank, {', '.join(known)}; -NAME the other way"
        )
    rows = ordered(trials, sort, subject.metric, subject.direction)
    start = 0
    if cursor:
        last = _read(cursor, sort)
        start = next((k for k, trial in enumerate(rows) if _comes_after(trial, name, down, last)), len(rows))
    chosen = rows[start : start + limit]
    more = start + limit < len(rows)
    return Page(
        trials=chosen,
        total=len(rows),
        before=start,
        next=_written(sort, (*place(chosen[-1], name), chosen[-1].number)) if more and chosen else "",
    )


Last = tuple[int, Any, int]


def _comes_after(trial: Trial, name: str, down: bool, last: Last) -> bool:
    kind, value = place(trial, name)
    if kind != last[0]:
        return kind > last[0]
    if value == last[1]:
        return trial.number > last[2]
    return bool(value < last[1]) if down else bool(value > last[1])


def encoded(content: object) -> str:
    """A cursor: opaque text that fits into an address."""
    return base64.urlsafe_b64encode(json.dumps(content, allow_nan=False).encode()).decode().rstrip("=")


def decoded(cursor: str) -> Any:
    """The inverse of ``encoded``.

    Raises:
        UsageError: it is none of ours.
    """
    try:
        return json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, RecursionError):
        raise foreign(cursor) from None


def foreign(cursor: str) -> UsageError:
    """The error of a cursor that no answer has given."""
    return UsageError(f"cursor: {shown(cursor)} is none", hint="take `next` of the page before, with the same sort")


def _written(sort: str, last: Last) -> str:
    return encoded([sort, *last])


def _read(cursor: str, sort: str) -> Last:
    match decoded(cursor):
        case [str(order), int(kind), value, int(number)] if order == sort:
            numeric = isinstance(value, int | float) and abs(value) <= sys.float_info.max
            if kind in (0, 1, 2) and (numeric if kind == 0 else isinstance(value, str)):
                return kind, value, number
    raise foreign(cursor)
