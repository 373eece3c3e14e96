"""Pictures: the one that the report and notebooks draw, as plotly's JSON or as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import AGAIN_S, UNCHANGED, conditional, told, unfinished
from hpsearch.dashboard.drawing import Theme, drawn, said, table
from hpsearch.dashboard.wanted import TheFilter, TheOthers, TheSource, TheView
from hpsearch.pictures import BeingMade, Options, Picture, picture
from hpsearch.trial import LARGEST, LONGEST_NAME, RunKey

router = APIRouter(prefix="/api/v1/studies/{study}/figures", tags=["figures"], responses=UNCHANGED)
RUN = r"^\d{1,9}/\d{1,9}(\.\d{1,9})?$"


@router.get("/{name}")
@role(Role.READ)
def figure(
    request: Request,
    name: str,
    view: TheView,
    source: TheSource,
    wanted: TheFilter,
    others: TheOthers,
    theme: Annotated[Literal["light", "dark"], Query(description="the page's colours")] = "light",
    format: Annotated[Literal["plotly", "table"], Query(description="a picture, or its numbers")] = "plotly",
    x: Annotated[str | None, Query(description="a hyperparameter", max_length=LONGEST_NAME)] = None,
    y: Annotated[str | None, Query(description="another one", max_length=LONGEST_NAME)] = None,
    trial: Annotated[list[int] | None, Query(description="numbers of trials", max_length=20)] = None,
    run: Annotated[str | None, Query(description="`trial/seed`, of pictures of one run", pattern=RUN)] = None,
    round: Annotated[int | None, Query(description="up to this round, from 1; of `rounds`", ge=1, le=LARGEST)] = None,
    played: Annotated[bool, Query(description="with a button that plays it; of `rounds`")] = False,
    narrow: Annotated[bool, Query(description="for a phone: panels one below the other")] = False,
) -> Response:
    """A picture with its title, its sentence and what must be said about it.

    What takes long says `"again": 1`, the seconds after which to ask again, and shows nothing yet.
    """
    if others:
        source = replace(source, others=[other.source for other in others])
    beside = tuple((other.name, other.revision) for other in others)
    options = Options(
        x=x or None, y=y or None, trials=tuple(trial or ()), run=RunKey.of(run) if run else None, round=round,
        played=played, narrow=narrow,
    )  # fmt: skip

    def make() -> bytes:
        found = picture(name, source, options)
        return bytes(told(_shown(found, theme if format == "plotly" else None)).body)

    def whole() -> Response:
        content = view.once(("figure", name, wanted, theme, format, options, beside), make)
        return Response(content, media_type="application/json")

    try:
        return conditional(request, view, whole, *beside)
    except BeingMade:
        early = Picture(name=name, sentence="What mattered is being found out; this takes some seconds.", figure=None)
        return unfinished(_shown(early, None) | {"again": AGAIN_S})


def _shown(found: Picture, theme: Theme | None) -> dict[str, Any]:
    """A picture in a theme's colours; no theme: as a table."""
    answer: dict[str, Any] = {"name": found.name, "sentence": found.sentence, "title": "", "note": "", "shown": False}
    if found.figure is None:
        return answer
    title, note = said(found.figure)
    answer |= {"title": title, "note": note, "shown": True}
    if theme is None:
        heads, rows = table(found.figure)
        return answer | {"heads": heads, "rows": rows}
    return answer | drawn(found.figure, theme)
