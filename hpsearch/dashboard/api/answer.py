"""What every answer of the API has in common: JSON without NaN, a study's revision as ETag, problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import quote

from fastapi import Request, Response
from pydantic_core import from_json, to_json

from hpsearch.dashboard.record import View
from hpsearch.shapes import numbered
from hpsearch.written import without_secrets


@final
@dataclass(frozen=True, kw_only=True)
class ProblemDetails:
    """What went wrong (RFC 9457), as `application/problem+json`."""

    type: str
    #: the status in words
    title: str
    status: int
    #: what went wrong with this request
    detail: str
    #: the way out
    hint: str = ""


#: seconds after which to ask again for what is being made
AGAIN_S = 1
#: what ``If-None-Match`` lists: tags may hold commas
_TAGS = re.compile(r'(?:W/)?"[^"]*"|\*')
#: answers without any of these have no secret, and need no second look
_SUSPICIOUS = re.compile(rb"(?i)://|pass|secret|token|key")
#: of every route: FastAPI takes statuses as keys
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": ProblemDetails, "description": "A token is needed: `Authorization: Bearer TOKEN`."},
    403: {"model": ProblemDetails, "description": "Not allowed."},
    404: {"model": ProblemDetails, "description": "There is no such study, trial, run or picture."},
    422: {"model": ProblemDetails, "description": "The request asks for what cannot be."},
    503: {"model": ProblemDetails, "description": "The database cannot be read now."},
}
#: of routes about a study
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Nothing has changed since the answer whose `ETag` was sent as `If-None-Match`."},
}


def told(content: Any, headers: dict[str, str] | None = None) -> Response:
    """An answer as JSON; what is not finite is null, times are UTC, what runs have told is without secrets."""
    body = to_json(content, inf_nan_mode="null")
    if _SUSPICIOUS.search(body):
        body = to_json(without_secrets(from_json(body)))
    return Response(body, headers=headers, media_type="application/json")


def shaped(request: Request, view: View, make: Callable[[], Mapping[str, Any]]) -> Response:
    """As ``answer``, of a shape that ``--json`` prints too."""
    return answer(request, view, lambda: numbered(make()))


def answer(request: Request, view: View, make: Callable[[], Any]) -> Response:
    """An answer about a study: 304 without a body where the caller has it at this revision."""
    return conditional(request, view, lambda: told(make()))


def conditional(request: Request, view: View, make: Callable[[], Response], *beside: tuple[str, str]) -> Response:
    """As ``answer``, of a whole response; ``beside``: further studies that it is about, each with its revision."""
    tag = f'W/"{",".join([view.revision, *(f"{quote(name)}:{revision}" for name, revision in beside)])}"'
    wanted = [text.strip().removeprefix("W/") for text in _TAGS.findall(request.headers.get("if-none-match", ""))]
    if tag.removeprefix("W/") in wanted or wanted == ["*"]:
        return Response(status_code=304, headers={"etag": tag})
    response = make()
    response.headers["etag"] = tag
    return response


def unfinished(content: Any) -> Response:
    """An answer that will be another one in ``AGAIN_S``, whatever the revision."""
    return told(content, {"Retry-After": str(AGAIN_S), "Cache-Control": "no-store"})
