"""The way in: a session's cookie, for the token or for the one-time code of the printed address. Without JavaScript."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

from hpsearch.dashboard.access import SESSION_S, Access, Role, cookie_of, role
from hpsearch.dashboard.problem import Details
from hpsearch.dashboard.rendering import rendered

router = APIRouter(include_in_schema=False)


def page(scope: Scope, access: Access, details: Details | None = None, *, after: str = "") -> HTMLResponse:
    """The form, with what went wrong.

    Args:
        after: the page that was wanted; empty: the one that is asked for.
    """
    headers = Headers(scope=scope)
    query = scope["query_string"].decode("latin-1")
    theme = cookie_parser(headers.get("cookie", "")).get("theme", "")
    text = rendered(
        "login.html",
        theme=theme,
        after=after or scope["path"] + (f"?{query}" if query else ""),
        details=details,
        by_token=not access.free_reading,
        # A link on another site: the browser holds the cookie back until our own page asks.
        again=details is not None and details.status == 401 and headers.get("sec-fetch-site") == "cross-site",
    )
    return HTMLResponse(text, details.status if details else 200, dict(details.headers) if details else None)


@router.get("/login")
@role(Role.OPEN)
async def enter(
    request: Request,
    code: Annotated[str | None, Query(max_length=100)] = None,
    after: Annotated[str, Query(max_length=2000)] = "/",
) -> Response:
    """The form; with a good code, a session."""
    access: Access = request.app.state.access
    if code is None:
        return page(request.scope, access, after=after)
    details = hasty(request.scope, access)
    if details is None:
        if access.redeem(code):
            return _welcome(request, access, after)
        access.tries.failed(address_of(request.scope))
        hint = "take the latest one that the server has printed"
        details = Details(status=401, detail="this code was used, or is too old", hint=hint)
    return page(request.scope, access, details, after="/")


@router.post("/login")
@role(Role.OPEN)
async def log_in(request: Request) -> Response:
    """A session for the token."""
    access: Access = request.app.state.access
    try:
        fields = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=8))
    except ValueError:
        fields = {}
    after = fields.get("after", "/")
    details = hasty(request.scope, access)
    if details is None:
        if access.is_token(fields.get("token", "").strip()):
            return _welcome(request, access, after)
        access.tries.failed(address_of(request.scope))
        details = Details(status=401, detail="this is not the token")
    return page(request.scope, access, details, after=after)


@router.post("/logout")
@role(Role.OPEN)
async def log_out(request: Request) -> Response:
    """The cookie is forgotten."""
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_of(request.headers["host"]), httponly=True, samesite="strict")
    return response


def local(address: str) -> str:
    """A page of ours to go to: a path with its query; ``/`` where it is anything else, as another site is."""
    plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if plain and address.startswith("/") and not address.startswith("//") else "/"


def _welcome(request: Request, access: Access, after: str) -> Response:
    response = RedirectResponse(local(after), 303)
    forwarded = request.headers.get("x-forwarded-proto", "")  # by a proxy; whoever forges it harms their own cookie
    response.set_cookie(
        cookie_of(request.headers["host"]),
        access.new_session(),
        max_age=int(SESSION_S),
        httponly=True,
        samesite="strict",
        secure="https" in (request.url.scheme, forwarded),
    )
    return response


def address_of(scope: Scope) -> str:
    """The address that a request comes from."""
    return scope["client"][0] if scope.get("client") else ""


def hasty(scope: Scope, access: Access) -> Details | None:
    """What to say to an address that has tried too many wrong tokens; None where it may try."""
    wait = access.tries.wait_s(address_of(scope))
    if wait <= 0:
        return None
    seconds = str(int(wait) + 1)
    return Details(status=429, detail=f"too many wrong tries: wait {seconds} s", headers={"retry-after": seconds})
