"""The one layer that every request passes before it is routed, and every response on its way out.

In this order: a Host that we are known by; a cross-site request is refused; who asks, and whether the route that
matches is for them (a route that says nothing is refused, an unknown path looks like any other to strangers); a body
that is small and arrives soon. Every response, errors among them, leaves with the headers below.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any, final
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpsearch.dashboard import login, problem
from hpsearch.dashboard.access import Access, Role, command_of, cookie_of, role, role_of
from hpsearch.dashboard.problem import LOG, Details

LARGEST_BODY = 64 * 1024
BODY_S = 10.0
SAFE = frozenset(["GET", "HEAD", "OPTIONS"])
#: plotly sets style attributes on the elements that it makes: those alone may be inline, never a sheet or a script
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer, browsers would send "Origin: null" along with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@final
class Refused(Exception):
    """The request goes no further."""

    def __init__(self, details: Details, *, ask: bool = False) -> None:
        super().__init__(details.detail)
        self.details = details
        #: a person may log in
        self.ask = ask


@final
class Ending:
    """Says to streams, which would go on for ever, that the server ends."""

    def __init__(self) -> None:
        self.event = asyncio.Event()


def install(app: FastAPI, access: Access) -> None:
    """Put the guard before an application's routes, and the login among them. To be called last.

    ``app.state`` then has the policy (``access``), and what ends the streams (``ending``).
    """
    app.state.access = access
    app.state.ending = ending = Ending()
    app.include_router(login.router)
    for route in app.routes:
        if isinstance(route, Route) and route.path == app.openapi_url:
            role(Role.READ)(route.endpoint)  # FastAPI makes it; it says what can be asked
    problem.install(app)
    app.add_middleware(Guard, access=access, routes=lambda: app.routes, ending=ending)


def endpoint_of(route: Any) -> Any:
    """What a route leads to, which carries its role: a function, or an application that is mounted."""
    return getattr(route, "endpoint", None) or getattr(route, "app", None)


@final
class Guard:
    """The layer, as ASGI middleware.

    Args:
        app: what it guards.
        access: the policy.
        routes: the application's routes, as the router tries them.
        ending: set when the server ends.
    """

    def __init__(
        self, app: ASGIApp, *, access: Access, routes: Callable[[], Sequence[BaseRoute]], ending: Ending
    ) -> None:
        self._app = app
        self._access = access
        self._routes = routes
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # no websocket is offered
            return await send({"type": "websocket.close", "code": 1008})
        wire = _Wire(send, self._ending)
        headers = Headers(scope=scope)
        try:
            self._admit(scope, headers)
            receive = await _body(headers, receive)
            await self._app(scope, wire.receiving(receive), wire.send)
        except Refused as refused:
            await wire.say(scope, self._told(scope, headers, refused))
        except Exception as error:  # noqa: BLE001 - whatever it is, its traceback stays here
            details = problem.of_unexpected(error)
            await wire.say(scope, self._told(scope, headers, Refused(details)))
        await wire.close()
        LOG.info("%s %s %s", scope["method"], quote(scope["path"]), wire.status)
        return None

    def _told(self, scope: Scope, headers: Headers, refused: Refused) -> Response:
        page = problem.wants_page(scope["path"], headers.get("accept", ""), scope["method"])
        theme = cookie_parser(headers.get("cookie", "")).get("theme", "")
        if page and refused.ask and scope["method"] == "GET":
            return login.page(scope, self._access, refused.details)
        return problem.answer(refused.details, page=page, theme=theme)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        """Let a request in, with what it may do in ``request.state.granted``.

        Raises:
            Refused: it is not let in.
        """
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._access.allows_host(hosts[0]):
            raise Refused(Details(status=421, detail="this server is not known by that name", hint="--allowed-hosts"))
        _refuse_foreign(scope, headers)
        known = self._knows(scope, headers)
        granted = self._access.granted(known=known)
        scope.setdefault("state", {})["granted"] = granted
        match, endpoint, params = self._matching(scope)
        if match is Match.NONE:
            needed: Role | None = Role.READ
        else:
            needed = role_of(endpoint)
        if Role.READ not in granted and needed is not Role.OPEN:
            raise _stranger()
        if needed is None:
            raise Refused(Details(status=403, detail="nobody is allowed to do this"))
        if needed is Role.ACT and not self._access.allow_actions:
            raise Refused(Details(status=403, detail=NO_ACTIONS, hint=_filled(command_of(endpoint), params)))
        if needed not in granted:
            raise _stranger()

    def _knows(self, scope: Scope, headers: Headers) -> bool:
        """Whether the caller has shown the token, or a session.

        Raises:
            Refused: there were too many wrong tokens from this address.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and not self._access.free_reading:
            if (details := login.hasty(scope, self._access)) is not None:
                raise Refused(details)
            if self._access.is_token(token.strip()):
                return True
            self._access.tries.failed(login.address_of(scope))
            return False
        cookie = cookie_parser(headers.get("cookie", "")).get(cookie_of(headers["host"]), "")
        return bool(cookie) and self._access.is_session(cookie)

    def _matching(self, scope: Scope) -> tuple[Match, Any, dict[str, Any]]:
        """The endpoint that the router would choose: the first that takes path and method, else that takes the path."""
        partial: tuple[Match, Any, dict[str, Any]] = (Match.NONE, None, {})
        for route in iter_route_contexts(self._routes()):
            match, child = route.matches({**scope, "state": {}})
            found = (match, endpoint_of(route), child.get("path_params", {}))
            if match is Match.FULL:
                return found
            if match is Match.PARTIAL and partial[0] is Match.NONE:
                partial = found
        return partial


NO_ACTIONS = "this server only shows: it was started without --allow-actions"


def _stranger() -> Refused:
    hint = "log in at /login, or send the header Authorization: Bearer TOKEN"
    headers = {"www-authenticate": "Bearer"}
    return Refused(Details(status=401, detail="this needs a login", hint=hint, headers=headers), ask=True)


def _filled(command: str, params: dict[str, Any]) -> str:
    for name, value in params.items():
        command = command.replace(f"{{{name}}}", shlex.quote(str(value)))
    return command


def _refuse_foreign(scope: Scope, headers: Headers) -> None:
    """Refuse what another site's page makes a browser send.

    A request that may change something must come from our own page, by the browser's word, or from no page: with the
    token in a header, which no foreign page can set. Another site may link to a page here, and get nothing else of it:
    no link names its site as ``Origin``.

    Raises:
        Refused: another site asks.
    """
    site, origin = headers.get("sec-fetch-site", ""), headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2].lower() != headers["host"].lower()
    if scope["method"] in SAFE:
        navigates = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        foreign = foreign or (site in ("cross-site", "same-site") and not navigates)
    else:
        foreign = foreign or site not in ("", "same-origin", "none")
        foreign = foreign or not (site or origin or headers.get("authorization"))
    if foreign:
        hint = "programs send the header Origin, or Authorization: Bearer TOKEN"
        raise Refused(Details(status=403, detail="another site's page may not do this", hint=hint))


async def _body(headers: Headers, receive: Receive) -> Receive:
    """The body, read whole before anything else is begun; afterwards the way to hear that the caller has gone.

    Raises:
        Refused: it is too large, or too slow.
    """
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return receive
    too_large = Refused(Details(status=413, detail=f"a body may have {LARGEST_BODY} bytes"))
    if headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")[:20]) > LARGEST_BODY:
        raise too_large
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(BODY_S):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    break
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > LARGEST_BODY:
                    raise too_large
    except TimeoutError:
        raise Refused(Details(status=408, detail=f"the body took more than {BODY_S:.0f} s")) from None
    first: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def read() -> Message:
        return first.pop() if first else await receive()

    return read


@final
class _Wire:
    """A response on its way out, and when its stream is to end."""

    def __init__(self, send: Send, ending: Ending) -> None:
        self._send = send
        self._ending = ending
        self._ended = False
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass a message on, at once; the first with our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-cache" if "etag" in headers else "no-store")
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        await self._send(message)

    def receiving(self, receive: Receive) -> Receive:
        """Hear from the caller; that the server ends sounds like a caller who has gone."""

        async def read() -> Message:
            if self._ending.event.is_set():
                return {"type": "http.disconnect"}
            heard, ends = asyncio.ensure_future(receive()), asyncio.ensure_future(self._ending.event.wait())
            try:
                await asyncio.wait([heard, ends], return_when=asyncio.FIRST_COMPLETED)
                return heard.result() if heard.done() else {"type": "http.disconnect"}
            finally:
                for task in (heard, ends):
                    if not task.done():
                        task.cancel()
                        with contextlib.suppress(asyncio.CancelledError):
                            await task

        return read

    async def say(self, scope: Scope, response: Response) -> None:
        """Answer, where no answer was begun."""
        if not self.status:
            await response(scope, _nothing, self.send)

    async def close(self) -> None:
        """End a stream in good order where the server ends; else a response that broke off stays broken."""
        if self.status and not self._ended and self._ending.event.is_set():
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
