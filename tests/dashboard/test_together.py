"""The dashboard beside others: on PostgreSQL, and beside a writer who must not wait for readers."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import httpx2
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch import actions
from hpsearch.dashboard import live
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from tests.dashboard.browser.conftest import served

PAGES = ["", "/trials", "/t/0", "/t/0/0", "/params", "/compare?a=0&b=1", "/diagnostics", "/workers", "/ship"]
ROUTES = ["", "/trials", "/trials/0", "/trials/0/curves", "/workers", "/losses", "/diagnostics", "/ship", "/decisions"]
READERS, SECONDS = 8, 3.0
#: a machine that is busy with other tests holds a process for a second now and then; readers would in every round
ROUNDS = 3


def searched(folder: Path, db: str) -> None:
    (folder / "train.py").write_text(
        "def train(run):\n    for epoch in range(5):\n        run.report(epoch, loss=run['x'] + 1 / (epoch + 1))\n"
        "    return run['x'] + run.seed / 1000\n"
    )
    study = hp.define(
        name="s", objective=f"{folder}/train.py:train", search_space={"x": {"uniform": [0, 1]}},
        metric={"loss": "minimize"}, strategy="random", n_trials=8, seeds=2,
    )  # fmt: skip
    hp.run(study, db=db, on="inline", files=folder / "files")


def test_postgresql_is_shown_as_sqlite_is(postgres: str, tmp_path: Path) -> None:
    lite = f"sqlite:///{tmp_path}/r.db"
    searched(tmp_path, lite)
    searched(tmp_path, postgres)
    here, there = (
        TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1:8787") for url in (postgres, lite)
    )
    with here, there:
        for path in ["/", *(f"/s/s{page}" for page in PAGES)]:
            assert here.get(path).status_code == 200, path
        for path in ("/trials?sort=number", "/trials/0/curves", "/rounds", "/compare?a=0&b=1", "/diagnostics"):
            told = [client.get(f"/api/v1/studies/s{path}").json() for client in (here, there)]
            for row in (row for one in told for row in one.get("trials", [])):
                row.pop("seconds")  # of training, by the clock
            assert told[0] == told[1], path


def test_an_event_comes_from_postgresql(postgres: str, tmp_path: Path) -> None:
    searched(tmp_path, postgres)

    async def story() -> tuple[str, str]:
        watch = live.Watch(Record(postgres))
        stream = watch.changes(["s"], "")
        _, before = await asyncio.wait_for(anext(stream), 10)
        following = asyncio.create_task(anext(stream))
        await asyncio.to_thread(actions.note, postgres, "s", "seen")
        _, after = await asyncio.wait_for(following, 10)
        await stream.aclose()
        return before["s"], after["s"]

    before, after = asyncio.run(story())
    assert before != after


def test_a_writer_beside_eight_readers_waits_for_none(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path}/r.db"
    searched(tmp_path, db)
    ends, answers, wrong = time.monotonic() + SECONDS, [0] * READERS, []

    def read(k: int, root: str) -> None:
        addresses = [*(f"/s/s{page}" for page in PAGES), *(f"/api/v1/studies/s{route}" for route in ROUTES)]
        with httpx2.Client(base_url=root, timeout=30) as client:
            while time.monotonic() < ends:
                answer = client.get(addresses[(k + answers[k]) % len(addresses)])
                answers[k] += 1
                if answer.status_code != 200:
                    wrong.append(f"{answer.url}: {answer.status_code} {answer.text[:200]}")

    took: list[float] = []
    with served(db) as server:
        for _ in range(ROUNDS):
            ends, before = time.monotonic() + SECONDS, len(took)
            threads = [threading.Thread(target=read, args=(k, server.root)) for k in range(READERS)]
            for thread in threads:
                thread.start()
            while time.monotonic() < ends:
                begun = time.monotonic()
                actions.note(db, f"s/{len(took) % 8}", f"note {len(took)}")
                took.append(time.monotonic() - begun)
            for thread in threads:
                thread.join()
            waits = sorted(took[before:])
            if waits[int(0.99 * len(waits))] < 1:
                break
        told = httpx2.get(f"{server.root}/api/v1/studies/s").json()
    assert wrong == []
    assert min(answers) > 0
    assert len(waits) > 5
    assert waits[int(0.99 * len(waits))] < 1
    assert [note["text"] for note in told["notes"]] == [f"note {k}" for k in range(len(took))]
