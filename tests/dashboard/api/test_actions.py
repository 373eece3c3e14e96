"""Actions over HTTP: they write what the commands write; who may not, and what cannot be, is told the way out."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.attempt import record_of
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.api.actions import LookTold
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.further import REVEAL
from hpsearch.ship import looks
from hpsearch.store import Command, this_process
from hpsearch.stores.sql import open_archive, open_store
from tests.dashboard import confirmed
from tests.dashboard.conftest import printed, without
from tests.dashboard.hostile import CORPUS

BASE = "http://127.0.0.1:8787"
API = "/api/v1/studies/digits"
HOME = {"origin": BASE}
#: what a browser sends with a form
FORM = HOME | {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ACTIONS = {
    "/notes": ({"text": "x"}, "hpsearch note digits TEXT"),
    "/trials/1/notes": ({"text": "x"}, "hpsearch note digits/1 TEXT"),
    "/tags": ({"text": "x"}, "hpsearch tag digits WORD"),
    "/trials/1/tags": ({"text": "x"}, "hpsearch tag digits/1 WORD"),
    "/stop": ({}, "hpsearch stop digits"),
    "/reveal-test": ({"reason": "x"}, "hpsearch ship digits --reveal-test --reason TEXT"),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return confirmed.make(tmp_path_factory.mktemp("confirmed"))


@pytest.fixture
def db(made: Path, tmp_path: Path) -> str:
    return confirmed.copied(made, tmp_path / "copy")


def client_of(db: str, *, allow: bool = True, known: bool = True) -> TestClient:
    access = Access(allow_actions=allow)
    client = TestClient(make_app(Record(db), access), base_url=BASE, follow_redirects=False)
    if known:
        client.cookies.set("hpsearch-session-8787", access.new_session(), domain="127.0.0.1")
    return client


@pytest.fixture
def client(db: str) -> Iterator[TestClient]:
    with client_of(db) as made:
        yield made


@pytest.mark.parametrize("path", ACTIONS)
def test_who_may_not_changes_nothing(db: str, path: str) -> None:
    body, command = ACTIONS[path]
    before = open_archive(db).revisions()
    with client_of(db, allow=False) as only_shows:
        refused = only_shows.post(API + path, json=body, headers=HOME)
        assert (refused.status_code, refused.json()["hint"]) == (403, command)
    with client_of(db, known=False) as stranger:
        assert stranger.post(API + path, json=body, headers=HOME).status_code == 401
    with client_of(db) as known:
        assert known.post(API + path, json=body, headers={"origin": "http://evil.test"}).status_code == 403
    assert open_archive(db).revisions() == before


def test_notes_and_tags_are_those_of_the_command(db: str, client: TestClient) -> None:
    for path, address in (("/notes", "digits"), ("/trials/1/notes", "digits/1")):
        answer = client.post(API + path, json={"text": " <script>\n"}, headers=HOME)
        assert (answer.status_code, answer.json()) == (201, {"schema": 2, "address": address, "text": "<script>"})
    seen = client.get(API).headers["etag"]
    for path, address in (("/tags", "digits"), ("/trials/0/tags", "digits/0")):
        answer = client.post(API + path, data={"text": "paper"}, headers=HOME)
        assert (answer.status_code, answer.json()) == (201, {"schema": 2, "address": address, "text": "paper"})
        assert client.get(API).headers["etag"] != seen
        seen = client.get(API).headers["etag"]
    summary = open_archive(db).study("digits")
    assert list(summary.notes) == [("digits", "<script>"), ("digits/1", "<script>")]
    assert list(summary.tags) == ["paper"]
    assert list(summary.trial_tags) == [("digits/0", "paper")]


def test_the_command_line_says_the_same(
    db: str, client: TestClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSEARCH_DB", db)

    def both(path: str, body: dict[str, str], *words: str) -> tuple[dict, dict]:
        answer = client.post(f"{API}{path}", json=body, headers=HOME)
        assert answer.status_code < 300, answer.text
        return answer.json(), printed(capsys, monkeypatch, *words)

    for path, body, words in (
        ("/notes", {"text": "x"}, ("note", "digits", "x")),
        ("/trials/1/tags", {"text": "x"}, ("tag", "digits/1", "x")),
        ("/stop", {}, ("stop", "digits")),
    ):
        ours, theirs = both(path, body, *words)
        assert ours == theirs
    words = ("ship", "digits", "--reveal-test", "--reason", "x")
    ours, shipped = both("/reveal-test", {"reason": "x"}, *words)
    theirs = {"schema": shipped["schema"], **shipped["revealed"]}
    own = {"number", "when", "who"}
    assert without(ours, *own) == without(theirs, *own)
    assert {key: type(ours[key]) for key in own} == {key: type(theirs[key]) for key in own}
    assert ours["when"] < theirs["when"]
    assert ours.keys() == {field.name for field in fields(LookTold)}


def test_a_form_leads_back_to_its_page(client: TestClient) -> None:
    for path, typed, page in (
        ("/notes", {"text": "one\r\ntwo"}, "/s/digits?done=note"),
        ("/trials/1/tags", {"text": "paper"}, "/s/digits/t/1?done=tag"),
        ("/stop", {}, "/s/digits?done=idle"),
    ):
        headers = FORM | {"content-type": "application/x-www-form-urlencoded"}
        answer = client.post(API + path, data=typed, headers=headers)
        assert (answer.status_code, answer.headers.get("location")) == (303, page)
    assert client.get(API).json()["notes"] == [{"address": "digits", "text": "one\ntwo"}]
    wrong = client.post(f"{API}/tags", data={"text": "two words"}, headers=FORM)
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "text/html; charset=utf-8")
    assert "a tag is one word" in wrong.text


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/notes", {}, 422, "text: it is missing"),
        ("/notes", {"text": ""}, 422, "text: "),
        ("/notes", {"text": "  "}, 422, "the note is empty"),
        ("/notes", {"text": 3}, 422, "text: it should be a valid string, and is 3"),
        ("/notes", {"text": "a\0b"}, 422, "no database keeps"),
        ("/notes", {"text": "x" * 10_001}, 422, "text: "),
        ("/notes", ["x"], 422, "body: "),
        ("/notes", {"text": "x", "file": "/etc/passwd"}, 422, "file: there is no such field"),
        ("/reveal-test", {"reason": "x", "files": "/tmp"}, 422, "files: there is no such field"),
        ("/reveal-test", {"reason": "x", "trial": 0}, 422, "the test set is for #1"),
        ("/reveal-test", {"reason": " "}, 422, "the reason is empty"),
        ("/trials/9/notes", {"text": "x"}, 404, "no trial 9"),
        ("/trials/9/tags", {"text": "x"}, 404, "no trial 9"),
        ("/stop", {"now": "perhaps"}, 422, "now: "),
    ],
)
def test_what_cannot_be_done_is_refused(
    db: str, client: TestClient, path: str, body: object, status: int, words: str
) -> None:
    before = open_archive(db).revisions()
    answer = client.post(API + path, json=body, headers=HOME)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert answer.json()["hint"]
    assert open_archive(db).revisions() == before


def test_a_body_of_another_kind_is_refused(client: TestClient) -> None:
    for kind, content, status in (
        ("text/plain", b"x", 415),
        ("application/json", b"{", 422),
        ("application/json", b"\xff", 422),
        ("application/json", b"[" * 60_000, 422),
        ("application/x-www-form-urlencoded", b"text=%ff", 422),
        ("application/x-www-form-urlencoded", b"text=a" + b"&a=b" * 20, 422),
    ):
        answer = client.post(f"{API}/notes", content=content, headers=HOME | {"content-type": kind})
        assert answer.status_code == status, (kind, content[:9], answer.text)


def test_stop_reaches_the_coordinator(db: str, client: TestClient) -> None:
    idle = client.post(f"{API}/stop", json={}, headers=HOME).json()
    assert idle == {"schema": 2, "study": "digits", "asked": False, "words": "digits is not running (complete)"}
    store = open_store(db)
    store.open(record_of(hp.read_study(open_archive(db).study("digits").file)), this_process(), lease_s=60)
    asked = client.post(f"{API}/stop", json={"now": True}, headers=HOME).json()
    assert asked["asked"]
    assert store.renew(0.0) == [Command(verb="stop", payload={"now": True})]
    held = client.post(f"{API}/reveal-test", json={"reason": "x"}, headers=HOME)
    assert held.status_code == 409
    assert "digits is held by" in held.json()["detail"]
    store.close("complete")
    assert looks(open_archive(db).decisions("digits")) == []


def test_a_look_is_taken_once_and_recorded(db: str, client: TestClient) -> None:
    first = client.post(f"{API}/reveal-test", json={"reason": " --files=/x "}, headers=HOME)
    assert first.status_code == 200, first.text
    told = first.json()
    assert (told["number"], told["trial"], told["reason"]) == (1, 1, "--files=/x")
    assert told["who"] == f"{getpass.getuser()} via dashboard"
    assert told["metric"] == "val_loss"
    assert told["validation"]["n"] == 2
    assert {name for name in told["metrics"] if name.startswith("test_")}
    second = client.post(f"{API}/reveal-test", json={"reason": "more"}, headers=HOME)
    assert second.status_code == 409
    assert "looked at once" in second.json()["detail"]
    assert '"again": true' in second.json()["hint"]
    form = {"reason": "more", "trial": "1", "again": "true"}
    again = client.post(f"{API}/reveal-test", data=form, headers=FORM)
    assert (again.status_code, again.headers["location"]) == (303, "/s/digits/ship?t=1&done=look")
    archive = open_archive(db)
    rows = [d for d in archive.decisions("digits") if d.kind == REVEAL]
    assert [(row.subject, row.reason, row.details["look"]) for row in rows] == [
        ("1", "--files=/x", 1),
        ("1", "more", 2),
    ]
    assert (archive.study("digits").state, archive.study("digits").holder) == ("complete", "")
    third = client.post(f"{API}/reveal-test", json={"reason": "x"}, headers=HOME)
    assert "2 times" in third.json()["detail"]
    for path in (API, f"{API}/decisions", f"{API}/trials/1"):
        text = client.get(path).text
        assert not [name for name, found in told["metrics"].items() if name in text or repr(found["mean"]) in text]


def test_a_look_that_fails_says_the_commands_words(db: str, client: TestClient, tmp_path: Path) -> None:
    """The weights are gone, and nothing is recorded."""
    for kept in (tmp_path / "copy" / "hpsearch-files").rglob("*.pt"):
        kept.unlink()
    answer = client.post(f"{API}/reveal-test", json={"reason": "x"}, headers=HOME)
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("best.pt is gone")
    assert answer.json()["hint"] == "hpsearch rerun makes the run again"
    assert "Traceback" not in answer.text
    assert looks(open_archive(db).decisions("digits")) == []


def test_whatever_is_said_is_kept_as_it_is_or_refused(db: str, client: TestClient) -> None:
    refused = []
    for text in [*CORPUS, "\u00e9" * 1_000_000]:
        before = [note["text"] for note in client.get(API).json()["notes"]]
        answer = client.post(f"{API}/notes", json={"text": text}, headers=HOME)
        after = [note["text"] for note in client.get(API).json()["notes"]]
        if answer.status_code == 201:
            assert after == [*before, text.strip()]
        else:
            refused.append((answer.status_code, text[:1]))
            assert answer.json()["detail"]
            assert after == before
    assert set(refused) <= {(422, "\x00"), (413, "\u00e9")}
