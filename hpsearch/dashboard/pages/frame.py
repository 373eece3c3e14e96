"""What every page has: the tabs, the filter and the links that keep it, the live revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role
from hpsearch.dashboard.query import STATES, Filter, filter_of
from hpsearch.dashboard.record import View
from hpsearch.dashboard.rendering import rendered
from hpsearch.dashboard.standing import round_of
from hpsearch.dashboard.wanted import record_of
from hpsearch.pictures import BeingMade, Source

#: the tabs of a study: (path below it, word)
TABS = (
    ("", "Overview"),
    ("trials", "Trials"),
    ("params", "Params"),
    ("rounds", "Rounds"),
    ("grid-vs-random", "Grid or random"),
    ("compare", "Compare"),
    ("diagnostics", "Diagnostics"),
    ("workers", "Workers"),
    ("ship", "Ship"),
)


#: what a page says after one of its forms was sent, by the word in its address
DONE = {
    "note": "The note is written.",
    "tag": "The tag is written.",
    "stop": "It was asked to stop, and ends the runs in flight first.",
    "idle": "It was not running, so there was nothing to stop.",
    "look": "The test set was looked at; the look is on record.",
}


def render(request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page."""
    text = rendered(
        template,
        theme=request.cookies.get("theme", ""),
        db_option=record_of(request).db_option,
        **values,
    )
    return HTMLResponse(text, status_code=status)


def study_page(
    request: Request, template: str, view: View, tab: str, wanted: Filter | None = None, **values: Any
) -> HTMLResponse:
    """A page of a study. Its links keep the filter, also where the page shows all trials and says so.

    Args:
        request: what was asked for.
        template: the page's file.
        view: the study.
        tab: of ``TABS``, by its path.
        wanted: the filter of a page that it applies to.
        **values: what the page shows.
    """
    given = request.query_params
    kept = filter_of(given.getlist("state"), given.getlist("where")) if wanted is None else wanted
    kept = kept.checked(view.subject)
    filters = _filters(kept.sound)
    return render(
        request,
        template,
        view=view,
        study=view.summary,
        spec=view.summary.spec,
        round=round_of(view.summary),
        tabs=TABS,
        tab=tab,
        states=STATES,
        wanted=None if wanted is None else kept,
        filters="" if wanted is None else filters,
        kept=kept.sound,
        asked=f"?{filters}" if filters else "",
        also=f"&{filters}" if filters else "",
        cleared=urlencode([(name, text) for name, text in given.multi_items() if name not in ("state", "where")]),
        revision=view.revision,
        may_act=Role.ACT in request.state.granted,
        done=DONE.get(given.get("done", ""), ""),
        api=f"/api/v1/studies/{quote(view.name, safe='')}",
        root=f"/s/{quote(view.name, safe='')}",
        **values,
    )


def ranked(source: Source) -> Source:
    """A source that knows an order of the hyperparameters: the space's, until it is known what mattered."""
    try:
        _ = source.order
    except BeingMade:
        return replace(source, ranked=partial(list, source.subject.space.searched))
    return source


def card(name: str, title: str, wide: bool = False, **options: Any) -> Mapping[str, Any]:
    """A picture's card: its name of ``pictures.PICTURES``, and the choices of its address, which are its id's too."""
    chosen = {key: value for key, value in options.items() if value not in (None, "", ())}
    query = urlencode(chosen, doseq=True)
    return {"name": name, "title": title, "wide": wide, "query": query, "id": f"card-{name}-{query}"}


def _filters(wanted: Filter) -> str:
    return urlencode([*(("state", s) for s in wanted.state), *(("where", w) for w in wanted.where)])
