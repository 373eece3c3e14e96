"""Studies: the list, one of them, one as a report."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from hpsearch import shapes
from hpsearch.archive import StudySummary
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, conditional, shaped, told
from hpsearch.dashboard.api.models import StudyPage, WholeStudy
from hpsearch.dashboard.paging import decoded, encoded, foreign
from hpsearch.dashboard.wanted import TheRecord, TheView
from hpsearch.trial import LONGEST_NAME

router = APIRouter(prefix="/api/v1/studies", tags=["studies"])
StudyState = Literal["running", "complete", "stopped", "interrupted", "failed"]
Q = "only studies with this in their name, tags, strategy or metric"
HTML = {"text/html": {"schema": {"type": "string"}}}


@router.get("", response_model=StudyPage)
@role(Role.READ)
def studies(
    record: TheRecord,
    q: Annotated[str, Query(description=Q, max_length=LONGEST_NAME)] = "",
    state: Annotated[list[StudyState] | None, Query(description="only studies in these states", max_length=5)] = None,
    tag: Annotated[list[str] | None, Query(description="only studies with one of these tags", max_length=20)] = None,
    limit: Annotated[int, Query(description="studies in one answer", ge=1, le=500)] = 100,
    cursor: Annotated[str, Query(description="`next` of the page before", max_length=500)] = "",
) -> Response:
    """The studies of the record, the latest changed first."""
    found = [
        summary
        for summary in record.studies()
        if (not state or summary.state in state) and (not tag or set(tag) & set(summary.tags)) and _says(summary, q)
    ]
    found.sort(key=_place)
    rest = found
    if cursor:
        last = _read(cursor)
        rest = [summary for summary in found if _place(summary) > last]
    shown = rest[:limit]
    following = encoded(_place(shown[-1])) if len(rest) > limit else None
    listed = [shapes.study(summary) for summary in shown]
    return told(shapes.numbered({"studies": listed, "total": len(found), "next": following}))


def _says(summary: StudySummary, q: str) -> bool:
    words = [summary.name, *summary.tags, summary.spec["strategy"]["name"], summary.spec["metric"]]
    return any(q.strip().lower() in word.lower() for word in words)


def _place(summary: StudySummary) -> tuple[float, str]:
    return -summary.updated, summary.name


def _read(cursor: str) -> tuple[float, str]:
    match decoded(cursor):
        case [float(updated), str(name)]:
            return updated, name
    raise foreign(cursor)


@router.get("/{study}", response_model=WholeStudy, responses=UNCHANGED)
@role(Role.READ)
def study(request: Request, view: TheView) -> Response:
    """A study: its state, its best trial with the interval, its notes, what it searches."""
    best = next(iter(view.results.top(1)), None)
    return shaped(request, view, lambda: shapes.whole_study(view.summary, best) | {"revision": view.revision})


@router.get("/{study}/report", response_class=Response, responses=UNCHANGED | {200: {"content": HTML}})
@role(Role.READ)
def report(request: Request, record: TheRecord, view: TheView) -> Response:
    """The study as one HTML page that opens without a network: what `hpsearch report` writes."""

    def make() -> Response:
        content = view.once("report", lambda: view.workshop.report(record.url, view.name))
        headers = {"content-disposition": f'attachment; filename="{view.name}.html"'}
        return Response(content, headers=headers, media_type="text/html; charset=utf-8")

    return conditional(request, view, make)
