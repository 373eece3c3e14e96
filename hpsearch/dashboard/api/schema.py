"""The OpenAPI schema: what FastAPI makes of the routes, problems by their media type, and how to log in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hpsearch.dashboard.problem import MEDIA_TYPE

ABOUT = """
Everything that the pages show. Reading is free on a loopback address without a token; elsewhere send
`Authorization: Bearer TOKEN`.

- Times are UTC, ISO 8601. A number that is not finite is `null`; what diverged says `"diverged": true`.
- A value over several seeds comes with its standard deviation, the number of seeds and a 95 % interval of its mean.
- Answers about a study have its revision as `ETag`; sent back as `If-None-Match`, it gives 304 until something changes.
- An answer with a `schema` is an object that `hpsearch ... --json` prints too; it may say more here.
- Errors are problem details (RFC 9457) with a `hint`: the way out.
"""
TAGS = [
    {"name": "studies", "description": "What was searched, and what came of it."},
    {"name": "trials", "description": "Settings of the hyperparameters, and their runs with one seed each."},
    {"name": "comparison", "description": "Whether one beats another, and how sure that is."},
    {"name": "figures", "description": "The pictures of the pages, as plotly's JSON or as tables."},
    {"name": "actions", "description": "What may be changed, where the server was started with `--allow-actions`."},
    {"name": "live", "description": "What has changed."},
]


def describe(app: FastAPI) -> None:
    """Give an application its schema, made when it is first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=ABOUT.strip(), routes=app.routes, tags=TAGS
            )
            _problems(made)
            schemes = made.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["token"] = {"type": "http", "scheme": "bearer", "description": "The server's token."}
            made["security"] = [{}, {"token": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _problems(made: dict[str, Any]) -> None:
    """Problems are no plain JSON; FastAPI files every model under that."""
    for path in made["paths"].values():
        for operation in path.values():
            for status, response in operation.get("responses", {}).items():
                content = response.get("content", {})
                if status.startswith(("4", "5")) and "application/json" in content:
                    response["content"] = {MEDIA_TYPE: content["application/json"]}
