"""Pictures: the one that the report and notebooks draw, as plotly's JSON or as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.drawing import drawn, said, table
from hpsearch.dashboard.record import revision_of
from hpsearch.dashboard.wanted import TheFilter, TheOthers, TheSource, TheView
from hpsearch.pictures import Options, picture
from hpsearch.trial import LARGEST, RunKey

router = APIRouter(prefix="/api/v1/studies/{study}/figures", tags=["figures"])
RUN = r"^\d{1,9}/\d{1,9}(\.\d{1,9})?$"


@router.get("/{name}")
@role(Role.READ)
def figure(
    name: str,
    view: TheView,
    source: TheSource,
    wanted: TheFilter,
    others: TheOthers,
    theme: Annotated[Literal["light", "dark"], Query(description="the page's colours")] = "light",
    format: Annotated[Literal["plotly", "table"], Query(description="a picture, or its numbers")] = "plotly",
    x: Annotated[str | None, Query(description="a hyperparameter", max_length=100)] = None,
    y: Annotated[str | None, Query(description="another one", max_length=100)] = None,
    trial: Annotated[list[int] | None, Query(description="numbers of trials", max_length=20)] = None,
    run: Annotated[
        str | None, Query(description="`trial/seed`, of `layers`", pattern=r"^\d{1,9}/\d{1,9}(\.\d{1,9})?$")
    ] = None,
    round: Annotated[int | None, Query(description="up to this round, from 1; of `rounds`", ge=1, le=LARGEST)] = None,
    played: Annotated[bool, Query(description="with a button that plays it; of `rounds`")] = False,
    narrow: Annotated[bool, Query(description="for a phone: panels one below the other")] = False,
) -> dict[str, Any]:
    """A picture with its title, its sentence and what must be said about it."""
    if others:
        source = replace(source, others=[other.source for other in others])
    beside = tuple((other.name, revision_of(other.summary)) for other in others)
    options = Options(
        x=x or None, y=y or None, trials=tuple(trial or ()), run=RunKey.of(run) if run else None, round=round,
        played=played, narrow=narrow,
    )  # fmt: skip

    def make() -> dict[str, Any]:
        found = picture(name, source, options)
        answer: dict[str, Any] = {"name": name, "sentence": found.sentence, "title": "", "note": "", "shown": False}
        if found.figure is None:
            return answer
        title, note = said(found.figure)
        answer |= {"title": title, "note": note, "shown": True}
        if format == "table":
            heads, rows = table(found.figure)
            return answer | {"heads": heads, "rows": rows}
        return answer | drawn(found.figure, theme)

    return view.once(("figure", name, wanted, theme, format, options, beside), make)
