"""The record in memory: read once, bounded, never another study's."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from benchmarks.dashboard_record import STUDY, fill
from hpsearch.dashboard import record as room
from hpsearch.dashboard.record import Record
from hpsearch.errors import NotFoundError
from hpsearch.mirror import Mirror
from hpsearch.stores.sql import open_store


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path}/record.db"
    fill(made, 12, 1, 1)
    return made


def test_threads_that_ask_at_once_read_once(url, monkeypatch) -> None:
    calls = []
    refresh = Mirror.refresh

    def counted(mirror):
        calls.append(1)
        return refresh(mirror)

    monkeypatch.setattr(Mirror, "refresh", counted)
    record, found = Record(url), []
    threads = [threading.Thread(target=lambda: found.append(record.view(STUDY))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len({id(view) for view in found}) == 1
    first = len(calls)
    assert record.view(STUDY) is found[0]
    assert len(calls) == first


def test_what_is_kept_of_a_study_is_bounded(url, monkeypatch) -> None:
    monkeypatch.setattr(room, "THINGS", 8)
    monkeypatch.setattr(room, "BYTES", 3000)
    view = Record(url).view(STUDY)
    for k in range(50):
        assert view.once(k, lambda k=k: k) == k
        assert view.once("asked again", lambda: "first") == "first"
    assert len(view._made) == 8
    made = []
    for _ in range(2):
        for k in range(6):
            view.once(("bytes", k), lambda k=k: made.append(k) or bytes(1000))
    assert made == [*range(6), *range(6)]
    assert sum(isinstance(one.result(), bytes) for one in view._made.values()) == 3
    with pytest.raises(ZeroDivisionError):
        view.once("wrong", lambda: 1 / 0)
    assert view.once("wrong", lambda: 1) == 1


def test_a_study_deleted_and_run_again_is_another_one(url) -> None:
    record = Record(url)
    old = record.view(STUDY)
    before = record.revisions()
    open_store(url).delete(STUDY)
    with pytest.raises(NotFoundError, match=STUDY):
        record.view(STUDY)
    fill(url, 12, 1, 1)
    assert record.view(STUDY).revision != old.revision
    assert record.revisions() != before


def test_few_studies_are_kept(url, monkeypatch) -> None:
    monkeypatch.setattr(room, "KEPT_TRIALS", 30)
    for name in ("b", "c"):
        fill(url, 12, 1, 1, name)
    record = Record(url)
    first = record.view(STUDY)
    assert record.view("b").name == "b"
    assert record.view(STUDY) is first
    record.view("c")
    assert list(record._kept) == [STUDY, "c"]
