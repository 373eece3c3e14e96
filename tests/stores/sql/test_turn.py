from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import event

import hpsearch as hp
from hpsearch.executor import Executor
from hpsearch.executors.local import LocalExecutor
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.search import search
from hpsearch.store import Claim, StudyRecord, Turn, this_process
from hpsearch.stores.sql import open_store
from hpsearch.study import fingerprint, spec_of
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


TASK = """
import torch
import hpsearch as hp

class Task(hp.TrainingTask):
    epochs = 6
    batch_size = 16

    def model(self, params):
        return torch.nn.Linear(4, 2)

    def data(self):
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        return hp.Data(inputs, (inputs[:, 0] > 0).long())
"""
LANES = 12


class Heard(Executor):
    """A worker process, and how many epochs each poll has told."""

    def __init__(self, workers: LocalExecutor, said: list[int]) -> None:
        self.workers, self.said = workers, said

    def capacity(self):
        return self.workers.capacity()

    def idle(self):
        return self.workers.idle()

    def start(self, assignments, workload):
        self.workers.start(assignments, workload)

    def poll(self, timeout_s):
        reports = self.workers.poll(timeout_s)
        self.said.append(sum(isinstance(report, EpochReport) for report in reports))
        return reports

    def stop(self, runs, *, now=False):
        self.workers.stop(runs, now=now)

    def close(self):
        self.workers.close()


class Never:
    level = 0


def test_what_a_poll_tells_of_all_lanes_is_one_transaction(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    study = hp.Study(
        name="s", objective=ObjectiveAddress("task.py", "Task", tmp_path), strategy=hp.Random(), metric="val_loss",
        search_space=hp.SearchSpace({"lr": hp.Float(1e-3, 1.0, log=True)}), n_trials=2 * LANES,
    )  # fmt: skip
    spec = spec_of(study)
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    #: epochs that each poll told; for each commit that wrote epochs how many polls there had been
    said: list[int] = []
    written: list[int] = []
    fresh: list[str] = []

    def note(connection, cursor, statement, *rest) -> None:
        if statement.startswith("INSERT INTO metric"):
            fresh.append(statement)

    def commit(connection) -> None:
        if fresh:
            written.append(len(said))
            fresh.clear()

    event.listen(store._engine, "before_cursor_execute", note)
    event.listen(store._engine, "commit", commit)
    with closing(Heard(LocalExecutor(1, device="cpu", lanes=LANES), said)) as executor:
        search(
            study,
            StudyRecord(name="s", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64),
            store=store,
            executor=executor,
            workload=Workload(
                study="s", objective=study.objective, metric="val_loss", direction="minimize", seed=0, device="cpu",
                lanes=LANES, files=tmp_path / "files",
            ),
            holder=this_process(),
            interrupt=Never(),
        )  # fmt: skip
    assert written == [number for number, epochs in enumerate(said, 1) if epochs]
    assert sum(said) == 2 * LANES * 6
    assert len(written) <= 2 * 6  # an epoch of all lanes is one poll at most
    runs = [run for trial in hp.load("s", f"sqlite:///{tmp_path}/a.db").trials for run in trial.runs]
    assert all("vmap" in run.engine and run.last_epoch == 5 for run in runs)
