"""Connections to PostgreSQL that are cut at each COMMIT: before the server hears it, and before we hear the server."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from hpsearch.errors import StoreError
from hpsearch.store import Claim, Command, Turn, this_process
from hpsearch.stores.sql import check, open_archive, open_audit, open_store
from hpsearch.strategy import Decision
from hpsearch.trial import EpochReport, Lost, RunKey
from hpsearch.verify import verify
from tests.conformance.stores import ENVIRONMENT, RECORD, done, score, trial
from tests.faults.proxy import Proxy

KEY, OTHER = RunKey(0, 0), RunKey(1, 0)
STUDY = replace(RECORD, spec={**RECORD.spec, "seeds": [0]})


def session(url: str) -> list[object]:
    """Everything that a coordinator and a door can ask for; what they were told."""
    store, door = open_store(url, patience_s=lambda: 20.0), open_store(url)
    told: list[object] = [store.open(STUDY, this_process(), lease_s=60.0).existed]
    claims = [Claim(run=key, attempt=1) for key in (KEY, OTHER)]
    store.write(Turn(trials=[trial(0, (0,)), trial(1, (0,))], claims=claims, seconds=1.0))
    told.append(door.send("digits", Command(verb="note", payload={"address": "digits/0", "text": "odd"})))
    told.append(door.send("digits", Command(verb="stop")))
    told.append(store.renew(0.5))
    epochs = [EpochReport(run=KEY, attempt=1, epoch=e, metrics={"loss": 1.0 / (e + 1), "acc": 0.5}) for e in range(3)]
    lost = [Lost(run=OTHER, attempt=1, cause="signal:9")]
    decision = Decision(kind="zoom", subject="lr", reason="r")
    store.write(
        Turn(
            epochs=epochs,
            losses=lost,
            decisions=[decision],
            finished=[done(KEY, environment=ENVIRONMENT, last_epoch=2)],
            scores=[score(0)],
            claims=[Claim(run=OTHER, attempt=2)],
            fenced=1,
            seconds=2.0,
        )
    )
    store.write(Turn(finished=[done(OTHER, 0.25, attempt=2)], scores=[score(1, 0.25)], seconds=4.0))
    store.close("complete")
    return told


def record(url: str) -> list[object]:
    """All that is in the record, without what a clock has said."""
    archive = open_archive(url)
    summary = archive.study("digits")
    assert check(url)[0] == []
    verdict = verify(open_audit(url).facts("digits"), None, environment=lambda: ENVIRONMENT)
    assert (verdict.breaches, verdict.runs, verdict.attempts) == ([], 2, 3)
    return [
        (summary.state, summary.seconds, summary.fenced, summary.rev, summary.notes, summary.best, summary.counts),
        [
            (t.number, t.state, t.value, [(r.key, r.state, r.value, r.attempt) for r in t.runs])
            for t in archive.trials("digits")
        ],
        archive.curves("digits", [0, 1]),
        archive.decisions("digits"),
    ]


@pytest.fixture
def calm(postgres_server, postgres):
    """What an uninterrupted session is told, what it leaves, and how many COMMITs it takes."""
    open_store(postgres)
    with Proxy(postgres_server.port, {}) as proxy:
        told = session(postgres_server.url(postgres.rpartition("/")[2], proxy.port))
    left = record(postgres)
    open_store(postgres).delete("digits")
    return told, left, proxy.commits


def test_no_turn_is_lost_or_doubled(postgres_server, postgres, calm):
    told, left, commits = calm
    assert commits == 8
    assert told == [False, True, True, [Command(verb="stop")]]
    for number in range(1, commits + 1):
        for where in ("before", "after"):
            with Proxy(postgres_server.port, {number: where}) as proxy:
                url = postgres_server.url(postgres.rpartition("/")[2], proxy.port)
                assert (session(url), proxy.cut) == (told, 1), (number, where)
            assert record(postgres) == left, (number, where)
            with Proxy(postgres_server.port, {1: where, 2: where}) as proxy:
                open_store(postgres_server.url(postgres.rpartition("/")[2], proxy.port)).delete("digits")
            assert open_archive(postgres).studies() == []


def test_a_cut_that_comes_again_is_outlasted(postgres_server, postgres, calm):
    told, left, _ = calm
    with Proxy(postgres_server.port, dict.fromkeys(range(1, 40, 2), "after")) as proxy:
        assert session(postgres_server.url(postgres.rpartition("/")[2], proxy.port)) == told
        assert proxy.cut > 5
    assert record(postgres) == left


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_is_waited_for(postgres_server, postgres, mode):
    words: list[str] = []
    store = open_store(postgres, patience_s=lambda: 60.0, tell=words.append)
    store.open(RECORD, this_process(), lease_s=60.0)
    store.write(Turn(trials=[trial(0)], seconds=1.0))
    postgres_server.restart(mode)
    store.write(Turn(trials=[trial(1)], seconds=1.0))
    postgres_server.stop(mode)
    late = postgres_server.start_later(4.0)  # a try comes between its first second, when it is told, and its end
    store.write(Turn(trials=[trial(2)], seconds=1.0))
    late.join()
    store.close("stopped")
    summary = open_archive(postgres).study("digits")
    assert (summary.rev, summary.seconds) == (3, 3.0)
    assert [one.number for one in open_archive(postgres).trials("digits")] == [0, 1, 2]
    assert "trying again for up to 60 s" in words[0]
    assert "the database is back after" in words[1]
    assert "pass" not in repr(words)


def test_patience_ends_and_the_study_can_be_resumed(postgres_server, postgres):
    store = open_store(postgres, patience_s=lambda: 1.0)
    store.open(RECORD, this_process(), lease_s=60.0)
    store.write(Turn(trials=[trial(0)]))
    postgres_server.stop()
    turn = Turn(trials=[trial(1)])
    start = time.monotonic()
    with pytest.raises(StoreError, match="no server answers there") as caught:
        store.write(turn)
    assert 1.0 <= time.monotonic() - start < 20.0
    assert "run the same command again" in caught.value.hint
    assert "pass" not in str(caught.value)
    postgres_server.start()
    store.write(turn)
    assert open_archive(postgres).study("digits").rev == 2
    store.close("stopped")
