"""All studies of the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.archive import StudySummary
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.live import digest
from hpsearch.dashboard.pages.frame import render
from hpsearch.dashboard.record import Record
from hpsearch.dashboard.standing import Standing, best_of, standing
from hpsearch.dashboard.wanted import TheRecord
from hpsearch.errors import StoreError
from hpsearch.trial import LONGEST_NAME, Direction
from hpsearch.verdict import Spread
from hpsearch.written import number

router = APIRouter(include_in_schema=False)
#: studies on the page
MOST = 200
STATES = ("running", "complete", "stopped", "interrupted", "failed")
#: the box of a sparkline, and how many points it has at most
WIDTH, HEIGHT, MARGIN, POINTS = 120, 28, 3, 60
_KEYS: Mapping[str, Callable[[StudySummary], Any]] = {
    "name": lambda study: study.name.lower(),
    "state": lambda study: STATES.index(study.state) if study.state in STATES else len(STATES),
    "done": lambda study: sum(n for state, n in study.counts.items() if state.final),
    "failed": lambda study: sum(n for state, n in study.counts.items() if state == "failed"),
    "updated": lambda study: study.updated,
}


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """The best so far as a line of SVG, best at the bottom or at the top as the metric has it."""

    points: str
    end: tuple[float, float]
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One study."""

    study: StudySummary
    strategy: str
    best: Spread | None
    line: Line | None
    standing: Standing


@router.get("/", response_class=HTMLResponse)
@role(Role.READ)
def studies(
    request: Request,
    record: TheRecord,
    q: Annotated[str, Query(max_length=LONGEST_NAME)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    tag: Annotated[str, Query(max_length=100)] = "",
    sort: Annotated[str, Query(max_length=20)] = "-updated",
) -> HTMLResponse:
    """The studies, the latest changed first; what to do where there is none, or the record cannot be read."""
    sort = sort if sort.removeprefix("-") in _KEYS else "-updated"
    shown: dict[str, Any] = {"q": q, "wanted_state": state, "tag": tag, "sort": sort, "states": STATES}
    shown |= {"error": "", "hint": "", "revision": ""}
    try:
        revisions = record.revisions()  # before the studies: what changes between is shown twice rather than never
        found = record.studies()
        fitting = chosen(found, q=q, state=state, tag=tag, sort=sort)
        rows = [row_of(record, study, revisions.get(study.name, "")) for study in fitting[:MOST]]
    except StoreError as error:
        shown |= {"error": str(error), "hint": error.hint}
        return render(request, "studies.html", status=503, total=0, **shown)
    shown["revision"] = digest(revisions)
    given = {"q": q, "state": state, "tag": tag}
    return render(
        request,
        "studies.html",
        rows=rows,
        fitting=len(fitting),
        total=len(found),
        tags=sorted({word for study in found for word in study.tags}),
        sorts={name: _sort(name, sort, given) for name in _KEYS},
        database=record.shown_url,
        **shown,
    )


def chosen(studies: Sequence[StudySummary], *, q: str, state: str, tag: str, sort: str) -> list[StudySummary]:
    """The studies that fit, in order; ``q`` is a part of the name."""
    found = [
        study
        for study in studies
        if q.lower() in study.name.lower() and state in ("", study.state) and (not tag or tag in study.tags)
    ]
    return sorted(found, key=_KEYS[sort.removeprefix("-")], reverse=sort.startswith("-"))


def row_of(record: Record, study: StudySummary, revision: str) -> Row:
    """One study as the page shows it."""
    pruner = (study.spec.get("pruner") or {}).get("name", "")
    words = [str(study.spec["strategy"]["name"]), str(pruner)]
    values = record.values(study.name, revision) if study.best else []
    return Row(
        study=study,
        strategy=" + ".join(word.replace("_", " ") for word in words if word),
        best=best_of(study),
        line=line_of(values, Direction(study.spec["direction"])),
        standing=standing(study),
    )


def line_of(values: Sequence[tuple[int, float]], direction: Direction) -> Line | None:
    """The best so far over the complete trials; None below two.

    Args:
        values: (number, value) in number order.
    """
    if len(values) < 2:
        return None
    best: list[float] = []
    for _, value in values:
        best.append(value if not best or direction.better(value, best[-1]) else best[-1])
    n = min(len(best), POINTS)
    picked = [k * (len(best) - 1) // (n - 1) for k in range(n)]
    low, high = min(best), max(best)
    # halves, so that the difference of two large numbers stays finite
    span = high / 2 - low / 2 or 1.0
    xs = [MARGIN + (WIDTH - 2 * MARGIN) * k / (n - 1) for k in range(n)]
    ys = [HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((best[k] / 2 - low / 2) / span) for k in picked]
    return Line(
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)),
        end=(round(xs[-1], 1), round(ys[-1], 1)),
        words=f"from {number(best[0])} to {number(best[-1])} over {len(values)} complete trials",
    )


def _sort(name: str, sort: str, given: Mapping[str, str]) -> dict[str, str]:
    """A column's head: which way it is sorted now, and the address that sorts by it."""
    now = {name: "ascending", f"-{name}": "descending"}.get(sort, "")
    first = name if name in ("name", "state") else f"-{name}"
    other = name if first.startswith("-") else f"-{name}"
    chosen = {key: text for key, text in given.items() if text}
    return {"now": now, "query": urlencode({**chosen, "sort": other if sort == first else first})}
