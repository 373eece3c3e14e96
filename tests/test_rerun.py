"""``hpsearch.rerun`` with real worker processes: what is the same to the bit, and what is found where it is not."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpsearch as hp
from hpsearch.attempt import workload_of
from hpsearch.errors import ObjectiveError, StudyChangedError, UsageError
from hpsearch.executor import Assignment
from hpsearch.objective import source_hash
from hpsearch.read import study_of
from hpsearch.rerun import Comparison, Sameness, compare, rerun, stored_runs
from hpsearch.space import Params
from hpsearch.store import Claim, Score, StudyRecord, Turn, this_process
from hpsearch.stores.sql import open_archive, open_store
from hpsearch.study import fingerprint, spec_of
from hpsearch.trial import EpochReport, Finished, Report, Run, RunKey, State, Trial

#: like the digits but smaller, with data that a test can change
TASK = """
import numpy as np, torch
from torch import nn
import hpsearch as hp

class Net(hp.TrainingTask):
    epochs, batch_size = 4, 32

    def model(self, params):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(16, 3))

    def data(self):
        inputs = torch.from_numpy(np.load(self.study_dir / "inputs.npy"))
        return hp.Data(inputs=inputs, targets=inputs[:, :3].argmax(1))
"""
NET = """
name: net
objective: net.py:Net
metric: {val_loss: minimize}
search_space: {lr: [0.1, 1e30], dropout: 0.3}
strategy: grid
seeds: 2
baseline: false
"""
FUNCTION = """
import os, random, signal, time
import numpy as np, torch
import hpsearch as hp

def train(run):
    began, kind, again = time.time(), run["kind"], (run.study_dir / "again").exists()
    for epoch in range(4):
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        if kind == "unseeded" and epoch:
            noise += int.from_bytes(os.urandom(2), "big") / 1e4
        if kind == "pruned" and epoch == 2:
            (run.study_dir / "epoch-2").touch()
            raise hp.Pruned
        if kind != "quiet":
            run.report(epoch, loss=noise, test_loss=time.time(), nothing=float("nan"))
    if kind == "killed" and again:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "failed" or (kind == "broken" and again):
        raise FileNotFoundError("no images here")
    with open(run.study_dir / "times.txt", "a") as file:
        file.write(f"{os.getpid()} {began} {time.time()}\\n")
    if kind == "diverged":
        return float("nan")
    return {"loss": noise, "extra": noise / 3, "lost": float("inf"), "test_extra": time.time()}
"""
KINDS = ["plain", "quiet", "unseeded", "pruned", "diverged", "killed", "broken", "failed"]
FN = f"""
name: fn
objective: fn.py:train
metric: {{loss: minimize}}
search_space: {{kind: [{", ".join(KINDS)}], x: 1}}
strategy: grid
baseline: false
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both studies in its database."""
    folder = tmp_path_factory.mktemp("ran")
    for name, text in [("net.py", TASK), ("net.yaml", NET), ("fn.py", FUNCTION), ("fn.yaml", FN)]:
        (folder / name).write_text(text)
    np.save(folder / "inputs.npy", np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32))
    for name in ("net", "fn"):
        study = hp.read_study(folder / f"{name}.yaml")
        hp.run(study, db=f"sqlite:///{folder}/r.db", workers=1, device="cpu", fuse="off")
    (folder / "epoch-2").unlink()
    return folder


@pytest.fixture
def folder(ran: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    shutil.copytree(ran, tmp_path / "work")
    return tmp_path / "work"


def repeat(folder: Path, study: str, keys: Sequence[RunKey], **options: Any) -> dict[RunKey, Comparison]:
    archive = open_archive(f"sqlite:///{folder}/r.db")
    stored, summary = stored_runs(archive, study, keys), archive.study(study)
    told: list[Comparison] = []
    options = {"code_hash": summary.code_hash, "workers": 2, "on_done": told.append} | options
    done = rerun(study_of(summary.spec, folder), stored, **options)
    assert [each.run for each in done] == [each.run.key for each in stored]
    assert sorted(each.run for each in told) == sorted(each.run for each in done)
    return {each.run: each for each in done}


def sql(folder: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(folder / "r.db") as connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


def tamper(folder: Path, study: str, key: RunKey, epoch: int, name: str, by: str) -> None:
    where = "study = (SELECT id FROM study WHERE name = ?) AND trial = ? AND seed = ? AND epoch = ? AND name = ?"
    sql(folder, f"UPDATE metric SET value = value {by} WHERE {where}", study, key.trial, key.seed, epoch, name)


@pytest.fixture
def of_kind(folder: Path) -> Mapping[str, RunKey]:
    """The run of the function of each kind."""
    trials = open_archive(f"sqlite:///{folder}/r.db").trials("fn")
    return {str(trial.params["kind"]): RunKey(trial.number, 0) for trial in trials}


GOOD, SECOND, WILD = RunKey(0, 0), RunKey(0, 1), RunKey(1, 0)


def test_a_task_gives_the_same_bits_also_where_it_diverges_and_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    done = repeat(folder, "net", [GOOD, SECOND, GOOD, WILD])
    assert list(done) == [GOOD, SECOND, WILD]
    assert {each.sameness for each in done.values()} == {Sameness.BIT_EQUAL}
    assert [each.epochs for each in done.values()][:2] == [4, 4]
    assert {each.difference for each in done.values()} == {None}
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert after == before
    assert list((tmp_path / "temporary").glob("hpsearch-*")) == []  # torch leaves a cache of its own


def test_a_changed_number_is_found_at_its_epoch(folder: Path) -> None:
    tamper(folder, "net", GOOD, 2, "val_loss", "* 1.01")
    tamper(folder, "net", GOOD, 3, "train_loss", "* 3")
    tamper(folder, "net", SECOND, 1, "val_loss", "* (1 + 3e-7)")
    tamper(folder, "net", SECOND, 2, "train_loss", "* (1 + 2e-7)")
    done = repeat(folder, "net", [GOOD, SECOND])
    worse, close = done[GOOD], done[SECOND]
    assert worse.sameness is Sameness.DIFFERS
    assert worse.difference is not None
    assert (worse.difference.epoch, worse.difference.metric) == (2, "val_loss")
    assert worse.difference.stored == pytest.approx(1.01 * worse.difference.now, rel=1e-12)
    assert close.sameness is Sameness.CLOSE
    assert close.difference is not None
    assert (close.difference.epoch, close.difference.metric) == (1, "val_loss")
    assert close.difference.relative == pytest.approx(3e-7, rel=1e-3)
    assert repeat(folder, "net", [SECOND], tolerance=2e-7)[SECOND].sameness is Sameness.DIFFERS


def test_an_example_on_the_other_side_is_no_difference_and_six_are(folder: Path) -> None:
    tamper(folder, "net", GOOD, 0, "val_accuracy", "+ 0.5 / 60")
    tamper(folder, "net", SECOND, 3, "val_accuracy", "- 6.0 / 60")
    done = repeat(folder, "net", [GOOD, SECOND])
    assert done[GOOD].sameness is Sameness.CLOSE
    assert done[SECOND].sameness is Sameness.DIFFERS
    assert done[SECOND].difference is not None
    assert (done[SECOND].difference.epoch, done[SECOND].difference.metric) == (3, "val_accuracy")


def test_another_data_set_differs_from_the_first_epoch_on(folder: Path) -> None:
    inputs = np.load(folder / "inputs.npy")
    inputs[:, 0] *= 1.5
    np.save(folder / "inputs.npy", inputs)
    done = repeat(folder, "net", [GOOD])[GOOD]
    assert done.sameness is Sameness.DIFFERS
    assert done.difference is not None
    assert done.difference.epoch == 0
    (said,) = done.changed
    assert re.fullmatch("data [0-9a-f]{16} stored, [0-9a-f]{16} now", said)


def test_another_end_differs_and_says_how(folder: Path) -> None:
    with sqlite3.connect(folder / "r.db") as connection:
        (reason,) = connection.execute("SELECT reason FROM run WHERE trial = 1 AND seed = 0 AND study = 1").fetchone()
    connection.close()
    assert "at epoch" in reason
    sql(folder, "UPDATE run SET reason = 'nan loss at epoch 3', last_epoch = 3 WHERE trial = 1 AND reason = ?", reason)
    done = repeat(folder, "net", [WILD])[WILD]
    assert done.sameness is Sameness.DIFFERS
    assert done.ending == f"diverged then and now: nan loss at epoch 3 stored, {reason} now"
    sql(folder, "UPDATE run SET state = 'diverged', value = NULL, reason = 'inf result' WHERE trial = 0 AND seed = 0")
    done = repeat(folder, "net", [GOOD])[GOOD]
    assert (done.sameness, done.difference) == (Sameness.DIFFERS, None)
    assert done.ending == "diverged (inf result after epoch 3) stored, complete now"


def test_functions_of_every_kind(folder: Path, of_kind: Mapping[str, RunKey]) -> None:
    (folder / "again").touch()
    (folder / "times.txt").unlink()
    done = repeat(folder, "fn", [of_kind[kind] for kind in KINDS[:-1]], workers=1)
    same = {kind: done[of_kind[kind]].sameness for kind in KINDS[:-1]}
    assert same == {
        "plain": Sameness.BIT_EQUAL,
        "quiet": Sameness.BIT_EQUAL,
        "unseeded": Sameness.DIFFERS,
        "pruned": Sameness.BIT_EQUAL,
        "diverged": Sameness.BIT_EQUAL,
        "killed": Sameness.NOT_REPEATED,
        "broken": Sameness.NOT_REPEATED,
    }
    assert [done[of_kind[kind]].epochs for kind in ("plain", "quiet", "pruned")] == [4, 1, 2]
    assert not (folder / "epoch-2").exists()
    unseeded = done[of_kind["unseeded"]].difference
    assert unseeded is not None
    assert (unseeded.epoch, unseeded.metric) == (1, "loss")
    assert done[of_kind["killed"]].ending == "its worker is gone: signal:9"
    assert done[of_kind["broken"]].ending == "failed now: exception"
    assert "no images here" in done[of_kind["broken"]].error
    times = [line.split() for line in (folder / "times.txt").read_text().splitlines()]
    assert len(times) == len({pid for pid, _, _ in times}) == 4
    assert all(float(a[2]) <= float(b[1]) for a, b in pairwise(times))


def test_the_value_is_compared_also_where_there_is_no_curve(folder: Path, of_kind: Mapping[str, RunKey]) -> None:
    quiet = of_kind["quiet"]
    sql(folder, "UPDATE run SET value = value + 0.25, returned = '{}' WHERE trial = ? AND seed = 0", quiet.trial)
    sql(folder, "UPDATE run SET returned = '{\"extra\": 1.5}' WHERE study = 2 AND trial = ?", of_kind["plain"].trial)
    done = repeat(folder, "fn", [quiet, of_kind["plain"]])
    assert done[quiet].sameness is Sameness.DIFFERS
    assert done[of_kind["plain"]].difference is not None
    extra = done[of_kind["plain"]].difference
    assert (extra.epoch, extra.metric, extra.stored) == (3, "extra", 1.5)


def store(folder: Path, name: str, params: Params, epochs: Sequence[EpochReport], end: Finished) -> None:
    """A study like ``net`` whose record holds this one run."""
    url = f"sqlite:///{folder}/r.db"
    study = study_of({**open_archive(url).study("net").spec, "name": name}, folder)
    spec = spec_of(study)
    code_hash = source_hash(study.objective)
    writer = open_store(url)
    writer.open(
        StudyRecord(name=name, spec=spec, fingerprint=fingerprint(spec), code_hash=code_hash),
        this_process(),
        lease_s=60,
    )
    trial = Trial(number=0, params=params, runs=(Run(key=GOOD),))
    writer.write(Turn(trials=[trial], claims=[Claim(run=GOOD, attempt=1)]))
    score = Score(number=0, state=end.state, value=end.value, sd=None, tell_seq=1)
    writer.write(Turn(epochs=epochs, finished=[end], scores=[score]))
    writer.close("complete")


def test_a_run_that_the_record_has_pruned_is_trained_to_its_last_epoch_only(folder: Path) -> None:
    whole = stored_runs(open_archive(f"sqlite:///{folder}/r.db"), "net", [GOOD])[0]
    epochs = [
        EpochReport(run=GOOD, attempt=1, epoch=k, metrics={c.metric: c.values[k] for c in whole.curves})
        for k in range(2)
    ]
    value = epochs[1].metrics["val_loss"]
    end = Finished(run=GOOD, attempt=1, state=State.PRUNED, value=value, best_epoch=1, reason="rung 2")
    store(folder, "cut", whole.params, epochs, end)
    done = repeat(folder, "cut", [GOOD])[GOOD]
    assert (done.sameness, done.epochs, done.ending) == (Sameness.BIT_EQUAL, 2, "")
    tamper(folder, "cut", GOOD, 1, "val_loss", "* 2")
    done = repeat(folder, "cut", [GOOD])[GOOD]
    assert done.difference is not None
    assert (done.sameness, done.difference.epoch) == (Sameness.DIFFERS, 1)


def test_a_run_that_was_trained_in_a_group_is_repeated_alone(folder: Path, tmp_path: Path) -> None:
    from hpsearch.training.groups import Trainer

    study = study_of(open_archive(f"sqlite:///{folder}/r.db").study("net").spec, folder)
    settings = [{"lr": 0.02 * (k + 1), "dropout": 0.1 * k} for k in range(4)]
    group = [Assignment(run=RunKey(0, k), params=params, attempt=1) for k, params in enumerate(settings)]
    said: list[Report] = []
    Trainer("cpu").train(
        group,
        replace(workload_of(study, "cpu", tmp_path / "files"), lanes=4),
        send=said.extend,
        stopped=lambda run: False,
        more=list,
    )
    epochs = [report for report in said if isinstance(report, EpochReport) and report.run == GOOD]
    end = next(report for report in said if isinstance(report, Finished) and report.run == GOOD)
    store(folder, "fused", settings[0], epochs, end)
    done = repeat(folder, "fused", [GOOD])[GOOD]
    assert done.sameness is Sameness.BIT_EQUAL
    assert (done.engine, done.engine_now, done.bits_promised) == ("vmap, cpu, 4 lanes", "vmap, cpu, 1 lane", True)


def test_a_study_that_was_trained_in_groups_and_pruned_is_repeated_whole(folder: Path) -> None:
    (folder / "cut.yaml").write_text(
        "name: cut\nobjective: net.py:Net\nmetric: {val_loss: minimize}\nstrategy: random\nn_trials: 3\n"
        "search_space: {lr: {log: [1e-3, 0.3]}, dropout: 0.3}\nbaseline: false\n"
        "pruner: {successive_halving: {min_epochs: 2}}\n"
    )
    hp.run(hp.read_study(folder / "cut.yaml"), db=f"sqlite:///{folder}/r.db", workers=1, device="cpu")
    trials = open_archive(f"sqlite:///{folder}/r.db").trials("cut")
    assert sorted(str(trial.state) for trial in trials) == ["complete", "pruned", "pruned"]
    done = repeat(folder, "cut", [trial.runs[0].key for trial in trials])
    assert {each.sameness for each in done.values()} == {Sameness.BIT_EQUAL}
    assert sorted(each.epochs for each in done.values()) == [2, 2, 4]


def test_runs_without_a_result_are_refused_by_name(folder: Path, of_kind: Mapping[str, RunKey]) -> None:
    sql(folder, "UPDATE run SET state = 'queued', value = NULL WHERE study = 2 AND trial = ?", of_kind["plain"].trial)
    words = f"fn/{of_kind['plain']} has not ended (queued)\nfn/{of_kind['failed']} failed (exception)"
    with pytest.raises(UsageError, match=re.escape(words)):
        repeat(folder, "fn", [of_kind["plain"], of_kind["failed"], of_kind["quiet"]])


def test_changed_code_is_refused_unless_allowed(folder: Path) -> None:
    (folder / "net.py").write_text(TASK + "# changed\n")
    with pytest.raises(StudyChangedError, match="the training code of net has changed"):
        repeat(folder, "net", [GOOD])
    assert repeat(folder, "net", [GOOD], allow_changed_code=True)[GOOD].sameness is Sameness.BIT_EQUAL
    (folder / "net.py").write_text(TASK.replace("nn.ReLU()", "nn.Tanh()"))
    done = repeat(folder, "net", [GOOD], allow_changed_code=True)[GOOD]
    assert done.sameness is Sameness.DIFFERS
    assert [words.split()[:2] for words in done.changed] == [["training", "code"]]
    (folder / "net.py").unlink()
    with pytest.raises(ObjectiveError, match=r"there is no file .*net\.py"):
        repeat(folder, "net", [GOOD])


def test_what_has_changed_around_a_run_is_named(folder: Path) -> None:
    changed = json.dumps({"torch": "0.1", "machine": "abacus", "packages": {"numpy": "0.9", "torch": "0.1"}})
    sql(folder, "UPDATE environment SET facts = json_patch(facts, ?)", changed)
    tamper(folder, "net", GOOD, 0, "val_loss", "* 1.0000001")
    done = repeat(folder, "net", [GOOD, SECOND])
    assert done[SECOND].changed == []
    words = done[GOOD].changed
    assert words[0].startswith("torch 0.1 stored, ")
    assert words[1].startswith("machine abacus stored, ")
    assert any(text == f"numpy 0.9 stored, {np.__version__} now" for text in words)
    assert not done[GOOD].bits_promised


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
KEYS = st.tuples(st.integers(0, 5), st.sampled_from(["val_loss", "accuracy", "lr"]))
CURVES = st.dictionaries(KEYS, NUMBERS, max_size=12)


@given(CURVES, st.floats(0, 1))
def test_a_curve_is_bit_equal_to_itself(curve: dict[tuple[int | None, str], float], tolerance: float) -> None:
    assert compare(curve, dict(curve), tolerance) == (Sameness.BIT_EQUAL, None)


@given(CURVES, CURVES)
def test_the_first_epoch_beyond_the_tolerance_is_the_one_named(
    stored: dict[tuple[int | None, str], float], now: dict[tuple[int | None, str], float]
) -> None:
    def beyond(key: tuple[int | None, str], tolerance: float = 1e-3) -> bool:
        a, b = stored.get(key), now.get(key)
        if a is None or b is None:
            return True
        size = max(abs(a), abs(b))
        return abs(a - b) > (100 * tolerance * max(size, 1) if key[1] == "accuracy" else tolerance * max(size, 0.01))

    found, worst = compare(stored, now, 1e-3)
    epochs = sorted(epoch for epoch, name in stored.keys() | now.keys() if epoch is not None and beyond((epoch, name)))
    if epochs:
        assert worst is not None
        assert (found, worst.epoch) == (Sameness.DIFFERS, epochs[0])
    else:
        assert found is (Sameness.BIT_EQUAL if stored == now else Sameness.CLOSE)
    assert compare(now, stored, 1e-3)[0] is found


def test_a_run_in_bfloat16_is_compared_with_a_tolerance_of_its_own(folder: Path) -> None:
    tamper(folder, "net", GOOD, 0, "val_loss", "* 1.005")
    assert repeat(folder, "net", [GOOD])[GOOD].sameness is Sameness.DIFFERS
    sql(folder, "UPDATE run SET engine = 'vmap + graph, cuda:0, 64 lanes, bfloat16'")
    assert repeat(folder, "net", [GOOD])[GOOD].sameness is Sameness.CLOSE
    assert repeat(folder, "net", [GOOD], tolerance=1e-3)[GOOD].sameness is Sameness.DIFFERS


@pytest.mark.parametrize(("tolerance", "allowed"), [(1e-4, 0.01), (1e-2, 0.1), (0.5, 0.5)])
def test_a_metric_that_counts_may_differ_by_a_tenth_at_most(tolerance: float, allowed: float) -> None:
    for part, found in [(0.99, Sameness.CLOSE), (1.01, Sameness.DIFFERS)]:
        assert compare({(0, "accuracy"): 0.9}, {(0, "accuracy"): 0.9 - part * allowed}, tolerance)[0] is found


def test_nothing_may_differ_at_tolerance_zero() -> None:
    a = {(0, "val_loss"): 0.1 + 0.2}
    assert compare(a, {(0, "val_loss"): 0.3}, 0.0)[0] is Sameness.DIFFERS
    assert compare(a, {(0, "val_loss"): 0.3}, 1e-15)[0] is Sameness.CLOSE
