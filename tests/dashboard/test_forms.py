"""Forms of the pages: for who may act; everybody else gets the commands that do the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hpsearch.attempt import record_of
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.read import stored_study
from hpsearch.store import this_process
from hpsearch.stores.sql import open_archive, open_store

BASE = "http://127.0.0.1:8787"
FORM = {"origin": BASE, "accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def db(url: str, tmp_path: Path) -> str:
    """A copy of the record to write to."""
    return f"sqlite:///{shutil.copy(url.removeprefix('sqlite:///'), tmp_path / 'record.db')}"


@pytest.fixture
def access() -> Access:
    return Access(allow_actions=True)


@pytest.fixture
def reader(db: str, access: Access) -> Iterator[TestClient]:
    with TestClient(make_app(Record(db), access), base_url=BASE) as made:
        yield made


@pytest.fixture
def actor(reader: TestClient, access: Access) -> TestClient:
    reader.cookies.set("hpsearch-session-8787", access.new_session(), domain="127.0.0.1")
    return reader


@pytest.mark.parametrize(("path", "address"), [("/s/fine", "fine"), ("/s/fine/t/3", "fine/3")])
def test_a_reader_gets_the_commands(reader: TestClient, db: str, path: str, address: str) -> None:
    page = reader.get(path).text
    assert 'method="post"' not in page
    assert f'data-copy="hpsearch note {address} &#34;TEXT&#34; --db {db}"' in page
    assert f'data-copy="hpsearch tag {address} WORD --db {db}"' in page


@pytest.mark.parametrize("path", ["/s/fine", "/s/fine/t/3"])
def test_what_a_form_has_sent_is_on_the_page_that_follows(actor: TestClient, path: str) -> None:
    api = path.replace("/s/", "/api/v1/studies/").replace("/t/", "/trials/")
    assert f'<form method="post" action="{api}/notes"' in actor.get(path).text
    page = actor.post(f"{api}/notes", data={"text": "<script>x"}, headers=FORM)
    assert page.url.path == path
    assert "<dd>&lt;script&gt;x</dd>" in page.text
    assert "The note is written." in page.text
    page = actor.post(f"{api}/tags", data={"text": "paper"}, headers=FORM)
    assert '<span class="tag">paper</span>' in page.text
    assert "The tag is written." in page.text
    assert 'class="done"' not in actor.get(f"{path}?done=<b>").text


def test_a_running_study_can_be_stopped(actor: TestClient, db: str) -> None:
    assert "/stop" not in actor.get("/s/fine").text
    summary = open_archive(db).study("fine")
    store = open_store(db)
    record = record_of(stored_study(summary, tell=lambda text: None))
    store.open(record, this_process(), lease_s=60, allow_changed=True)
    try:
        page = actor.get("/s/fine").text
        assert "<details" in page.partition("/stop")[0]  # which asks again before it is sent
        stopped = actor.post("/api/v1/studies/fine/stop", data={"now": "true"}, headers=FORM)
        assert "It was asked to stop" in stopped.text
        assert [(one.verb, dict(one.payload)) for one in store.renew(0.0)] == [("stop", {"now": True})]
        actor.cookies.clear()
        page = actor.get("/s/fine").text
        assert 'method="post"' not in page
        assert f'data-copy="hpsearch stop fine --db {db}"' in page
        late = actor.post("/api/v1/studies/fine/stop", data={"now": "true"}, headers=FORM)
        assert (late.status_code, "this needs a login" in late.text) == (401, True)
        assert late.headers["content-type"].startswith("text/html")
    finally:
        store.close("complete")
