"""Trials: the table as rows, columns or a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from hpsearch import shapes
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, conditional, shaped, told
from hpsearch.dashboard.api.models import TrialColumns, TrialPage, WholeTrial
from hpsearch.dashboard.paging import page
from hpsearch.dashboard.query import ordered
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheNumber, TheRecord, TheSource, TheView
from hpsearch.errors import UsageError, shown
from hpsearch.export import encoded
from hpsearch.figures.subject import some
from hpsearch.results import column_of
from hpsearch.trial import State, Trial
from hpsearch.verdict import quantile

router = APIRouter(prefix="/api/v1/studies/{study}/trials", tags=["trials"], responses=UNCHANGED)
#: trials in one answer: rows, and columns before they are sampled
MOST_ROWS, MOST_COLUMNS = 1000, 5000
#: what ``fields`` may name beside hyperparameters, and what columns and files have without it
FIELDS: dict[str, Callable[[Trial], Any]] = {
    "number": lambda trial: trial.number,
    "state": lambda trial: str(trial.state),
    "value": lambda trial: trial.value,
    "sd": lambda trial: trial.sd,
    "n": lambda trial: _n(trial),
    "low": lambda trial: interval(trial)[0],
    "high": lambda trial: interval(trial)[1],
    "diverged": lambda trial: trial.state is State.DIVERGED,
    "baseline": lambda trial: trial.baseline,
    "batch": lambda trial: trial.batch,
    "seconds": lambda trial: sum(run.seconds for run in trial.runs),
}
USUAL = ("number", "state", "value", "sd", "n", "baseline", "batch")
SORT = "`rank` (the best first), a column or a hyperparameter; `-` before it for the other way"
FORMAT = "`rows` by pages; `columns` at once (of more than 5,000 trials a sample, and `note` says so); files"
ONLY = "of columns and files: only these columns and hyperparameters, as `a,b` or given again"
FILES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


@router.get(
    "",
    response_model=TrialPage | TrialColumns,
    responses={200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in FILES.values()}}},
)
@role(Role.READ)
def trials(
    request: Request,
    view: TheView,
    source: TheSource,
    sort: Annotated[str, Query(description=SORT, max_length=220)] = "number",
    format: Annotated[Literal["rows", "columns", "csv", "parquet"], Query(description=FORMAT)] = "rows",
    limit: Annotated[int | None, Query(description="rows in one answer; 100", ge=1, le=MOST_ROWS)] = None,
    cursor: Annotated[str, Query(description="of rows: `next` of the page before", max_length=1000)] = "",
    fields: Annotated[list[str] | None, Query(description=ONLY, max_length=200)] = None,
    digits: Annotated[int, Query(description="of columns: significant digits; 17 gives all", ge=1, le=17)] = 6,
) -> Response:
    """The trials that fit, one row each. In CSV, text that a spreadsheet would compute has a ' before it."""
    if format == "rows" and fields:
        raise UsageError("fields is for columns and files: rows are whole", hint="format=columns, csv or parquet")
    if format != "rows" and (cursor or limit):
        raise UsageError(f"limit and cursor are for rows: {format} has all trials", hint="format=rows")
    first = page(source.subject.trials, view.subject, sort, limit or 100, cursor)
    titles = _chosen(view, fields)

    def make() -> Response:
        if format == "rows":
            rows = [row(trial) for trial in first.trials]
            return told({"trials": rows, "total": first.total, "next": first.next or None})
        in_order = ordered(source.subject.trials, sort, view.subject.metric, view.direction)
        if format == "columns":
            return told(_columns(view, in_order, titles, digits))
        return _file(view, in_order, titles, format)

    return conditional(request, view, make)


@router.get("/{number}", response_model=WholeTrial)
@role(Role.READ)
def trial(request: Request, record: TheRecord, view: TheView, number: TheNumber) -> Response:
    """A trial with its runs, every metric with its interval, where it was trained and how to train it again.

    What `hpsearch show ADDRESS --json` prints; the curves that are in its runs there have a route of their own.
    """
    found = view.trial(number)

    def make() -> dict[str, Any]:
        curves = view.archive.curves(view.name, [number])
        return shapes.whole_trial(view.summary, found, curves, db=record.portable_url)

    return shaped(request, view, make)


def row(trial: Trial) -> dict[str, Any]:
    """A trial as a row."""
    return {name: of(trial) for name, of in FIELDS.items()} | {"params": dict(trial.params)}


def interval(trial: Trial) -> tuple[float | None, float | None]:
    """The 95 % interval for a complete trial's mean, by t (``verdict.spread``); Nones below two seeds."""
    n = _n(trial)
    if trial.state is not State.COMPLETE or trial.value is None or trial.sd is None or n < 2:
        return None, None
    half = _quantile(n - 1) * trial.sd / math.sqrt(n)
    return trial.value - half, trial.value + half


@cache
def _quantile(df: int) -> float:
    return quantile(0.05, df)


def _n(trial: Trial) -> int:
    return sum(run.value is not None for run in trial.search_runs)


def columns_of(view: View) -> dict[str, Callable[[Trial], Any]]:
    """Every column of the study's trials: its title, and what it says of a trial."""

    def of(name: str) -> Callable[[Trial], Any]:
        return lambda trial: trial.params.get(name)

    return FIELDS | {titled(name): of(name) for name in view.subject.space.parameters}


def titled(name: str) -> str:
    """A hyperparameter's title: one that is called like a column gets ``param_`` before it."""
    return f"param_{name}" if name in FIELDS else column_of(name)


def _chosen(view: View, asked: Sequence[str] | None) -> list[str]:
    """The titles of an answer's columns.

    Raises:
        UsageError: there is no such column.
    """
    known = columns_of(view)
    if not asked:
        return [*USUAL, *(title for title in known if title not in FIELDS)]
    titles = [title for text in asked for title in ([text] if text in known else text.split(",")) if title]
    if wrong := [title for title in titles if title not in known]:
        raise UsageError(f"fields: the trials have no {shown(wrong[0])}", hint=f"they have {', '.join(known)}")
    return list(dict.fromkeys(titles))


def _columns(view: View, trials: Sequence[Trial], titles: Sequence[str], digits: int) -> dict[str, Any]:
    kept, note = some(trials, MOST_COLUMNS, view.direction)
    known = columns_of(view)
    columns = {title: [_short(known[title](trial), digits) for trial in kept] for title in titles}
    return {"columns": columns, "total": len(trials), "shown": len(kept), "note": note, "digits": digits}


def _short(value: Any, digits: int) -> Any:
    return float(f"{value:.{digits}g}") if isinstance(value, float) and digits < 17 else value


def _file(view: View, trials: Sequence[Trial], titles: Sequence[str], format: Literal["csv", "parquet"]) -> Response:
    known = columns_of(view)
    content = encoded({title: [known[title](trial) for trial in trials] for title in titles}, format)
    headers = {"content-disposition": f'attachment; filename="{view.name}-trials.{format}"'}
    return Response(content, headers=headers, media_type=FILES[format])
