"""All trials of a study, by pages that keep their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import study_page
from hpsearch.dashboard.paging import page
from hpsearch.dashboard.query import COLUMNS, Filter, way_of
from hpsearch.dashboard.record import View
from hpsearch.dashboard.standing import estimate
from hpsearch.dashboard.wanted import TheFilter, TheSource, TheView
from hpsearch.trial import Trial
from hpsearch.verdict import Spread
from hpsearch.written import duration, number, setting_text

router = APIRouter(include_in_schema=False)
#: rows of a page
ROWS = 50
#: columns of a trial that can be shown, beside its hyperparameters
EXTRA = ("state", "value", "seeds", "sd", "batch", "seconds")
USUAL = ("state", "value", "seeds")
Pairs = list[tuple[str, str]]


@final
@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table, with the address that sorts by it."""

    name: str
    word: str
    #: which way it is sorted now; empty where it is not
    now: str
    #: empty where nothing can be sorted by it
    query: str
    text: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial: its number, and a cell for each column."""

    trial: Trial
    value: Spread | None
    cells: Sequence[str]


@router.get("/s/{study}/trials", response_class=HTMLResponse)
@role(Role.READ)
def trials(
    request: Request,
    view: TheView,
    source: TheSource,
    wanted: TheFilter,
    sort: Annotated[str, Query(max_length=220)] = "rank",
    col: Annotated[list[str] | None, Query(max_length=100)] = None,
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> HTMLResponse:
    """The trials that fit, 50 a page, the best first."""
    names = columns_of(view, col)
    found = page(source.subject.trials, view.subject, sort, ROWS, cursor)
    filters: Pairs = [*(("state", word) for word in wanted.state), *(("where", text) for text in wanted.where)]
    chosen: Pairs = [("col", name) for name in names] if col else []
    order: Pairs = [("sort", sort)] if sort != "rank" else []
    first = found.before + 1 if found.trials else 0
    return study_page(
        request,
        "trials.html",
        view,
        "trials",
        wanted,
        columns=[_head(view, name, sort, filters + chosen) for name in ("number", *names)],
        rows=[_row(view, trial, names) for trial in found.trials],
        first=first,
        last=found.before + len(found.trials),
        fitting=found.total,
        keep=order + chosen,
        picks=[(name, name in names) for name in dict.fromkeys([*EXTRA, *view.subject.space.parameters])],
        following=urlencode([*filters, *chosen, *order, ("cursor", found.next)]) if found.next else "",
        beginning=urlencode([*filters, *chosen, *order]) if cursor else None,
        csv=urlencode([*_sound(view, wanted), *order, *(("fields", name) for name in _fields(names) if col)]),
        hidden=filters + order,
    )


def columns_of(view: View, col: Sequence[str] | None) -> list[str]:
    """The columns that are shown: the chosen ones that there are, else the usual ones and all that is searched."""
    known = [*EXTRA, *view.subject.space.parameters]
    chosen = [name for name in dict.fromkeys(col or ()) if name in known]
    return chosen or list(dict.fromkeys([*USUAL, *view.subject.space.searched]))


def _sound(view: View, wanted: Filter) -> Pairs:
    kept = wanted.checked(view.subject).sound
    return [*(("state", word) for word in kept.state), *(("where", text) for text in kept.where)]


def _fields(names: Sequence[str]) -> list[str]:
    """Columns as the API calls them."""
    return list(dict.fromkeys(["number", *("n" if name == "seeds" else name for name in names)]))


def _head(view: View, name: str, sort: str, keep: Pairs) -> Column:
    """A column's head. A click sorts by it, the best, the first or the lowest first; another the other way round."""
    word = {"value": view.subject.metric, "number": "trial", "seconds": "time"}.get(name, name)
    if name not in COLUMNS and name not in view.subject.space.parameters:
        return Column(name=name, word=word, now="", query="")
    by, down = way_of(sort, view.subject.metric, view.direction)
    key = "rank" if name == "value" else name
    now = ("descending" if down else "ascending") if by == name else ""
    other = f"-{key}" if sort == key or (now == "ascending" and key != "rank") else key
    return Column(name=name, word=word, now=now, query=urlencode([*keep, ("sort", other)]), text=name == "state")


def _row(view: View, trial: Trial, names: Sequence[str]) -> Row:
    value = estimate(trial)
    return Row(trial=trial, value=value, cells=[_cell(trial, value, name) for name in names])


def _cell(trial: Trial, value: Spread | None, name: str) -> str:
    if name == "seeds":
        return str(value.n if value else sum(run.value is not None for run in trial.search_runs))
    if name == "seconds":
        return duration(sum(run.seconds for run in trial.runs))
    if name == "sd":
        return number(trial.sd, 2)
    if name == "batch":
        return str(trial.batch)
    return "" if name in EXTRA else setting_text(trial.params.get(name))
