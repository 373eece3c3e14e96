"""What may be changed: notes, tags, a study's end, a look at the test set. Each goes through the record's commands.

A program is answered with JSON; the form of a page, which works without a script, with the page that it was on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import RedirectResponse

from hpsearch import actions, shapes
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import ProblemDetails, told
from hpsearch.dashboard.api.asked import NoteAsked, RevealAsked, StopAsked, TagAsked, body_of, from_page, schema_of
from hpsearch.dashboard.api.looking import look
from hpsearch.dashboard.wanted import TheNumber, TheRecord, TheView
from hpsearch.errors import UsageError
from hpsearch.verdict import Spread

router = APIRouter(
    prefix="/api/v1/studies/{study}",
    tags=["actions"],
    responses={
        303: {"description": "Done, for a page's form: the page that it was on."},
        **{
            status: {"model": ProblemDetails, "description": words}
            for status, words in {
                408: "The body came too slowly.",
                409: "It cannot be done now.",
                413: "The body is too large.",
                415: "The body is neither JSON nor a form.",
            }.items()
        },
    },
)
FAILED: dict[int | str, dict[str, Any]] = {
    500: {"model": ProblemDetails, "description": "The training code failed."},
    504: {"model": ProblemDetails, "description": "The training code took too long."},
}


@final
@dataclass(frozen=True, kw_only=True)
class Written:
    """A note or a tag, as it is kept."""

    schema: int
    #: what it is about
    address: str
    text: str


@final
@dataclass(frozen=True, kw_only=True)
class StopTold:
    """What came of asking a study to stop."""

    schema: int
    study: str
    #: false: it is not running
    asked: bool
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class LookTold:
    """What was seen of the test set, beside the validation part, and how this look is recorded."""

    schema: int
    study: str
    trial: int
    #: of the study's looks, counted from 1: a value chosen among several is optimistic
    number: int
    who: str
    when: datetime
    reason: str
    #: test metrics, each over the race's runs
    metrics: Mapping[str, Spread]
    #: the study's metric over the same runs
    metric: str
    validation: Spread


@router.post("/notes", status_code=201, response_model=Written, openapi_extra=schema_of(NoteAsked))
@role(Role.ACT, command="hpsearch note {study} TEXT")
def note_study(
    request: Request, record: TheRecord, view: TheView, asked: Annotated[NoteAsked, Depends(body_of(NoteAsked))]
) -> Response:
    """Write a note about a study. It stays."""
    return _written(request, actions.note(record.url, view.name, asked.text), asked.text, "note")


@router.post("/trials/{number}/notes", status_code=201, response_model=Written, openapi_extra=schema_of(NoteAsked))
@role(Role.ACT, command="hpsearch note {study}/{number} TEXT")
def note_trial(
    request: Request,
    record: TheRecord,
    view: TheView,
    number: TheNumber,
    asked: Annotated[NoteAsked, Depends(body_of(NoteAsked))],
) -> Response:
    """Write a note about a trial. It stays."""
    address = f"{view.name}/{view.trial(number).number}"
    return _written(request, actions.note(record.url, address, asked.text), asked.text, "note")


@router.post("/tags", status_code=201, response_model=Written, openapi_extra=schema_of(TagAsked))
@role(Role.ACT, command="hpsearch tag {study} WORD")
def tag_study(
    request: Request, record: TheRecord, view: TheView, asked: Annotated[TagAsked, Depends(body_of(TagAsked))]
) -> Response:
    """Tag a study."""
    return _written(request, actions.tag(record.url, view.name, asked.text), asked.text, "tag")


@router.post("/trials/{number}/tags", status_code=201, response_model=Written, openapi_extra=schema_of(TagAsked))
@role(Role.ACT, command="hpsearch tag {study}/{number} WORD")
def tag_trial(
    request: Request,
    record: TheRecord,
    view: TheView,
    number: TheNumber,
    asked: Annotated[TagAsked, Depends(body_of(TagAsked))],
) -> Response:
    """Tag a trial."""
    address = f"{view.name}/{view.trial(number).number}"
    return _written(request, actions.tag(record.url, address, asked.text), asked.text, "tag")


@router.post("/stop", response_model=StopTold, openapi_extra=schema_of(StopAsked))
@role(Role.ACT, command="hpsearch stop {study}")
def stop(
    request: Request, record: TheRecord, view: TheView, asked: Annotated[StopAsked, Depends(body_of(StopAsked))]
) -> Response:
    """Ask the coordinator of a study to stop: it finishes the runs in flight first, and can be resumed."""
    found = actions.stop(record.url, view.name, now=asked.now)
    return _answer(request, _page(view.name), "stop" if found.asked else "idle", lambda: shapes.stopping(found))


@router.post("/reveal-test", response_model=LookTold, responses=FAILED, openapi_extra=schema_of(RevealAsked))
@role(Role.ACT, command="hpsearch ship {study} --reveal-test --reason TEXT")
def reveal_test(
    request: Request, record: TheRecord, view: TheView, asked: Annotated[RevealAsked, Depends(body_of(RevealAsked))]
) -> Response:
    """Look at the sealed test set through the trial that the race has chosen; who, when and why is recorded for good.

    It runs the study's training code, as the server's user, in a process of its own. After the first look it is refused
    unless `again` is true.
    """
    reason = actions.kept("reason", asked.reason, actions.LONGEST_TEXT)
    number = actions.chosen(view.archive, view.name, str(view.direction))
    if asked.trial not in (None, number):
        words = f"trial: the test set is for #{number}, which the last race has chosen, not for #{asked.trial}"
        raise UsageError(words, hint=f"trial={number}")
    seen = look(record, view.name, number, reason=reason, again=asked.again)
    to = f"{_page(view.name)}/ship?t={number}"
    return _answer(request, to, "look", lambda: shapes.look(view.name, view.subject.metric, seen))


def _page(study: str) -> str:
    return f"/s/{quote(study, safe='')}"


def _written(request: Request, address: str, text: str, done: str) -> Response:
    study, _, trial = address.partition("/")
    to = f"{_page(study)}/t/{trial}" if trial else _page(study)
    return _answer(request, to, done, lambda: shapes.said(address, text.strip()), 201)


def _answer(request: Request, to: str, done: str, make: Callable[[], shapes.Shape], status: int = 200) -> Response:
    """JSON; for a page's form the page to go to (``to``), which says what was ``done`` (``frame.DONE``)."""
    if from_page(request):
        return RedirectResponse(f"{to}{'&' if '?' in to else '?'}done={done}", 303)
    response = told(shapes.numbered(make()))
    response.status_code = status
    return response
