"""The REST API, described: every route with its parameters and a command that asks it, from the schema itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.schema import TAGS
from hpsearch.dashboard.pages.frame import render
from hpsearch.dashboard.wanted import TheRecord

router = APIRouter(include_in_schema=False)


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """A parameter of a route."""

    name: str
    #: ``path``, ``query`` or ``header``
    where: str
    required: bool
    #: its type and its bounds, in words
    kind: str
    text: str


@final
@dataclass(frozen=True, kw_only=True)
class Route:
    """A route of the API."""

    method: str
    path: str
    text: str
    parameters: Sequence[Asked]
    example: str


@router.get("/docs", response_class=HTMLResponse)
@role(Role.READ)
def docs(request: Request, record: TheRecord) -> HTMLResponse:
    """All routes, by what they are about."""
    study = next((summary.name for summary in record.studies()), "digits")
    root = str(request.base_url).rstrip("/")
    described = groups(request.app.openapi(), root, study)
    return render(request, "docs.html", groups=described, schema=request.app.openapi_url)


def groups(schema: Mapping[str, Any], root: str, study: str) -> list[tuple[str, str, list[Route]]]:
    """(tag, what it is about, its routes) for each tag that has some.

    Args:
        schema: OpenAPI's.
        root: the server's address, for the examples.
        study: a study's name, for the examples.
    """
    routes = [
        (operation.get("tags", [""])[0], route_of(method, path, operation, root, study))
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    found = [(t["name"], t["description"], [route for tag, route in routes if tag == t["name"]]) for t in TAGS]
    return [group for group in found if group[2]]


def route_of(method: str, path: str, operation: Mapping[str, Any], root: str, study: str) -> Route:
    """One route, with a command that gives what it cannot go without."""
    parameters = operation.get("parameters", [])
    samples = {"study": [study], "number": ["0"], "name": ["history"], "a": ["0"], "b": ["1"], "s": [study, "ANOTHER"]}
    url = root + path
    for one in parameters:
        url = url.replace(f"{{{one['name']}}}", samples.get(one["name"], ["0"])[0])
    needed = [one["name"] for one in parameters if one["in"] == "query" and one.get("required")]
    query = urlencode([(name, sample) for name in needed for sample in samples.get(name, ["0"])])
    command = ["curl", *([] if method == "get" else ["-X", method.upper()]), f"{url}?{query}" if query else url]
    return Route(
        method=method.upper(),
        path=path,
        text=operation.get("description", ""),
        parameters=[
            Asked(
                name=one["name"],
                where=one["in"],
                required=one.get("required", False),
                kind=kind_of(one.get("schema", {})),
                text=one.get("description", ""),
            )
            for one in parameters
        ],
        example=shlex.join(command),
    )


def kind_of(schema: Mapping[str, Any]) -> str:
    """A parameter's type in words: ``integer, 1 to 1000``; ``rows, columns, csv or parquet``."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    one = options[0] if options else {}
    if one.get("type") == "array":
        return f"{kind_of(one.get('items', {}))}; may be given again"
    words = [str(word) for word in one.get("enum", ())]
    kind = str(one.get("format", one.get("type", one.get("$ref", "text").rpartition("/")[2])))
    kind = {"string": "text", "date-time": "time"}.get(kind, kind)
    if len(words) > 1:
        kind = f"{', '.join(words[:-1])} or {words[-1]}"
    low, high = (one.get(end, one.get(f"exclusive{end.capitalize()}")) for end in ("minimum", "maximum"))
    bounds = "" if low is None else f", from {low}" if high is None else f", {low} to {high}"
    default = schema.get("default")
    return kind + bounds + ("" if default in (None, "") else f"; {default} if not given")
