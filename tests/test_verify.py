"""A record that is spoiled in one way is named so, and a good one holds."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.audit import Facts, Verdict
from hpsearch.objective import source_hash
from hpsearch.stores.sql import open_audit
from hpsearch.trial import Environment, State
from hpsearch.verify import verify

TRAIN = """
import math

def train(run):
    if run["dropout"] > 0.42:
        return math.nan
    for epoch in range(9):
        value = (run["lr"] - 0.03) ** 2 + run["dropout"] / (epoch + 1) + 0.001 * run.seed
        run.report(epoch, loss=value)
    return value
"""
STUDY = """
name: s
objective: train.py:train
metric: {loss: minimize}
search_space: {lr: {log: [1e-4, 1]}, dropout: {uniform: [0, 0.5]}}
strategy: {coarse_to_fine: {trials_per_round: 6}}
pruner: {successive_halving: {max_epochs: 9}}
seeds: 2
n_trials: 18
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study, with pruned and diverged trials."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "train.py").write_text(TRAIN)
    (folder / "study.yaml").write_text(STUDY)
    hp.run(hp.read_study(folder / "study.yaml"), db=f"sqlite:///{folder}/r.db", on="inline")
    states = {trial.state for trial in hp.load("s", f"sqlite:///{folder}/r.db").trials}
    assert states == {State.COMPLETE, State.PRUNED, State.DIVERGED}
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    return tmp_path


def facts_of(folder: Path) -> Facts:
    return open_audit(f"sqlite:///{folder}/r.db").facts("s")


def check(folder: Path, facts: Facts | None = None, environment: Callable[[], Environment] | None = None) -> Verdict:
    study = hp.read_study(folder / "study.yaml")
    facts = facts or facts_of(folder)
    here = facts.trials[0].runs[0].environment
    assert here is not None
    return verify(facts, study, environment=environment or (lambda: here), code_hash=source_hash(study.objective))


def spoil(folder: Path, *statements: str) -> None:
    """What no statement of ours would do, with the database's own checks off."""
    with closing(sqlite3.connect(folder / "r.db")) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement
        connection.commit()


def test_a_good_record_holds(folder: Path) -> None:
    before = hashlib.sha256((folder / "r.db").read_bytes()).hexdigest()
    verdict = check(folder)
    assert (verdict.breaches, verdict.skipped) == ([], [])
    assert (verdict.trials, verdict.runs, verdict.suggestions) == (19, 38, 18)
    assert verdict.rulings >= 6
    assert open_audit(f"sqlite:///{folder}/r.db").damage() == ([], [])
    assert hashlib.sha256((folder / "r.db").read_bytes()).hexdigest() == before


COMPLETE = "(SELECT min(number) FROM trial WHERE state = 'complete' AND number > 6)"
PRUNED = "(SELECT min(number) FROM trial WHERE state = 'pruned')"
SPOILED = {
    "trial numbers": ["UPDATE trial SET number = 40 WHERE number = 18", "UPDATE run SET trial = 40 WHERE trial = 18",
                      "UPDATE attempt SET trial = 40 WHERE trial = 18",
                      "UPDATE metric SET trial = 40 WHERE trial = 18"],
    "number of trials": ["UPDATE study SET spec = json_set(spec, '$.n_trials', 17)"],
    "order of ended trials": ["UPDATE trial SET tell_seq = 99 WHERE number = 3"],
    "order of ended trials, counted": ["UPDATE study SET tell_seq = 3"],
    "order of ended trials, of a later batch": [
        "UPDATE trial SET tell_seq = -tell_seq WHERE number IN (3, 18)",
        "UPDATE trial SET tell_seq = (SELECT -tell_seq FROM trial WHERE number = 18) WHERE number = 3",
        "UPDATE trial SET tell_seq = 190 - (SELECT sum(tell_seq) FROM trial WHERE number <> 18) WHERE number = 18",
    ],
    "baseline": ["UPDATE trial SET params = json_set(params, '$.lr', 0.5) WHERE number = 0"],
    "baseline, one more": ["UPDATE trial SET baseline = 1 WHERE number = 5"],
    "runs": [f"DELETE FROM run WHERE trial = {COMPLETE} AND seed = 1"],
    "state": [f"UPDATE trial SET state = 'failed', value = NULL, sd = NULL WHERE number = {COMPLETE}"],
    "state, reopened": [f"UPDATE run SET state = 'paused', ended = NULL WHERE trial = {COMPLETE} AND seed = 0"],
    "value": [f"UPDATE trial SET value = value + 1e-9 WHERE number = {COMPLETE}"],
    "value, of a run": [f"UPDATE run SET value = NULL WHERE trial = {COMPLETE}"],
    "sd": [f"UPDATE trial SET sd = NULL WHERE number = {COMPLETE}"],
    "attempts": [f"UPDATE run SET attempt = 3 WHERE trial = {COMPLETE} AND seed = 0"],
    "attempts, two that count": [
        f"UPDATE run SET attempt = 2 WHERE trial = {COMPLETE} AND seed = 0",
        "INSERT INTO attempt (study, trial, seed, repeat, attempt, started, seconds, worker)"
        f" SELECT study, trial, seed, repeat, 2, started, 0, '' FROM attempt WHERE trial = {COMPLETE} AND seed = 0",
    ],
    "attempts, lost": [f"UPDATE attempt SET cause = 'signal:9', ended = 1 WHERE trial = {COMPLETE} AND seed = 0"],
    "attempts, none": [f"DELETE FROM attempt WHERE trial = {COMPLETE} AND seed = 0"],
    "budget": [
        *[f"INSERT INTO attempt (study, trial, seed, repeat, attempt, started, ended, cause, seconds, worker) SELECT"
          f" study, trial, seed, repeat, {k}, 0, 1, 'signal:9', 0, '' FROM attempt WHERE trial = {COMPLETE} AND"
          " seed = 0 AND attempt = 1" for k in range(2, 8)],
        f"UPDATE attempt SET cause = 'signal:9', ended = 1 WHERE trial = {COMPLETE} AND seed = 0",
        f"UPDATE attempt SET cause = NULL, ended = NULL WHERE trial = {COMPLETE} AND seed = 0 AND attempt = 7",
        f"UPDATE run SET attempt = 7 WHERE trial = {COMPLETE} AND seed = 0",
        f"UPDATE metric SET attempt = 7 WHERE trial = {COMPLETE} AND seed = 0",
    ],
    "end": [f"UPDATE run SET ended = NULL WHERE trial = {COMPLETE} AND seed = 0"],
    "reason": [f"UPDATE run SET reason = 'timeout' WHERE trial = {COMPLETE} AND seed = 0"],
    "reason, none": ["UPDATE run SET reason = '' WHERE state = 'diverged'"],
    "seconds": [f"UPDATE run SET seconds = 9e999 WHERE trial = {COMPLETE} AND seed = 0"],
    "metric": [f"UPDATE metric SET attempt = 2 WHERE trial = {COMPLETE} AND seed = 0"],
    "metric, after the end": [f"UPDATE metric SET epoch = 30 WHERE trial = {COMPLETE} AND seed = 0 AND epoch = 8"],
    "metric, of no epoch": [f"UPDATE metric SET epoch = -3 WHERE trial = {COMPLETE} AND seed = 0 AND epoch = 8"],
    "numbers": [f"UPDATE metric SET value = 9e999 WHERE trial = {COMPLETE} AND seed = 0 AND epoch = 8"],
    "lease": ["UPDATE study SET lease_until = 1e12"],
    "lease, of nobody": ["UPDATE study SET state = 'running'"],
    "state, of the study": [
        "UPDATE run SET state = 'queued', value = NULL, ended = NULL, reason = '', attempt = 0 WHERE trial = 18",
        "UPDATE trial SET state = 'queued', value = NULL, sd = NULL, tell_seq = NULL WHERE number = 18",
    ],
    "suggestion": [f"UPDATE trial SET params = json_set(params, '$.lr', 0.012345) WHERE number = {COMPLETE}"],
    "suggestion, from another result": [
        "UPDATE run SET value = 1e-9 WHERE trial = 2", "UPDATE trial SET state = 'complete', sd = 0, value = 1e-9"
        " WHERE number = 2", "UPDATE run SET state = 'complete', reason = '' WHERE trial = 2"],
    "batch": [f"UPDATE trial SET batch = 7 WHERE number = {COMPLETE}"],
    "decision 0": ["UPDATE decision SET reason = 'as I like it' WHERE id = (SELECT min(id) FROM decision WHERE"
                   " kind = 'zoom')"],
    "decision 1": ["DELETE FROM decision WHERE id = (SELECT max(id) FROM (SELECT id FROM decision WHERE kind = 'zoom'"
                   " ORDER BY id LIMIT 2))"],
    "decision": [f"DELETE FROM decision WHERE kind = 'prune' AND subject = {PRUNED}"],
    "decision, twice": ["INSERT INTO decision (study, kind, subject, reason, details, batch, created) SELECT study,"
                        f" kind, subject, reason, details, batch, created FROM decision WHERE subject = {PRUNED}"],
    "decision, of a trial that went on": [f"UPDATE decision SET subject = {COMPLETE} WHERE kind = 'prune' AND"
                                          f" subject = {PRUNED}"],
    "decision, from another metric": [f"UPDATE metric SET value = 1e-6 WHERE trial = {PRUNED}"],
    "rung": [
        f"UPDATE run SET attempt = 2 WHERE trial = {PRUNED} AND seed = 0",
        "INSERT INTO attempt (study, trial, seed, repeat, attempt, started, seconds, worker)"
        f" SELECT study, trial, seed, repeat, 2, started, 0, '' FROM attempt WHERE trial = {PRUNED} AND seed = 0",
        f"UPDATE attempt SET cause = 'signal:9', ended = 1 WHERE trial = {PRUNED} AND seed = 0 AND attempt = 1",
        "INSERT INTO metric (study, trial, seed, repeat, attempt, epoch, name, value) SELECT study, trial, seed,"
        f" repeat, 1, epoch + 8, name, value FROM metric WHERE trial = {PRUNED} AND seed = 0 AND epoch = 0",
    ],
    "pruning": [f"UPDATE run SET value = value / 2, best_epoch = 0 WHERE trial = {PRUNED}",
                f"UPDATE trial SET value = value / 2, sd = sd / 2 WHERE number = {PRUNED}"],
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILED)
def test_what_does_not_hold_is_named(folder: Path, what: str) -> None:
    spoil(folder, *SPOILED[what])
    verdict = check(folder)
    rules = {breach.rule for breach in verdict.breaches}
    assert what.partition(",")[0] in rules, verdict
    for breach in verdict.breaches:
        assert breach.address.startswith("s")
        assert breach.expected != breach.found


@pytest.mark.parametrize("extended", [False, True])
def test_what_differs_at_rungs_is_excused_only_where_the_study_was_extended(tmp_path: Path, extended: bool) -> None:
    """All trials of the study are one cohort: with more of them, others would have gone on."""
    (tmp_path / "train.py").write_text(TRAIN)
    file, text = tmp_path / "study.yaml", STUDY.replace("{coarse_to_fine: {trials_per_round: 6}}", "random")
    for n_trials in (12, 18 if extended else 12):
        file.write_text(text.replace("n_trials: 18", f"n_trials: {n_trials}"))
        hp.run(hp.read_study(file), db=f"sqlite:///{tmp_path}/r.db", on="inline", extend=True)
    facts = facts_of(tmp_path)
    assert facts.starts == 2
    if extended:
        assert check(tmp_path).breaches == []
    spoil(tmp_path, *SPOILED["decision, from another metric"])
    verdict = check(tmp_path)
    if extended:
        assert verdict.breaches == []
        assert "decisions at rungs that differ: n_trials became 18, was 12" in verdict.skipped
    else:
        assert {breach.rule for breach in verdict.breaches} >= {"decision"}
        assert verdict.skipped == []


#: reports every fifth epoch and the last; the last alone; one in the middle
SELDOM = """
def every(epochs):
    def train(run):
        for epoch in range(27):
            value = (run["x"] - 0.3) ** 2 + run["x"] / (epoch + 1) + 0.001 * run.seed
            if epoch in epochs:
                run.report(epoch, loss=value)
        return value
    return train

fifth, last, middle = every([4, 9, 14, 19, 24, 26]), every([26]), every([4])
"""


@pytest.mark.parametrize("function", ["fifth", "last", "middle"])
def test_runs_that_report_seldom_stop_after_a_rung_at_their_next_report(tmp_path: Path, function: str) -> None:
    (tmp_path / "train.py").write_text(SELDOM)
    (tmp_path / "study.yaml").write_text(
        f"name: s\nobjective: train.py:{function}\nmetric: {{loss: minimize}}\nn_trials: 9\nseeds: 2\n"
        "search_space: {x: {uniform: [0, 1]}}\nstrategy: random\npruner: {successive_halving: {max_epochs: 27}}\n"
    )
    hp.run(hp.read_study(tmp_path / "study.yaml"), db=f"sqlite:///{tmp_path}/r.db", on="inline")
    verdict = check(tmp_path)
    assert (verdict.breaches, verdict.skipped) == ([], [])
    assert verdict.rulings == 8
    # One epoch more is one too many.
    spoil(tmp_path, f"UPDATE run SET last_epoch = last_epoch + 1 WHERE trial = {PRUNED}")
    assert {breach.rule for breach in check(tmp_path).breaches} == {"pruning"}


FAILING = """
def train(run):
    for epoch in range(8):
        if epoch == 2 and 0.1 < run["x"] < 0.2:
            raise ValueError("right after the second rung, whose epoch has no loss")
        value = (run["x"] - 0.4) ** 2 + run["x"] / (epoch + 1)
        run.report(epoch, **({"other": 1.0} if epoch % 2 else {"loss": value}))
    return value
"""


def test_a_run_has_come_to_a_rung_without_its_metric_there_and_failed_just_after(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(FAILING)
    (tmp_path / "study.yaml").write_text(
        "name: s\nobjective: train.py:train\nmetric: {loss: minimize}\nn_trials: 16\nstrategy: random\n"
        "search_space: {x: {uniform: [0, 1]}}\npruner: {successive_halving: {max_epochs: 8, eta: 2}}\n"
    )
    hp.run(hp.read_study(tmp_path / "study.yaml"), db=f"sqlite:///{tmp_path}/r.db", on="inline")
    failed = [t for t in hp.load("s", f"sqlite:///{tmp_path}/r.db").trials if t.state is State.FAILED]
    assert {trial.runs[0].last_epoch for trial in failed} == {1}
    verdict = check(tmp_path)
    assert (verdict.breaches, verdict.skipped) == ([], [])


BLOWING = """
import math

def train(run):
    for epoch in range(9):
        good = run["x"] < 0.4
        value = math.nan if good and epoch + 1 >= run["after"] else -1.0 if good else run["x"] + 1 / (epoch + 1)
        if (epoch + 1) % run["every"] == 0:
            run.report(epoch, loss=value)
    return value
"""


@pytest.mark.parametrize(("after", "every"), [(1, 1), (2, 1), (3, 1), (2, 2), (3, 4)])
def test_a_trial_that_is_no_number_at_a_rung_goes_no_further(tmp_path: Path, after: int, every: int) -> None:
    (tmp_path / "train.py").write_text(BLOWING)
    (tmp_path / "study.yaml").write_text(
        "name: s\nobjective: train.py:train\nmetric: {loss: minimize}\nn_trials: 9\nstrategy: random\nseeds: 2\n"
        f"search_space: {{x: {{uniform: [0, 1]}}, after: {after}, every: {every}}}\n"
        "pruner: {successive_halving: {max_epochs: 9}}\n"
    )
    hp.run(hp.read_study(tmp_path / "study.yaml"), db=f"sqlite:///{tmp_path}/r.db", on="inline")
    trials = hp.load("s", f"sqlite:///{tmp_path}/r.db").trials
    good = [t.state for t in trials if t.params["x"] < 0.4]  # type: ignore[operator]
    if after <= every:  # already at the first rung
        assert set(good) == {State.DIVERGED}
        assert [t.state for t in trials].count(State.COMPLETE) == 1
    else:
        assert good.count(State.DIVERGED) == 3
        assert set(good) <= {State.DIVERGED, State.PRUNED}
    verdict = check(tmp_path)
    assert (verdict.breaches, verdict.skipped) == ([], [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a task, whose runs tell every epoch."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(Path(__file__).parent / "objectives/tasks.py", folder)
    (folder / "study.yaml").write_text(
        "name: s\nobjective: tasks.py:Line\nmetric: {val_loss: minimize}\nn_trials: 2\nbaseline: false\nkeep: 0\n"
        "search_space: {lr: {log: [1e-3, 1]}}\nstrategy: random\n"
    )
    hp.run(hp.read_study(folder / "study.yaml"), db=f"sqlite:///{folder}/r.db", on="inline", fuse="off")
    return folder


LOSE = [  # trial 0 had another attempt before: it told of two epochs, and the one that counts went on from there
    "UPDATE run SET attempt = 2 WHERE trial = 0",
    "INSERT INTO attempt (study, trial, seed, repeat, attempt, started, seconds, worker)"
    " SELECT study, trial, seed, repeat, 2, started, 0, '' FROM attempt WHERE trial = 0",
    "UPDATE attempt SET cause = 'signal:9', ended = 1 WHERE trial = 0 AND attempt = 1",
    "UPDATE metric SET attempt = 2 WHERE trial = 0 AND epoch = 2",
]


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ([], None),
        (LOSE, None),
        (["DELETE FROM metric WHERE trial = 0 AND epoch = 1"], "gaps in what attempt 1 has told"),
        (["DELETE FROM metric WHERE trial = 0 AND epoch = 0"], "gaps in what attempt 1 has told"),
        (["DELETE FROM metric WHERE trial = 0 AND epoch = 2"], "up to 1"),
        (["DELETE FROM metric WHERE trial = 0"], "up to -1"),
        ([*LOSE, "DELETE FROM metric WHERE trial = 0 AND epoch = 1"], "gaps in what attempt 2 has told"),
    ],
)
def test_a_task_has_told_every_epoch(trained: Path, tmp_path: Path, statements: list[str], found: str | None) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path, *statements)
    told = [(breach.address, breach.rule, breach.found) for breach in check(tmp_path).breaches]
    assert told == ([("s/0/0", "course", found)] if found else [])


def test_a_value_is_named_with_its_address_and_both_numbers(folder: Path) -> None:
    number = next(t.number for t in hp.load("s", f"sqlite:///{folder}/r.db").trials if t.state is State.COMPLETE)
    spoil(folder, f"UPDATE trial SET value = 0.5 WHERE number = {number}")
    (breach,) = check(folder).breaches
    assert (breach.address, breach.rule, breach.found) == (f"s/{number}", "value", "0.5")
    assert float(breach.expected.partition(",")[0]) < 0.5


def test_other_versions_are_no_breach(folder: Path) -> None:
    spoil(folder, f"UPDATE trial SET params = json_set(params, '$.lr', 0.012345) WHERE number = {COMPLETE}")
    facts = facts_of(folder)
    here = facts.trials[0].runs[0].environment
    assert here is not None
    other = replace(here, packages={**here.packages, "optuna": "0.1"})
    verdict = check(folder, facts, lambda: other)
    assert verdict.breaches == []
    assert any(line.startswith("1 suggestions that differ: optuna was") for line in verdict.skipped)
