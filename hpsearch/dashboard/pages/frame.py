"""What every page has: the templates, the words in them, the tabs, the filter bar, the live revision."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from hpsearch.dashboard.access import Role
from hpsearch.dashboard.query import Filter
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import record_of
from hpsearch.pictures import BeingMade, Source
from hpsearch.written import ago, duration, number, redacted, setting_text, shown_on_page

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


def coded(text: str) -> Markup:
    """A text whose parts in backticks are code."""
    parts = re.split(r"`+([^`]+)`+", redacted(text))
    return Markup("").join(Markup("<code>{}</code>").format(p) if k % 2 else p for k, p in enumerate(parts))


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown_on_page,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "setting": setting_text,
        "duration": duration,
        "took": lambda seconds: duration(seconds) if seconds >= 10 else f"{seconds:.2g} s" if seconds else "–",
        "since": lambda when: ago(time.time() - when),
        "clock": lambda when: datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "segment": lambda text: quote(str(text), safe=""),
        "coded": coded,
    }
    made.globals["tabs"] = TABS
    return made


_TEMPLATES = _environment()


def render(request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page."""
    theme = request.cookies.get("theme", "")
    text = _TEMPLATES.get_template(template).render(
        theme=theme if theme in ("light", "dark") else "",
        db_option=record_of(request).db_option,
        **values,
    )
    return HTMLResponse(text, status_code=status)


def study_page(
    request: Request, template: str, view: View, tab: str, wanted: Filter | None = None, **values: Any
) -> HTMLResponse:
    """A page of a study.

    Args:
        tab: of ``TABS``, by its path.
        wanted: the filter of a page that has one.
    """
    wanted = None if wanted is None else wanted.checked(view.subject)
    return render(
        request,
        template,
        view=view,
        study=view.summary,
        spec=view.summary.spec,
        tab=tab,
        wanted=wanted,
        filters=_filters(wanted.sound) if wanted else "",
        revision=view.revision,
        may_act=Role.ACT in request.state.granted,
        done=DONE.get(request.query_params.get("done", ""), ""),
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
    """A picture's card: its name of ``pictures.PICTURES``, and the choices of its address."""
    chosen = {key: value for key, value in options.items() if value not in (None, "", ())}
    return {"name": name, "title": title, "wide": wide, "query": urlencode(chosen, doseq=True)}


def _filters(wanted: Filter) -> str:
    return urlencode([*(("state", s) for s in wanted.state), *(("where", w) for w in wanted.where)])
