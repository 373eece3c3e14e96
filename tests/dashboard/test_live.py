"""A stream says what has changed, once for whoever missed it, and nothing where nothing has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.dashboard import live
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.problem import Problem
from hpsearch.dashboard.record import Record


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A study of two trials."""
    (tmp_path / "train.py").write_text("def train(run):\n    return run['x']\n")
    db = f"sqlite:///{tmp_path}/r.db"
    study = hp.define(
        name="s",
        objective=f"{tmp_path}/train.py:train",
        search_space={"x": {"uniform": [0, 1]}},
        metric={"loss": "minimize"},
        strategy="random",
        n_trials=2,
    )
    hp.run(study, db=db, on="inline")
    return Record(db)


def turn(record: Record) -> None:
    """As a coordinator's turn does."""
    with sqlite3.connect(record.url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE study SET rev = rev + 1")
    connection.close()


async def first(watch: live.Watch, known: str, seconds: float = 0.4) -> tuple[str, dict[str, str]] | None:
    """The first event of a new stream; None where there is none within the time."""
    stream = watch.changes(["s"], known)
    try:
        return await asyncio.wait_for(anext(stream), seconds)
    except TimeoutError:
        return None
    finally:
        await stream.aclose()


def test_who_comes_back_has_missed_nothing(record: Record) -> None:
    async def story() -> None:
        watch = live.Watch(record)
        told = await first(watch, "")
        assert told is not None
        assert await first(watch, told[0]) is None
        turn(record)
        again = await first(live.Watch(record), told[0])  # a server that was started again
        assert again is not None
        assert again[1] != told[1]

    asyncio.run(story())


def test_all_streams_hear_of_a_change_from_one_look(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.05)
    looks = 0
    read = record.revisions

    class Counting:
        def revisions(self) -> dict[str, str]:
            nonlocal looks
            looks += 1
            return read()

    async def story() -> None:
        watch = live.Watch(Counting())  # type: ignore[arg-type]
        known = live.digest(live.chosen(await watch.look(), ["s"]))
        waiting = [asyncio.create_task(first(watch, known, 10)) for _ in range(10)]
        await asyncio.sleep(0.3)
        before = looks
        turn(record)
        told = await asyncio.gather(*waiting)
        assert len({name for name, _ in told}) == 1
        assert looks - before < 10
        await asyncio.sleep(0.2)
        after = looks
        await asyncio.sleep(0.3)
        assert looks == after  # nobody waits, nobody looks

    asyncio.run(story())


def test_whatever_goes_wrong_once_the_streams_go_on(
    record: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.05)
    read = record.revisions
    wrong = False

    class Failing:
        def revisions(self) -> dict[str, str]:
            if wrong:
                raise RuntimeError("password=hunter2 was not taken")
            return read()

    async def story() -> None:
        nonlocal wrong
        watch = live.Watch(Failing())  # type: ignore[arg-type]
        known = live.digest(live.chosen(await watch.look(), ["s"]))
        waiting = asyncio.create_task(first(watch, known, 10))
        wrong = True
        await asyncio.sleep(0.3)
        turn(record)
        wrong = False
        told = await waiting
        assert told is not None
        assert told[0] != known

    asyncio.run(story())
    said = [one.getMessage() for one in caplog.records if "RuntimeError" in one.getMessage()]
    assert len(said) == 1  # of several looks
    assert "hunter2" not in said[0]


def test_streams_are_counted_by_address_and_in_all(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAMS_OF_ONE", 2)
    monkeypatch.setattr(live, "STREAMS", 3)
    watch = live.Watch(record)
    with contextlib.ExitStack() as held:
        held.enter_context(watch.place("10.0.0.1"))
        held.enter_context(watch.place("10.0.0.1"))
        with pytest.raises(Problem, match="of this address, 2, are open") as refused, watch.place("10.0.0.1"):
            pass
        assert refused.value.details.status == 429
        with watch.place("10.0.0.2"), pytest.raises(Problem, match="of this server, 3,"), watch.place("10.0.0.3"):
            pass
        with watch.place("10.0.0.3"):
            pass
    with watch.place("10.0.0.1"):
        pass


def test_closing_ends_the_streams(record: Record) -> None:
    async def story() -> None:
        watch = live.Watch(record)
        known = live.digest(live.chosen(await watch.look(), ["s"]))

        async def all_of_it() -> list[str]:
            return [name async for name, _ in watch.changes(["s"], known)]

        task = asyncio.create_task(all_of_it())
        await asyncio.sleep(0.1)
        await watch.close()
        assert await asyncio.wait_for(task, 5) == []

    asyncio.run(story())


def test_polling_says_the_same(record: Record) -> None:
    from fastapi.testclient import TestClient

    with TestClient(make_app(record, Access()), base_url="http://127.0.0.1:8787") as client:
        told = client.get("/api/v1/changes?study=s").json()
        assert client.get(f"/api/v1/changes?study=s&since={told['id']}").status_code == 204
        turn(record)
        again = client.get(f"/api/v1/changes?study=s&since={told['id']}")
        assert again.status_code == 200
        assert again.json()["revisions"] != told["revisions"]
        assert client.get("/api/v1/changes").status_code == 422
        everything = client.get("/api/v1/changes?study=*&study=gone").json()["revisions"]
        assert everything["gone"] == ""
        assert json.dumps(everything[live.ALL])
