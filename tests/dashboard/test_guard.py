"""The guard before a small application of this file's own: what it lets in, what it refuses, and what it says."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Body, FastAPI, Request, Response
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route

from hpsearch.dashboard import guard
from hpsearch.dashboard.access import TRIES, Access, Role, role
from hpsearch.errors import HpsearchError, NotFoundError, StoreError, StudyError, StudyHeldError, UsageError
from hpsearch.errors import Problem as Mistake

TOKEN = "0123456789abcdef" * 4
BEARER = {"authorization": f"Bearer {TOKEN}"}
HOME = {"origin": "http://127.0.0.1:8787", "sec-fetch-site": "same-origin"}
ERRORS: dict[str, Exception] = {
    "missing": NotFoundError("no study 'x'", hint="hpsearch list"),
    "usage": UsageError("sort: no such column"),
    "study": StudyError([Mistake(field="lr", message="is missing")]),
    "held": StudyHeldError("process 1 has it"),
    "store": StoreError("postgresql://u:CANARY@db/x: gone", hint="postgresql://u:CANARY@db/x"),
    "other": HpsearchError("something of ours"),
    "crash": RuntimeError("postgresql://u:CANARY@db/x <script>alert(1)</script>"),
}


def make_app(access: Access) -> FastAPI:
    """Routes of every kind."""
    app = FastAPI(openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None)
    router = APIRouter(prefix="/api/v1")

    @router.get("/studies/{study}")
    @role(Role.READ)
    def study(study: str, limit: int = 1) -> dict[str, Any]:
        return {"study": study, "limit": limit}

    @router.post("/studies/{study}/stop")
    @role(Role.ACT, command="hpsearch stop {study}")
    def stop(request: Request, study: str, body: dict[str, Any] | None = Body(None)) -> dict[str, Any]:  # noqa: B008
        return {"stopped": study, "granted": sorted(request.state.granted)}

    @router.get("/forgotten")
    def forgotten() -> str:
        return "nobody said who may see this"

    @router.get("/error/{name}")
    @role(Role.READ)
    def error(name: str) -> None:
        raise ERRORS[name]

    @app.get("/healthz")
    @role(Role.OPEN)
    def healthz() -> Response:
        return Response("ok")

    @app.get("/page")
    @role(Role.READ)
    def page() -> Response:
        return Response("<h1>page</h1>", media_type="text/html", headers={"etag": '"1"'})

    @app.get("/broken")
    @role(Role.READ)
    def broken() -> None:
        raise ERRORS["crash"]

    @role(Role.OPEN)
    async def static(scope: Any, receive: Any, send: Any) -> None:
        await Response("css")(scope, receive, send)

    async def hidden(scope: Any, receive: Any, send: Any) -> None:
        await Response("secret")(scope, receive, send)

    app.include_router(router)
    app.router.routes += [
        Mount("/static", app=static),
        Mount("/hidden", app=hidden),
        Route("/plain", lambda r: Response("x")),
    ]
    guard.install(app, access)
    return app


def client_of(access: Access, **headers: str) -> TestClient:
    return TestClient(make_app(access), base_url="http://127.0.0.1:8787", headers=headers, follow_redirects=False)


@pytest.fixture(scope="module")
def free() -> Iterator[TestClient]:
    """Loopback without a token."""
    with client_of(Access()) as client:
        yield client


@pytest.fixture
def closed() -> Iterator[TestClient]:
    """With a token, actions allowed."""
    with client_of(Access(token=TOKEN, allow_actions=True)) as client:
        yield client


FORGOTTEN = ["/api/v1/forgotten", "/hidden/x", "/plain"]
READING = ["/api/v1/studies/a", "/page", "/api/v1/openapi.json", "/api/v1/error/missing"]
ODD = [
    "/api/v1/forgotten",
    "/hidden/x",
    "/plain",
    "/nowhere",
    "/api/v1/nowhere",
    "/healthz/",
    "/..%2fpage",
    "/page/../page",
]
OPEN = ["/healthz", "/login", "/static/app.css"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@pytest.mark.parametrize("path", READING + ODD)
def test_strangers_are_told_nothing(closed: TestClient, path: str) -> None:
    """Not even which paths there are."""
    answers = set()
    for method in METHODS:
        for headers in (HOME, HOME | {"authorization": "Basic eDp5"}):
            answer = closed.request(method, path, headers=headers)
            answers.add((answer.status_code, answer.text if method != "HEAD" else ""))
    wrong = closed.get(path, headers={"authorization": "Bearer wrong"})
    assert {status for status, _ in answers} == {401} == {wrong.status_code}
    assert len({text for _, text in answers if text}) == 1
    assert wrong.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", OPEN)
def test_some_paths_are_for_everyone(closed: TestClient, path: str) -> None:
    assert closed.get(path).status_code == 200


@pytest.mark.parametrize("path", FORGOTTEN)
def test_a_route_that_says_nothing_is_refused(closed: TestClient, free: TestClient, path: str) -> None:
    for answer in (free.get(path), closed.get(path, headers=BEARER)):
        assert answer.status_code == 403
        assert "nobody" in answer.json()["detail"]
        assert "secret" not in answer.text


def test_who_knows_the_token_may_read_and_act(closed: TestClient) -> None:
    assert closed.get("/api/v1/studies/a", headers=BEARER).json() == {"study": "a", "limit": 1}
    assert closed.get("/nowhere", headers=BEARER).status_code == 404
    assert closed.get("/api/v1/openapi.json", headers=BEARER).json()["info"]
    assert closed.post("/page", headers=BEARER).status_code == 405
    answer = closed.post("/api/v1/studies/a/stop", headers=BEARER)
    assert answer.json() == {"stopped": "a", "granted": ["act", "open", "read"]}


def test_without_a_token_reading_is_free_and_acting_is_not(free: TestClient) -> None:
    assert free.get("/api/v1/studies/a").status_code == 200
    answer = free.post("/api/v1/studies/a%20b/stop", headers=HOME)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["hint"] == "hpsearch stop 'a b'"
    with client_of(Access(allow_actions=True)) as other:
        assert other.post("/api/v1/studies/a/stop", headers=HOME).status_code == 401


def test_a_code_becomes_a_cookie_once() -> None:
    told: list[str] = []
    access = Access(allow_actions=True, tell=told.append)
    code = access.new_code()
    with client_of(access) as client:
        assert client.get("/login", params={"code": "wrong"}).status_code == 401
        answer = client.get("/login", params={"code": code})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("hpsearch-session-8787=")
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Secure" not in cookie
        assert code not in cookie
        assert client.post("/api/v1/studies/a/stop", headers=HOME).status_code == 200
        client.cookies.clear()
        again = client.get("/login", params={"code": code})
        assert again.status_code == 401
        assert "used" in again.text
        assert client.post("/api/v1/studies/a/stop", headers=HOME).status_code == 401
        assert client.get("/login", params={"code": told[0]}).status_code == 303


def test_the_form_takes_the_token_and_goes_where_one_wanted(closed: TestClient) -> None:
    asked = closed.get("/page?x=1&y=<script>", headers={"accept": "text/html"})
    assert asked.status_code == 401
    assert 'value="/page?x=1&amp;y=%3Cscript%3E"' in asked.text
    wrong = closed.post("/login", data={"token": "wrong"}, headers=HOME)
    assert wrong.status_code == 401
    assert "not the token" in wrong.text
    answer = closed.post("/login", data={"token": f" {TOKEN}\n", "after": "/page?x=1"}, headers=HOME)
    assert (answer.status_code, answer.headers["location"]) == (303, "/page?x=1")
    assert TOKEN not in str(answer.headers)
    assert closed.get("/page").status_code == 200
    assert closed.post("/api/v1/studies/a/stop", headers=HOME).status_code == 200
    assert closed.post("/logout", headers=HOME).status_code == 303
    assert closed.get("/page").status_code == 401


def test_behind_https_the_cookie_goes_nowhere_else(closed: TestClient) -> None:
    headers = HOME | {"x-forwarded-proto": "https"}
    assert "Secure" in closed.post("/login", data={"token": TOKEN}, headers=headers).headers["set-cookie"]


@pytest.mark.parametrize(
    "after", ["//evil.test", "https://evil.test", "/\\evil.test", "evil", "", "/\r\nset-cookie: a=b", "\\"]
)
def test_a_login_never_leads_elsewhere(closed: TestClient, after: str) -> None:
    answer = closed.post("/login", data={"token": TOKEN, "after": after}, headers=HOME)
    assert answer.headers["location"] == "/"
    assert "a=b" not in str(answer.headers)


def test_a_link_from_another_site_asks_once_more_for_itself(closed: TestClient) -> None:
    """Browsers hold a strict cookie back from a navigation that another site began."""
    linked = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert 'http-equiv="refresh"' in closed.get("/page", headers=linked | {"sec-fetch-site": "cross-site"}).text
    assert 'http-equiv="refresh"' not in closed.get("/page", headers=linked | {"sec-fetch-site": "same-origin"}).text


def test_ten_thousand_tries_are_ten(closed: TestClient) -> None:
    seen = [closed.post("/login", data={"token": f"{n:032}"}, headers=HOME).status_code for n in range(TRIES + 5)]
    assert seen == [401] * TRIES + [429] * 5
    late = closed.post("/login", data={"token": TOKEN}, headers=HOME)
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= 61
    assert closed.get("/page", headers=BEARER).status_code == 429
    assert closed.get("/login", params={"code": "x"}).status_code == 429
    assert closed.get("/healthz").status_code == 200


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8787", "127.0.0.1.evil.test", "", "127.0.0.1:8787@evil.test"])
@pytest.mark.parametrize("path", [*READING, *ODD, *OPEN])
def test_a_foreign_name_is_refused_whatever_it_asks(free: TestClient, host: str, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = free.request(method, path, headers={"host": host})
        assert answer.status_code == 421
        assert answer.headers["content-security-policy"] == guard.POLICY


FOREIGN = [
    {"origin": "http://evil.test"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:8788"},
    {"origin": "http://127.0.0.1:8787.evil.test"},
    {"origin": "http://127.0.0.1:8787", "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
def test_another_sites_page_cannot_act_with_our_cookie(headers: dict[str, str], method: str) -> None:
    access = Access(token=TOKEN, allow_actions=True)
    with client_of(access) as client:
        client.cookies.set("hpsearch-session-8787", access.new_session(), domain="127.0.0.1")
        assert client.get("/page").status_code == 200
        for path in ("/api/v1/studies/a/stop", "/login", "/logout", "/nowhere"):
            kinds = [
                {"content": "{}", "headers": headers | {"content-type": "text/plain"}},
                {"data": {"a": "b"}, "headers": headers},
            ]
            assert [client.request(method, path, **kind).status_code for kind in kinds] == [403, 403]
        allowed = client.request(method, "/api/v1/studies/a/stop", headers=HOME)
        assert allowed.status_code == (200 if method == "POST" else 405)


def test_another_site_may_link_here_and_read_nothing(free: TestClient) -> None:
    for site in ("cross-site", "same-site"):
        link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert free.get("/page", headers=link).status_code == 200
        assert free.get("/page", headers=link | {"sec-fetch-dest": "iframe"}).status_code == 403
        assert free.get("/api/v1/studies/a", headers=link | {"sec-fetch-mode": "no-cors"}).status_code == 403


def test_every_response_has_the_headers(free: TestClient, closed: TestClient) -> None:
    answers = [
        *(free.get(path) for path in READING + ODD + OPEN),
        *(free.get(f"/api/v1/error/{name}") for name in ERRORS),
        free.get("/broken", headers={"accept": "text/html"}),
        free.get("/page", headers={"host": "evil.test"}),
        free.post("/page", headers=HOME, content=b"x" * 70_000),
        free.post("/page"),
        free.options("/page"),
        closed.get("/page"),
        closed.get("/page", headers=BEARER),
        closed.post("/login", data={"token": TOKEN}, headers=HOME),
        closed.post("/login", data={"token": "x"}, headers=HOME),
    ]
    assert {answer.status_code for answer in answers} >= {200, 303, 401, 403, 404, 405, 409, 413, 421, 422, 500, 503}
    for answer in answers:
        for name, value in guard.HEADERS.items():
            assert answer.headers[name] == value, (answer.url, name)
        kept = "no-cache" if "etag" in answer.headers else "no-store"
        assert answer.headers["cache-control"] == kept
        assert "access-control-allow-origin" not in answer.headers
        assert "CANARY" not in answer.text
    for word in ("'unsafe-eval'", "script-src 'self' ", "*"):
        assert word not in guard.POLICY
    assert guard.POLICY.count("unsafe") == 1
    assert "style-src-attr 'unsafe-inline'" in guard.POLICY


@pytest.mark.parametrize(
    ("name", "status"),
    [("missing", 404), ("usage", 422), ("study", 422), ("held", 409), ("store", 503), ("other", 500), ("crash", 500)],
)
def test_errors_are_problems(free: TestClient, name: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = free.get(f"/api/v1/error/{name}", headers={"accept": "text/html"})  # the API always speaks JSON
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said.keys() == {"type", "title", "status", "detail", "hint"}
    assert said["status"] == status
    assert "Traceback" not in answer.text
    assert "CANARY" not in answer.text + caplog.text
    assert ("retry-after" in answer.headers) == (status == 503)
    if name == "missing":
        assert (said["title"], said["detail"], said["hint"]) == ("Not Found", "no study 'x'", "hpsearch list")
    if name == "crash":
        number = said["detail"].partition("(error ")[2].rstrip(")")
        assert f"error {number}" in caplog.text
        assert "RuntimeError" in caplog.text
        assert "script" not in answer.text


def test_a_person_gets_a_page_and_hostile_text_is_text(free: TestClient) -> None:
    answer = free.get("/<script>alert(1)</script>", headers={"accept": "text/html,*/*"})
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script" not in answer.text
    broken = free.get("/broken", headers={"accept": "text/html"})
    assert broken.status_code == 500
    assert "CANARY" not in broken.text
    assert "RuntimeError" not in broken.text


def test_what_cannot_be_asked_is_said_by_field(free: TestClient) -> None:
    """The field, its value, the way out."""
    answer = free.get("/api/v1/studies/a", params={"limit": "many"})
    assert answer.status_code == 422
    said = answer.json()
    assert said["detail"] == "limit: it should be a valid integer, unable to parse string as an integer, and is 'many'"
    assert said["hint"] == "a whole number: limit=10"


def test_a_body_is_small() -> None:
    def chunks(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b" " * 1024

    with client_of(Access(token=TOKEN, allow_actions=True)) as client:
        path, headers = "/api/v1/studies/a/stop", BEARER | {"content-type": "application/json"}
        assert client.post(path, content=b"{}" + b" " * 60_000, headers=headers).status_code == 200
        assert client.post(path, content=b"{}" + b" " * 70_000, headers=headers).status_code == 413
        assert client.post(path, content=chunks(70), headers=headers).status_code == 413
        assert client.post(path, content=b"{", headers=headers).status_code == 422
        assert client.request("GET", "/page", content=b" " * 70_000, headers=BEARER).status_code == 413


def test_a_slow_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.05)
    app, sent = make_app(Access()), []
    headers = [(b"host", b"127.0.0.1"), (b"content-length", b"9"), (b"origin", b"http://127.0.0.1")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/page",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> Any:
        await asyncio.sleep(3600)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5))
    assert [message["status"] for message in sent if "status" in message] == [408]
    assert json.loads(sent[-1]["body"])["title"] == "Request Timeout"


def test_there_are_no_websockets() -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/page", "headers": [], "query_string": b""}
    asyncio.run(make_app(Access())(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_log_has_no_query_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(token=TOKEN)
    code = access.new_code()
    with caplog.at_level(logging.DEBUG), client_of(access) as client:
        client.get("/login", params={"code": code})
        client.get("/page?token=" + TOKEN, headers=BEARER)
        client.get("/a%0Aforged line")
        client.post("/login", data={"token": TOKEN}, headers=HOME)
    ours = [record.getMessage() for record in caplog.records if record.name == "hpsearch.dashboard"]
    assert ours == ["GET /login 303", "GET /page 200", "GET /a%0Aforged%20line 404", "POST /login 303"]
    assert TOKEN not in " ".join(ours)
