"""What a request is about: the study and the trials that its path and its query name."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from hpsearch.dashboard.query import Filter, filter_of
from hpsearch.dashboard.record import Record, View
from hpsearch.pictures import Source
from hpsearch.trial import LARGEST


def record_of(request: Request) -> Record:
    """The record that the application serves."""
    return cast(Record, request.app.state.record)


def view_of(request: Request, study: Annotated[str, Path(description="the study's name", max_length=100)]) -> View:
    """The study that the path names."""
    return record_of(request).view(study)


def source_of(
    request: Request, view: Annotated[View, Depends(view_of)], wanted: Annotated[Filter, Depends(filter_of)]
) -> Source:
    """The study's record, of the trials that the query chooses.

    A condition that is none is an error to a program; a page leaves it out, and says so beside its field (``frame``).
    """
    if not request.url.path.startswith("/api/"):
        wanted = wanted.checked(view.subject).sound
    return view.source_of(wanted, lambda: wanted.choose(view.subject)) if wanted else view.source


def others_of(
    request: Request,
    names: Annotated[list[str] | None, Query(alias="with", description="further studies", max_length=5)] = None,
) -> tuple[View, ...]:
    """The studies beside the path's, for pictures of several."""
    return tuple(record_of(request).view(name) for name in dict.fromkeys(names or ()) if name)


#: parameters of endpoints
TheRecord = Annotated[Record, Depends(record_of)]
TheView = Annotated[View, Depends(view_of)]
TheFilter = Annotated[Filter, Depends(filter_of)]
TheSource = Annotated[Source, Depends(source_of)]
TheOthers = Annotated[tuple[View, ...], Depends(others_of)]
TheNumber = Annotated[int, Path(description="the trial's number", ge=0, le=LARGEST)]
TheSeed = Annotated[int, Path(description="the run's seed", ge=0, le=LARGEST)]
