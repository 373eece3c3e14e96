"""What is asked of an action: a JSON object, or the form of a page. Unknown fields are refused: no code, no path."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar, final
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from hpsearch.actions import LONGEST_TAG, LONGEST_TEXT
from hpsearch.trial import LARGEST

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
M = TypeVar("M", bound=BaseModel)
CLOSED = ConfigDict(extra="forbid")


@final
class NoteAsked(BaseModel):
    """A note."""

    model_config = CLOSED

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT, description="of one line or more")]


@final
class TagAsked(BaseModel):
    """A tag."""

    model_config = CLOSED

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TAG, description="one word")]


@final
class StopAsked(BaseModel):
    """How a study is to stop."""

    model_config = CLOSED

    now: Annotated[bool, Field(description="do not wait for the runs in flight; a resume runs them again")] = False


@final
class RevealAsked(BaseModel):
    """A look at the test set."""

    model_config = CLOSED

    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT, description="why; it is recorded")]
    trial: Annotated[
        int | None, Field(ge=0, le=LARGEST, description="its number; without one, that which the race has chosen")
    ] = None
    again: Annotated[bool, Field(description="look, though somebody has looked before")] = False


def body_of(model: type[M]) -> Callable[[Request], Coroutine[Any, Any, M]]:
    """A dependency that reads a body as this model."""

    async def read(request: Request) -> M:
        body = await request.body()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            return model.model_validate(_fields(kind, body))
        except ValidationError as error:
            raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None

    return read


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """How OpenAPI tells of such a body."""
    found = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {kind: {"schema": found} for kind in (JSON, FORM)}}}


def from_page(request: Request) -> bool:
    """Whether a page's form asks: it is answered with a page."""
    return "text/html" in request.headers.get("accept", "")


def _fields(kind: str, body: bytes) -> Any:
    """Raises RequestValidationError where the body is not of its kind; HTTPException where it is of neither."""
    try:
        if kind == FORM:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=8, errors="strict")
            # A browser sends lines of a text area as CR LF.
            return {name: text.replace("\r\n", "\n") for name, text in pairs}
        if kind == JSON:
            return json.loads(body)
    except (ValueError, RecursionError):
        wrong = {"type": "unreadable", "loc": ("body",), "msg": f"Input should be {kind}", "input": body[:60]}
        raise RequestValidationError([wrong]) from None
    raise HTTPException(415, f"the body should be {JSON} or {FORM}")
