"""``hp.run`` with real worker processes: budgets, code, determinism, and the record as Python reads it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import hpsearch as hp
from hpsearch.attempt import measure_s
from hpsearch.compare import param_differences, study_row, trial_row
from hpsearch.errors import NotFoundError, StoreError, StudyChangedError
from hpsearch.launch import attempt, lanes_of, measure
from hpsearch.plan import Measured, plan
from hpsearch.settings import database, files_folder
from hpsearch.trial import EpochReport, Finished, State

TRAIN = """
import time

def train(run):
    for epoch in range(3):
        time.sleep(0.02)
        loss = (run["lr"] - 0.03) ** 2 + run["dropout"] + 0.01 * run.seed
        run.report(epoch, loss=loss / (epoch + 1))
    return loss
"""


def make(folder: Path, **fields: object) -> hp.Study:
    if not (folder / "train.py").exists():
        (folder / "train.py").write_text(TRAIN)
    (folder / "s.yaml").write_text(
        "name: s\nobjective: train.py:train\nmetric: {loss: minimize}\nseeds: 2\nn_trials: 8\n"
        "search_space: {lr: {log: [1e-4, 1]}, dropout: {uniform: [0, 0.5]}}\n"
        "strategy: {coarse_to_fine: {trials_per_round: 4}}\n"
    )
    return hp.read_study(folder / "s.yaml", fields)


@pytest.fixture
def db(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/r.db"


def facts(db: str) -> list[tuple[object, ...]]:
    return [
        (t.number, dict(t.params), t.state, t.value, t.sd, [(r.key, r.value) for r in t.runs])
        for t in hp.load("s", db).trials
    ]


def test_one_worker_or_three_inline_or_not_gives_the_same_trials_and_values(tmp_path: Path, db: str) -> None:
    outcome = hp.run(make(tmp_path), db=db, workers=3)
    assert (outcome.state, outcome.exit_code) == ("complete", 0)
    for other, how in (("one", {"workers": 1}), ("inline", {"on": "inline"})):
        url = f"sqlite:///{tmp_path}/{other}.db"
        hp.run(make(tmp_path), db=url, **how)  # type: ignore[arg-type]
        assert facts(url) == facts(db)


def test_a_budget_grows_on_request_only_and_never_shrinks(tmp_path: Path, db: str) -> None:
    hp.run(make(tmp_path), db=db, on="inline")
    with pytest.raises(StudyChangedError, match="has n_trials: 8, this one 12"):
        hp.run(make(tmp_path, n_trials=12), db=db)
    with pytest.raises(StudyChangedError, match="n_trials: 8, this one 4"):
        hp.run(make(tmp_path, n_trials=4), db=db, extend=True)
    hp.run(make(tmp_path, n_trials=12), db=db, on="inline", extend=True)
    whole = f"sqlite:///{tmp_path}/whole.db"
    hp.run(make(tmp_path, n_trials=12), db=whole, on="inline")
    assert facts(db) == facts(whole)


def test_a_run_that_is_refused_or_has_nothing_to_do_leaves_no_worker(tmp_path: Path, db: str) -> None:
    """A first worker comes up before the record is read."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    study = make(tmp_path, n_trials=1)
    hp.run(study, db=db, workers=1)
    assert hp.run(study, db=db, workers=1).state == "complete"
    with pytest.raises(StudyChangedError, match="n_trials"):
        hp.run(make(tmp_path, n_trials=2), db=db, workers=1)
    with pytest.raises(StoreError):
        hp.run(study, db=f"sqlite:///{tmp_path}/none/r.db", workers=1)
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


def test_another_spec_or_other_code_is_refused_with_what_differs(tmp_path: Path, db: str) -> None:
    hp.run(make(tmp_path), db=db, on="inline")
    before = facts(db)
    with pytest.raises(StudyChangedError, match=r"seeds: \[0, 1\] -> \[0, 1, 2\]"):
        hp.run(make(tmp_path, seeds=3), db=db)
    (tmp_path / "train.py").write_text(TRAIN + "\n# changed\n")
    with pytest.raises(StudyChangedError, match="code"):
        hp.run(make(tmp_path), db=db)
    assert hp.run(make(tmp_path), db=db, allow_changed_code=True).state == "complete"
    assert facts(db) == before


@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)])
def test_a_signal_drains_and_the_same_call_goes_on(
    tmp_path: Path, db: str, number: int, code: int, workers: int
) -> None:
    fired = threading.Event()

    def observer(progress: object) -> None:
        counts = getattr(progress, "runs_done", 0)
        if counts and not fired.is_set():
            fired.set()
            os.kill(os.getpid(), number)

    outcome = hp.run(make(tmp_path), db=db, workers=workers, observer=observer, signals=True)
    assert (outcome.state, outcome.exit_code) == ("interrupted", code)
    states = {run.state for t in hp.load("s", db).trials for run in t.runs}
    assert State.RUNNING not in states
    assert State.QUEUED in states
    assert hp.run(make(tmp_path), db=db, workers=workers).exit_code == 0
    calm = f"sqlite:///{tmp_path}/calm.db"
    hp.run(make(tmp_path), db=calm, on="inline")
    assert facts(db) == facts(calm)


def test_results_frames_and_comparisons_say_what_was_recorded(tmp_path: Path, db: str) -> None:
    hp.run(make(tmp_path, baseline={"lr": 0.01, "dropout": 0.5}), db=db, on="inline")
    results = hp.load("s", db)
    frame = results.to_dataframe()
    assert list(frame.columns) == ["number", "state", "value", "sd", "n", "baseline", "batch", "lr", "dropout"]
    assert len(frame) == 9
    assert results.best is not None
    assert results.best.value == frame["value"].min()
    runs = results.runs_dataframe()
    assert sorted(runs["seed"].unique()) == [0, 1]
    assert (runs["last_epoch"] == 2).all()
    curves = results.curves_dataframe([0])
    assert len(curves) == 2 * 3
    assert curves.query("seed == 0 and epoch == 0")["value"].item() == pytest.approx(0.5004)
    row = study_row(results.study, results.trials)
    assert (row.trials, row.complete, row.failed, row.n_seeds) == (9, 9, 0, 2)
    assert row.baseline == pytest.approx(0.5004 + 0.005)
    assert row.best == results.best.trial
    assert trial_row("s", results.trials[0]).values == pytest.approx({0: 0.5004, 1: 0.5104})
    differ = param_differences(results.trials[:2])
    assert [d.name for d in differ] == ["lr", "dropout"]
    assert [run.environment.python != "" for run in results.trials[0].runs if run.environment] == [True, True]


def test_a_plan_counts_and_a_measured_run_gives_the_time(tmp_path: Path) -> None:
    study = make(tmp_path, baseline={"lr": 0.01, "dropout": 0.5})
    planned = plan(study, show=3)
    assert (planned.trials, planned.runs, len(planned.first)) == (9, 18, 3)
    measured = measure(study, device="cpu")
    assert measured is not None
    assert measured.run_s is not None or measured.epoch_s is not None
    known = Measured(first_s=2.0, epoch_s=0.5, epochs=4, run_s=None)
    assert planned.seconds(known, workers=2) == 2.0 + 2.0 * 9
    assert planned.seconds(Measured(first_s=2.0, epoch_s=0.5, epochs=None, run_s=None), workers=2) is None


TASK = """
import torch
from torch import nn
import hpsearch as hp

class Task(hp.TrainingTask):
    epochs = 4
    batch_size = 20

    def model(self, params):
        return nn.Linear(4, 2)

    def data(self):
        inputs = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        return hp.Data(inputs, (inputs[:, 0] > 0).long())

class Narrow(Task):
    \"\"\"On a device that has room for six lanes, of which one is always there to pad.\"\"\"

    def loss(self, output, target):
        whole = output
        while torch._C._functorch.is_functorch_wrapped_tensor(whole):
            whole = torch._C._functorch.get_unwrapped(whole)
        if whole.numel() > 6 * output.numel():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(output, target)
"""


def make_task(folder: Path, name: str = "Task", **fields: object) -> hp.Study:
    (folder / "train.py").write_text(TASK)
    lr: dict[str, object] = {"lr": {"log": [1e-3, 1]}}
    changes = {"objective": f"train.py:{name}", "metric": {"val_loss": "minimize"}, "search_space": lr}
    return make(folder, **changes | {"strategy": "random", "baseline": False} | fields)


def test_the_first_runs_of_all_workers_are_measured_as_run_deals_them_out(tmp_path: Path) -> None:
    space = {"lr": {"log": [1e-3, 1]}, "batch_size": [4, 8, 16]}
    study = make_task(tmp_path, search_space=space, seeds=1, n_trials=12)
    measured = measure(study, device="cpu", workers=2)
    assert measured is not None
    assert (measured.runs, measured.workers, measured.failed, measured.unseen) == (12, 2, 0, 0)
    assert sorted(run.trial for group in measured.groups for run in group.said.runs) == list(range(12))
    run_s = [(group.epoch_s or 0.0) / group.said.lanes for group in measured.groups]
    sizes = [len(group.said.runs) for group in measured.groups]
    assert measured.epoch_s == pytest.approx(sum(s * n for s, n in zip(run_s, sizes, strict=True)) / 12)
    totals = [
        sum(s * n for s, n, group in zip(run_s, sizes, measured.groups, strict=True) if group.worker == worker)
        for worker in (0, 1)
    ]
    assert measured.slowest_s == pytest.approx(max(totals))
    hp.run(study, db=f"sqlite:///{tmp_path}/r.db", workers=2, device="cpu")
    dealt: dict[str, set[int]] = {}
    for trial in hp.load("s", f"sqlite:///{tmp_path}/r.db").trials:
        dealt.setdefault(trial.runs[0].worker, set()).add(trial.number)
    tried = [
        {run.trial for group in measured.groups for run in group.said.runs if group.worker == worker}
        for worker in (0, 1)
    ]
    assert sorted(dealt.values(), key=min) == sorted(tried, key=min)


@pytest.mark.parametrize("changes", [{"fuse": "off"}, {"fuse": 1}])
def test_with_one_lane_one_run_is_measured_alone(tmp_path: Path, changes: dict[str, int | str]) -> None:
    measured = measure(make_task(tmp_path), device="cpu", **changes)  # type: ignore[arg-type]
    assert measured is not None
    assert (measured.runs, measured.lanes, measured.groups, measured.epochs) == (1, 1, (), 4)


def test_too_little_memory_is_the_reason_for_fewer_lanes(tmp_path: Path) -> None:
    measured = measure(make_task(tmp_path, "Narrow", seeds=1), device="cpu", workers=1)
    assert measured is not None
    (group,) = measured.groups
    assert (group.said.lanes, len(group.said.runs), group.full) == (4, 8, False)
    assert group.said.reason == "out of memory with 8 lanes"


def test_an_attempt_by_hand_is_recorded_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reports: list[EpochReport] = []
    done = attempt(make(tmp_path), {"lr": 0.03, "dropout": 0.25}, device="cpu", on_report=reports.append)
    assert isinstance(done, Finished)
    assert (done.state, done.value, [r.epoch for r in reports]) == (State.COMPLETE, 0.25, [0, 1, 2])
    with pytest.raises(hp.StudyError, match="learning_rate: is no hyperparameter"):
        attempt(make(tmp_path), {"learning_rate": 1.0})
    assert {p.name for p in tmp_path.iterdir()} - {"__pycache__"} == {"s.yaml", "train.py"}


GOES_ON = """
def train(run):
    saved = run.checkpoint_dir / "epoch"
    start = int(saved.read_text()) if saved.exists() else 0
    for epoch in range(start, 3):
        saved.write_text(str(epoch + 1))
        run.report(epoch, loss=1.0)
    return float(start)
"""


def test_a_new_study_does_not_go_on_from_the_files_of_another(tmp_path: Path, db: str) -> None:
    """Of a deleted one of its name, of one in another database, of another one with the same ``files``."""
    from hpsearch.stores.sql import open_store

    (tmp_path / "train.py").write_text(GOES_ON)
    files, study = tmp_path / "files", make(tmp_path, seeds=1, n_trials=4)
    hp.run(study, db=db, on="inline", files=files)
    open_store(db).delete("s")
    hp.run(study, db=db, on="inline", files=files)
    hp.run(study, db=f"{db}.db", on="inline", files=files)
    hp.run(replace(study, name="t"), db=db, on="inline", files=files)
    for name, url in (("s", db), ("s", f"{db}.db"), ("t", db)):
        assert {trial.value for trial in hp.load(name, url).trials} == {0.0}
    assert {folder.name for folder in files.iterdir()} == {"s", "t"}


def test_nor_does_a_paused_task(tmp_path: Path, db: str) -> None:
    shutil.copy(Path(__file__).parent / "objectives/tasks.py", tmp_path)
    (tmp_path / "p.yaml").write_text(
        "name: p\nobjective: tasks.py:Line\nmetric: {val_loss: minimize}\nn_trials: 4\nstrategy: random\n"
        "search_space: {lr: {log: [1e-3, 1]}}\npruner: successive_halving\n"
    )
    study = hp.read_study(tmp_path / "p.yaml")
    (tmp_path / "calm").mkdir()
    calm = f"sqlite:///{tmp_path}/calm/r.db"
    hp.run(study, db=calm, on="inline")
    for trial in range(4):
        foreign = tmp_path / f"hpsearch-files/p/{trial}/0/checkpoint/hpsearch.pt"
        foreign.parent.mkdir(parents=True)
        foreign.write_text("of another study")
    hp.run(study, db=db, on="inline")
    expected, found = ([(t.state, t.value) for t in hp.load("p", url).trials] for url in (calm, db))
    assert found == expected


def test_where_the_record_is_when_nobody_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HPSEARCH_DB", raising=False)
    monkeypatch.chdir(tmp_path)
    assert database() == "sqlite:///hpsearch.db"
    with pytest.raises(NotFoundError):
        hp.load("s")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("HPSEARCH_DB", "sqlite:////data/r.db")
    assert database() == "sqlite:////data/r.db"
    assert database("sqlite:///x.db") == "sqlite:///x.db"
    assert files_folder("sqlite:////data/r.db", "s") == Path("/data/hpsearch-files/s")
    monkeypatch.setenv("HPSEARCH_FILES", "/shared")
    assert files_folder("sqlite:////data/r.db", "s") == Path("/shared/s")


@pytest.mark.parametrize(
    ("objective", "fuse", "device", "lanes"),
    [
        ("task.py:Task", "auto", "cpu", (64, False)),
        ("task.py:Task", "auto", "auto", (64, False)),
        ("task.py:Task", "auto", "cuda:1", (256, False)),
        ("task.py:Task", "off", "cuda", (1, False)),
        ("task.py:Task", 7, "cpu", (7, True)),
        ("train.py:train", "auto", "cuda", (1, False)),
        ("train.py:train", 7, "cpu", (1, False)),
        ("task.py:made", "auto", "cpu", (1, False)),
        ("task.py:made", 7, "cpu", (7, True)),
    ],
)
def test_how_many_lanes(
    tmp_path: Path, monkeypatch, objective: str, fuse: int | str, device: str, lanes: object
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "task.py").write_text("class Task: ...\nmade = Task\n")
    study = make(tmp_path, objective=objective)
    assert lanes_of(study, fuse, device) == lanes
    assert lanes_of(replace(study, isolate=True), fuse, device) == (1, False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert lanes_of(replace(study, isolate=False), "auto", "auto") == lanes_of(study, "auto", "cuda")


def test_runs_on_a_gpu_are_watched_for_longer_since_they_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [measure_s(device) for device in ("cpu", "auto", "cuda", "cuda:1")] == [20.0, 20.0, 90.0, 90.0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert (measure_s("auto"), measure_s("cpu")) == (90.0, 20.0)


@pytest.mark.parametrize("fuse", [0, -3, True, 1.5, "four", None])
def test_what_is_no_number_of_lanes(tmp_path: Path, fuse: object) -> None:
    with pytest.raises(hp.StudyError, match="no number of runs"):
        hp.run(make(tmp_path), db=f"sqlite:///{tmp_path}/x.db", fuse=fuse)  # type: ignore[arg-type]
