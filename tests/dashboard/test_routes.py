"""Every route of the real application, whatever is added: who is let in, what leaves, that looking changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from fastapi.dependencies.utils import get_dependant
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.dashboard import guard
from hpsearch.dashboard.access import Access, Role, command_of, role_of
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.guard import endpoint_of
from hpsearch.dashboard.record import Record
from hpsearch.pictures import PICTURES
from tests.dashboard.hostile import CANARY, CORPUS, HOSTILE, MARK, SECRETS

BASE = "http://127.0.0.1:8787"
TOKEN = "0123456789abcdef" * 4
BEARER = {"authorization": f"Bearer {TOKEN}"}
HOME = {"origin": BASE, "sec-fetch-site": "same-origin"}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
#: what strangers may ask for; each says nothing of the record
OPEN = {("GET", "/healthz"), ("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("*", "/static")}
#: a stream, which a client without a network would wait for for ever; it is refused like the others, and read elsewhere
ENDLESS = {"/api/v1/events"}
STUDY = f"<{MARK}>'\"&"
#: what tells of a secret that it is one
HIDDEN = "postgresql://u:***@db/x"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A study whose every text is hostile or secret, in a database whose address has a password."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "train.py").write_text(
        f"def train(run):\n    for text in {[*reversed(CORPUS), SECRETS]!r}:\n        print(text)\n"
        f"    if run.seed and run['kind'] != 'plain':\n        raise ValueError({HOSTILE + SECRETS!r})\n"
        "    run.report(0, loss=run['lr'])\n    return run['lr']\n"
    )
    study = hp.define(
        name="hostile",
        objective=f"{folder}/train.py:train",
        search_space={"lr": {"log": [1e-3, 1]}, "kind": [HOSTILE.replace("\r\n", ""), "plain"]},
        metric={"loss": "minimize"},
        strategy="random",
        n_trials=12,
        seeds=2,
        tags=[f"<{MARK}>"],
        max_failures=99,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD"):
            patch.setenv(name, CANARY)
        hp.run(study, db=f"sqlite:///{folder}/r.db", on="local", workers=1)
        files = folder / "hpsearch-files"
        (files / "hostile").rename(files / STUDY)
        with sqlite3.connect(folder / "r.db") as connection:
            connection.execute("UPDATE study SET name = ?", [STUDY])
            note = "INSERT INTO note (study, kind, address, text, created) SELECT id, 'note', ?, ?, 1.0 FROM study"
            connection.executemany(note, [(STUDY, text) for text in (HOSTILE, SECRETS)])
            connection.executemany(note, [(f"{STUDY}/0", text) for text in (HOSTILE, SECRETS)])
        connection.close()
        yield f"sqlite:///{folder}/r.db?password={CANARY}"


def client_of(url: str, access: Access) -> TestClient:
    return TestClient(make_app(Record(url), access), base_url=BASE, follow_redirects=False)


@pytest.fixture(scope="module")
def free(url: str) -> Iterator[TestClient]:
    with client_of(url, Access()) as client:
        yield client


@pytest.fixture
def closed(url: str) -> TestClient:
    return client_of(url, Access(token=TOKEN, allow_actions=True))


def routes() -> list[tuple[str, str, object]]:
    """(method, path, endpoint) of each route of the application; a method of ``*``: an application that is mounted."""
    app = make_app(Record("sqlite:///none.db"), Access())
    return [
        (method, route.path or "", endpoint_of(route))
        for route in iter_route_contexts(app.routes)
        for method in sorted(route.methods or ["*"])
    ]


ROUTES = routes()
PATHS = sorted({path for _, path, _ in ROUTES})


def filled(path: str) -> list[str]:
    """Addresses of a path: of the hostile study, its trials and runs, and every picture."""
    known = {"study": [STUDY], "name": list(PICTURES), "seed": ["0", "1"], "path": ["app.css"]}
    made = [f"{path}/app.css" if path == "/static" else path]
    while any("{" in one for one in made):
        found = [re.search(r"\{(\w+)(?::\w+)?\}", one) for one in made]
        made = [
            one.replace(match[0], quote(value, safe="")) if match else one
            for one, match in zip(made, found, strict=True)
            for value in (known.get(match[1], ["0"]) if match else [""])
        ]
    study = quote(STUDY)
    return [f"{one}?study={study}&s={study}&s={study}&trial=0&trial=1&a=0&b=1&t=0" for one in made]


READS = [one for path in PATHS if path not in ENDLESS for one in filled(path)]
READS += [f"{one}&format={kind}" for one in READS if one.startswith("/api/") for kind in ("csv", "table")]


def test_every_route_says_what_it_needs() -> None:
    roles = {(method, path): role_of(endpoint) for method, path, endpoint in ROUTES}
    assert [key for key, needed in roles.items() if needed is None] == []
    assert {key for key, needed in roles.items() if needed is Role.OPEN} == OPEN
    assert len(roles) > len(OPEN)
    for (method, path), needed in roles.items():
        if (method, path) not in OPEN:
            # To look is to read; what is more than a look is an action.
            assert needed is (Role.READ if method in ("GET", "HEAD") else Role.ACT), (method, path)
    for method, path, endpoint in ROUTES:
        if role_of(endpoint) is Role.ACT:
            command = command_of(endpoint)
            assert command.startswith("hpsearch "), f"{method} {path}: which command does the same?"
            assert set(re.findall(r"\{(\w+)\}", command)) <= set(re.findall(r"\{(\w+)", path)), (method, path)


def test_a_stranger_gets_nowhere(closed: TestClient) -> None:
    """No token, a wrong one, a forged session: on every route and method."""
    for path in PATHS:
        address = filled(path)[0]
        for method in METHODS:
            if {(method, path), ("*", path)} & OPEN or path in ("/login", "/logout", "/healthz"):
                continue
            for headers in ({}, {"cookie": "hpsearch-session-8787=1.2.3"}, {"authorization": "Basic x"}):
                answer = closed.request(method, address, headers=HOME | headers)
                assert answer.status_code == 401, (method, path)
                assert MARK not in answer.text
    with client_of("sqlite:///none.db", Access(token=TOKEN)) as other:
        seen = {other.get(address, headers={"authorization": "Bearer wrong"}).status_code for address in READS}
    assert seen == {401, 429}


def test_a_foreign_host_or_origin_gets_nowhere(url: str) -> None:
    access = Access(token=TOKEN, allow_actions=True)
    with client_of(url, access) as client:
        client.cookies.set("hpsearch-session-8787", access.new_session(), domain="127.0.0.1")
        for path in PATHS:
            address = filled(path)[0]
            for method in METHODS:
                assert client.request(method, address, headers={"host": "evil.test"}).status_code == 421
                foreign = [{"origin": "http://evil.test"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
                # A link that is typed says nothing of where it comes from; what may change something has to.
                for headers in foreign if method in guard.SAFE else [*foreign, {}]:
                    assert client.request(method, address, headers=headers).status_code == 403, (method, path)


def test_without_the_flag_no_action_is_done(free: TestClient) -> None:
    for method, path, endpoint in ROUTES:
        if role_of(endpoint) is Role.ACT:
            answer = free.request(method, filled(path)[0], headers=HOME, json={})
            assert answer.status_code == 403
            assert answer.headers["content-type"] == "application/problem+json"
            hint = answer.json()["hint"]
            assert hint.startswith("hpsearch ")
            assert "{" not in hint.replace(STUDY, "")


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        given = dict(attrs)
        self._script = tag == "script" and "src" not in given
        for name in ("href", "src", "action"):
            assert not (given.get(name) or "").lower().startswith(("javascript:", "data:", "//", "http:", "https:"))

    def handle_data(self, data: str) -> None:
        (self.scripts if self._script else self.words).append(data)
        self._script = False


def test_hostile_texts_are_text_and_no_secret_leaves(free: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Each answer: whole, with the headers, and with nothing in it that a browser would run."""
    shown, told = 0, set()
    for address in READS:
        answer = free.get(address, headers={"accept": "text/html,*/*"})
        assert answer.status_code < 500, (address, answer.text)
        for name, value in guard.HEADERS.items():
            assert answer.headers[name] == value, address
        assert "set-cookie" not in answer.headers
        assert not any(set(value) & set("\r\n\x1b") for value in answer.headers.values())
        assert CANARY not in answer.text, address
        if HIDDEN in answer.text:
            told.add(unquote(address.partition("?")[0]).replace(STUDY, "*"))
        kind = answer.headers["content-type"].partition(";")[0] if answer.text else ""
        if kind == "text/html":
            page = Elements(answer.text)
            assert MARK not in page.tags, address
            assert not [name for name in page.attributes if name.startswith("on")], address
            if not answer.headers.get("content-disposition", "").startswith("attachment"):  # as a report is
                assert not [text for text in page.scripts if text.strip()], address  # none is inline
            assert "49" not in re.findall(r"<.{0,40}49.{0,40}", "".join(page.words))
            shown += MARK in "".join(page.words)
        elif kind in ("application/json", "application/problem+json"):
            json.loads(answer.text, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
        elif kind == "text/csv":
            assert_no_formula(answer.text)
    assert shown
    api = "/api/v1/studies/*"
    assert told >= {"/s/*", "/s/*/t/0", "/s/*/t/0/1", "/s/*/diagnostics", "/api/v1/studies", api, f"{api}/trials/0"}
    assert told >= {f"{api}/trials/0/log", f"{api}/diagnostics", f"{api}/report"}
    assert CANARY not in caplog.text


def asked_for(path: str, endpoint: object) -> set[str]:
    """The names that an endpoint takes from a query."""
    found, names = [get_dependant(path=path, call=endpoint)], set()
    for one in found:
        names |= {parameter.alias for parameter in one.query_params}
        found += one.dependencies
    return names


def test_hostile_texts_in_an_address_are_texts_or_refused(free: TestClient) -> None:
    """As study, trial, seed, picture and file; as each parameter of each query."""
    study, asked = quote(STUDY), 0
    for method, path, endpoint in ROUTES:
        if method not in ("GET", "*") or path in ENDLESS:
            continue
        names = asked_for(path, endpoint) if method == "GET" else set()
        known = filled(path)[0].partition("?")[0]
        for k, text in enumerate(CORPUS):
            coded = quote(text, safe="")
            whole = [re.sub(r"\{[^}]*\}", coded, path) if "{" in path else f"{known}/{coded}"]
            needed = "".join(f"&{name}={text}" for name, text in {"a": 0, "b": 1, "study": study}.items())
            whole += [f"{known}?{name}={coded}{needed}" for name in sorted(names)[k % 3 :: 3]]  # each meets a third
            for address in whole:
                answer = free.get(address, headers={"accept": "text/html,*/*"})
                asked += 1
                assert answer.status_code < 500, (address[:300], answer.text[:300])
                assert "set-cookie" not in answer.headers
                assert not any(set(value) & set("\r\n\x1b\x00") for value in answer.headers.values())
                assert "root:" not in answer.text
                if answer.headers.get("content-type", "").startswith("text/html"):
                    assert MARK not in Elements(answer.text).tags, address[:300]
    assert asked > 500
    assert free.get(f"/api/v1/studies/{study}").status_code == 200  # no table is gone


def assert_no_formula(text: str) -> None:
    """No cell that a spreadsheet would compute; numbers are numbers."""
    import csv
    import io

    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                float(cell)


def test_to_look_changes_no_byte_and_asks_nobody(url: str, free: TestClient) -> None:
    folder = Path(url.removeprefix("sqlite:///").partition("?")[0]).parent
    before = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}
    watched: list[object] = []
    listening = True

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec"):
            watched.append((event, arguments))

    sys.addaudithook(hear)  # which cannot be taken back, so it is told to stop
    try:
        for address in READS:
            assert free.get(address).status_code < 500, address
            assert free.head(address).status_code < 500, address
    finally:
        listening = False
    assert watched == []
    after = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}
    assert after == before


def test_who_has_the_token_gets_everywhere(closed: TestClient) -> None:
    for address in READS:
        assert closed.get(address, headers=BEARER).status_code not in (401, 403, 429), address
