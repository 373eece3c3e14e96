"""What went wrong, for whoever asked: problem details (RFC 9457) for programs, a page for people.

No traceback leaves the server, and no password of a database: what is unexpected has a number, which the log explains.
"""

from __future__ import annotations

import json
import logging
import secrets
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from hpsearch.dashboard.rendering import rendered
from hpsearch.errors import (
    ExecutorError,
    HpsearchError,
    NotFoundError,
    ObjectiveError,
    StoreError,
    StudyChangedError,
    StudyError,
    StudyHeldError,
    UsageError,
    shown,
)
from hpsearch.written import redacted

LOG = logging.getLogger("hpsearch.dashboard")
MEDIA_TYPE = "application/problem+json"
#: of a subclass before its base; what is not here is 500
STATUSES: Mapping[type[HpsearchError], int] = {
    NotFoundError: 404,
    UsageError: 422,
    StudyError: 422,
    ObjectiveError: 422,
    StudyChangedError: 409,
    StudyHeldError: 409,
    StoreError: 503,
    ExecutorError: 503,
}
#: a page's heading where the status' own phrase says little
WORDS = {
    404: "Not found",
    409: "Not now",
    422: "This cannot be shown",
    500: "Something went wrong",
    503: "Not at the moment",
}


@final
@dataclass(frozen=True, kw_only=True)
class Details:
    """A problem, in words."""

    status: int
    #: what went wrong with this request
    detail: str
    #: the way out; empty where the detail says it
    hint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def json(self) -> dict[str, Any]:
        """As RFC 9457 has it, with a ``hint`` beside."""
        said = {"type": "about:blank", "title": self.title, "status": self.status, "detail": redacted(self.detail)}
        return said | {"hint": redacted(self.hint)}


@final
class Problem(Exception):
    """A problem that an endpoint answers with."""

    def __init__(self, details: Details) -> None:
        super().__init__(details.detail)
        self.details = details


def sentence(text: str) -> str:
    """A message with a full stop. Its first word may be a study's name, which stays as it is; so does a command."""
    return text if not text or text.startswith("hpsearch ") or text.endswith((".", "?", "!")) else f"{text}."


def of_error(error: HpsearchError) -> Details:
    """One of our errors, as a status and its own words."""
    status = next((found for kind, found in STATUSES.items() if isinstance(error, kind)), 500)
    headers = {"retry-after": "3"} if status == 503 else {}
    return Details(status=status, detail=str(error), hint=error.hint, headers=headers)


def of_unexpected(error: BaseException) -> Details:
    """Our own mistake: written to the log under a number, and told by that number alone."""
    number = secrets.token_hex(4)
    LOG.error("error %s\n%s", number, redacted("".join(traceback.format_exception(error))))
    hint = f"please report it with what the server has printed beside {number}"
    return Details(status=500, detail=f"something unexpected went wrong (error {number})", hint=hint)


def of_invalid(errors: Sequence[Mapping[str, Any]]) -> Details:
    """Fields that cannot be so: each by name, with its value; the way out of the first.

    Args:
        errors: as pydantic tells of them: ``loc``, ``msg``, ``type``, ``input``, ``ctx``.
    """
    told = [f"{_named(found)}: {_wrong(found)}" for found in errors]
    hint = _way_out(errors[0]) if errors else ""
    return Details(status=422, detail="; ".join(told)[:2000], hint=hint)


def _named(found: Mapping[str, Any]) -> str:
    """``limit``: the place among query, path and body is said only where there is no name."""
    return ".".join(map(str, found["loc"][1:] or found["loc"]))


def _wrong(found: Mapping[str, Any]) -> str:
    if found["type"] == "missing":
        return "it is missing"
    if found["type"] == "extra_forbidden":
        return "there is no such field"
    words = str(found["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    return f"it {words}, and is {shown(found['input'])}"


def _way_out(found: Mapping[str, Any]) -> str:
    name, said = _named(found), found.get("ctx") or {}
    most = said.get("le", said.get("max_length"))
    least = said.get("ge", said.get("min_length"))
    ways = {
        "missing": f"{name}=...",
        "literal_error": f"one of {said.get('expected', '')}",
        "less_than_equal": f"{name}={most} is the most",
        "greater_than_equal": f"{name}={least} is the least",
        "string_too_long": f"up to {most} characters",
        "too_long": f"give it up to {most} times",
        "int_parsing": f"a whole number: {name}=10",
        "float_parsing": f"a number: {name}=0.1",
        "bool_parsing": f"{name}=true or {name}=false",
        "datetime_from_date_parsing": f"{name}=2026-01-31T12:00:00Z",
        "datetime_parsing": f"{name}=2026-01-31T12:00:00Z",
    }
    return ways.get(found["type"], "/api/v1/openapi.json says what may be asked")


def wants_page(path: str, accept: str, method: str = "GET") -> bool:
    """Whether the answer is for a person: pages are, programs ask below ``/api/``, where our pages' forms post to."""
    return "text/html" in accept and (method == "POST" or not path.startswith("/api/"))


def answer(details: Details, *, page: bool, theme: str = "") -> Response:
    """The response: a page, or problem details as JSON."""
    if page:
        said = details.json() | {"title": WORDS.get(details.status, details.title)}
        said |= {what: sentence(said[what]) for what in ("detail", "hint")}
        return HTMLResponse(rendered("error.html", theme=theme, **said), details.status, dict(details.headers))
    text = json.dumps(details.json(), ensure_ascii=False)
    body = text.encode("utf-8", "backslashreplace")
    return Response(body, details.status, dict(details.headers), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Errors of endpoints become problems. What is unexpected, the guard handles (``of_unexpected``)."""

    def told(request: Request, details: Details) -> Response:
        page = wants_page(request.url.path, request.headers.get("accept", ""), request.method)
        return answer(details, page=page, theme=request.cookies.get("theme", ""))

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, HpsearchError)
        details = of_error(error)
        if details.status >= 500:
            LOG.warning("%s: %s", type(error).__name__, redacted(str(error)))
        return told(request, details)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return told(request, of_invalid(error.errors()))

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return told(request, error.details)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {404: "there is nothing at this address", 405: f"{request.method} is not possible here"}
        phrase = HTTPStatus(error.status_code).phrase
        detail = str(error.detail) if error.detail and error.detail != phrase else words.get(error.status_code, phrase)
        headers = dict(error.headers or {})
        return told(request, Details(status=error.status_code, detail=detail, headers=headers))

    app.add_exception_handler(HpsearchError, ours)
    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
