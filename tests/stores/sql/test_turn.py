from __future__ import annotations

import pytest
from sqlalchemy import event

from hpsearch.store import Claim, Turn, this_process
from hpsearch.stores.sql import open_store
from hpsearch.trial import EpochReport, RunKey
from tests.conformance.stores import ENVIRONMENT, RECORD, done, score, trial


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    store.open(RECORD, this_process(), lease_s=60.0)
    first = [trial(number, (0,)) for number in range(8)]
    store.write(Turn(trials=first, claims=[Claim(run=RunKey(0, 0), attempt=1)]))
    return store


def statements(store, turn: Turn) -> list[str]:
    """What the turn sends to the database."""
    seen: list[str] = []
    engine = store._engine

    def note(connection, cursor, statement, *rest) -> None:
        seen.append(" ".join(statement.split()[:3]))

    event.listen(engine, "before_cursor_execute", note)
    store.write(turn)
    event.remove(engine, "before_cursor_execute", note)
    return [statement for statement in seen if not statement.startswith("BEGIN")]


def test_a_trial_costs_five_statements(store):
    turn = Turn(finished=[done(RunKey(0, 0))], scores=[score(0)], claims=[Claim(run=RunKey(1, 0), attempt=1)])
    assert statements(store, turn) == [
        "UPDATE study SET", "UPDATE run SET", "UPDATE trial SET", "UPDATE run SET", "INSERT INTO attempt",
    ]  # fmt: skip


def test_metrics_cost_one_more_and_new_trials_two(store):
    key = RunKey(0, 0)
    epochs = [EpochReport(run=key, attempt=1, epoch=e, metrics={"loss": 1.0, "acc": 0.5}) for e in range(20)]
    turn = Turn(epochs=epochs, finished=[done(key)], scores=[score(0)], claims=[Claim(run=RunKey(1, 0), attempt=1)])
    assert len(statements(store, turn)) == 6
    assert statements(store, Turn(trials=[trial(number) for number in range(8, 100)])) == [
        "UPDATE study SET", "INSERT INTO trial", "INSERT INTO run",
    ]  # fmt: skip


def test_an_environment_is_written_once(store):
    for number, extra in [(0, 2), (1, 0), (2, 0)]:
        key = RunKey(number, 0)
        if number:
            store.write(Turn(claims=[Claim(run=key, attempt=1)]))
        turn = Turn(finished=[done(key, environment=ENVIRONMENT)], scores=[score(number)])
        assert len(statements(store, turn)) == 3 + extra


def test_a_turn_of_many_runs_costs_no_more_statements(store):
    claims = [Claim(run=RunKey(number, 0), attempt=1) for number in range(1, 8)]
    assert len(statements(store, Turn(claims=claims))) == 3
