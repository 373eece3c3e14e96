"""Confirm and ship for real: trained on fresh seeds, recorded, killed and gone on with, the test set looked at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import stdev

import pytest

import hpsearch as hp
from hpsearch.attempt import record_of
from hpsearch.confirm import confirm, confirmation
from hpsearch.errors import StudyHeldError, UsageError
from hpsearch.finals import begin, standing
from hpsearch.further import CONFIRMED, RACE, REVEAL
from hpsearch.launch import Place
from hpsearch.objective import source_hash
from hpsearch.repeat import add_seeds
from hpsearch.settings import files_folder
from hpsearch.ship import _same_data, checklist, looks, reveal
from hpsearch.stores.sql import open_archive, open_audit, open_store, sealed_metrics
from hpsearch.trial import Direction, Environment, Run, RunKey, Stage, State, Trial
from hpsearch.verify import verify

OBJECTIVES = Path(__file__).parent / "objectives"
STUDIES = Path(__file__).parents[1] / "studies"

TRAIN = """
import random
import time

def train(run):
    time.sleep(run["pause"])
    shared = random.Random(run.seed).gauss(0, 0.1)
    own = random.Random(f"{run.seed} {run['lr']}").gauss(0, 0.003)
    loss = (run["lr"] - 0.4) ** 2 + shared + own
    run.report(0, val_loss=loss)
    return {"val_loss": loss, "test_loss": loss + 1}
"""


def make(folder: Path, name: str = "s", **fields: object) -> hp.Study:
    (folder / "train.py").write_text(TRAIN)
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\nobjective: train.py:train\nmetric: {{val_loss: minimize}}\nseeds: {{search: 1, confirm: 6}}\n"
        "search_space: {lr: [0.1, 0.4, 0.41, 0.9], pause: 0.0}\nstrategy: grid\nbaseline: {lr: 0.9, pause: 0.0}\n"
    )
    return hp.read_study(folder / f"{name}.yaml", fields)


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """A study of a plain function, searched and confirmed: (study, url)."""
    folder = tmp_path_factory.mktemp("raced")
    study, url = make(folder), f"sqlite:///{folder}/r.db"
    hp.run(study, db=url, on="inline")
    outcome, found = confirm(study, open_archive(url), Place(db=url, on="inline"), max_seeds=9)
    assert outcome is not None
    return study, url, found


def facts(url, name="s"):
    archive = open_archive(url)
    runs = [(r.key, r.stage, r.state, r.value) for trial in archive.trials(name) for r in trial.runs]
    decisions = [d for d in archive.decisions(name) if d.kind != "grouped"]
    # Which of several that tie is taken may depend on how long they took.
    return runs, [(d.kind, d.details["ties"] if d.kind == CONFIRMED else d.subject) for d in decisions]


def test_the_race_is_recorded_on_seeds_that_the_search_had_not(raced):
    _, url, found = raced
    archive = open_archive(url)
    assert archive.study("s").state == "complete"
    assert found.end is not None
    assert {one.trial.number for one in found.contenders} == {0, 1, 2, 3, 4}
    for trial in archive.trials("s"):
        assert [run.key.seed for run in trial.search_runs] == [0]
        fresh = [run for run in trial.runs if run.stage is Stage.CONFIRM]
        assert [run.key.seed for run in fresh] == list(range(1, len(fresh) + 1))
        assert trial.value == trial.search_runs[0].value
    left = [one.trial.params["lr"] for one in found.contenders if one.outcome in ("winner", "ties")]
    assert 0 < len(left) <= 2
    assert set(left) <= {0.4, 0.41}
    assert archive.trials("s")[found.chosen].params["lr"] in left
    assert found.optimism is not None
    assert bool(found.to_settle) is (len(left) == 2)


def checked(study, url):
    """What ``verify`` finds: rule -> what there is instead."""
    found = open_audit(url).facts(study.name)
    here = found.trials[0].runs[0].environment
    verdict = verify(found, study, environment=lambda: here, code_hash=found.code_hash)
    return {breach.rule: breach.found for breach in verdict.breaches}


@pytest.fixture
def looked(raced, tmp_path):
    """A copy of its database, with two looks at the test set: (study, url, trial)."""
    study, url, _ = raced
    shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "r.db")
    url = f"sqlite:///{tmp_path}/r.db"
    chosen = confirm(study, open_archive(url), Place(db=url, on="inline"))[1].chosen
    with closing(sqlite3.connect(tmp_path / "r.db")) as connection:
        connection.execute("DELETE FROM decision WHERE kind = 'reveal'")
        connection.commit()
    for reason in ("the table", "once more"):
        look(study, url, chosen, reason)
    return study, url, chosen


def test_its_record_is_sound(looked):
    study, url, _ = looked
    assert checked(study, url) == {}


OF_A_DROP = "WHERE kind = 'drop' AND batch = 1 AND subject = '0'"
SPOILED = {
    "race 1, who left": f"UPDATE decision SET subject = '99' {OF_A_DROP}",
    "race 1, not said": f"DELETE FROM decision {OF_A_DROP}",
    "race 1, p": f"UPDATE decision SET details = json_set(details, '$.p', 0.5) {OF_A_DROP}",
    "race 1, seeds": f"UPDATE decision SET details = json_set(details, '$.seeds', 99) {OF_A_DROP}",
    "race 1, one number more": f"UPDATE decision SET details = json_set(details, '$.odd', 1) {OF_A_DROP}",
    "race 1, words": f"UPDATE decision SET reason = 'as I like it' {OF_A_DROP}",
    "race 1, ties": "UPDATE decision SET details = json_set(details, '$.ties', json('[0, 1]')) WHERE kind = 'confirmed'"
    " AND batch = 1",
    "race 1, taken": "UPDATE decision SET details = json_set(details, '$.taken', 99) WHERE kind = 'confirmed' AND"
    " batch = 1",
    "race 1, its words at the end": "UPDATE decision SET reason = '#0 wins' WHERE kind = 'confirmed' AND batch = 1",
    "race 1, terms": "UPDATE decision SET details = json_set(details, '$.alpha', 0.5) WHERE kind = 'race' AND"
    " subject = '1'",
    "race 1, terms that say nothing": "UPDATE decision SET details = '{}' WHERE kind = 'race' AND subject = '1'",
    "races": "UPDATE decision SET batch = 77 WHERE kind = 'drop' AND subject = '0'",
    "look 1": "DELETE FROM decision WHERE id = (SELECT min(id) FROM decision WHERE kind = 'reveal')",
    "look 2": "UPDATE decision SET details = json_set(details, '$.look', 1) WHERE kind = 'reveal'",
    "look 1, of a loser": "UPDATE decision SET subject = '0' WHERE kind = 'reveal'",
    "look 2, another value": "UPDATE decision SET details = json_set(details, '$.validation[0]', 0.125) WHERE id ="
    " (SELECT max(id) FROM decision WHERE kind = 'reveal')",
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_no_race_would_have_decided_is_found(looked, what):
    study, url, _ = looked
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute(SPOILED[what]).rowcount > 0
        connection.commit()
    assert what.partition(",")[0] in checked(study, url)


def test_a_race_by_other_versions_is_not_compared(looked):
    study, url, _ = looked
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute(SPOILED["race 1, p"])
        connection.commit()
    found = open_audit(url).facts("s")
    here = found.trials[0].runs[0].environment
    other = replace(here, packages={**here.packages, "scipy": "0.1"})
    verdict = verify(found, study, environment=lambda: other, code_hash=found.code_hash)
    assert verdict.breaches == []
    assert any("races that differ" in line and "scipy was" in line for line in verdict.skipped)


def test_a_race_that_is_over_is_shown_not_repeated_and_another_takes_other_seeds(raced):
    study, url, found = raced
    before = facts(url)
    outcome, same = confirm(study, open_archive(url), Place(db=url, on="inline"))
    assert outcome is None
    assert same.words == found.words
    assert facts(url) == before
    _, other = confirm(study, open_archive(url), Place(db=url, on="inline"), max_seeds=6, again=True)
    assert other.terms.number == 2
    assert not set(other.terms.seeds) & set(found.terms.seeds)


def test_a_search_that_is_run_again_does_not_see_it(raced):
    study, url, _ = raced
    before = facts(url)
    assert hp.run(study, db=url, on="inline").state == "complete"
    assert facts(url) == before


@pytest.mark.parametrize(
    "strategy", ["{coarse_to_fine: {trials_per_round: 4}}", "{bayesian: {model: tpe, startup: 4, batch: 4}}"]
)
def test_a_search_that_is_extended_sees_no_run_beyond_it(tmp_path, strategy):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "e.yaml").write_text(
        "name: e\nobjective: train.py:train\nmetric: {val_loss: minimize}\nseeds: {search: 1, confirm: 3}\n"
        f"search_space: {{lr: {{uniform: [0, 1]}}, pause: 0.0}}\nstrategy: {strategy}\n"
        "baseline: {lr: 0.9, pause: 0.0}\n"
    )
    study, larger = (hp.read_study(tmp_path / "e.yaml", {"n_trials": n}) for n in (8, 16))
    alone, beyond = (f"sqlite:///{tmp_path}/{name}.db" for name in ("alone", "beyond"))
    for url in (alone, beyond):
        hp.run(study, db=url, on="inline")
    archive, place = open_archive(beyond), Place(db=beyond, on="inline")
    confirm(study, archive, place, top=3, max_seeds=3)
    add_seeds(study, archive, place, range(9), 2)
    stages = [run.stage for trial in archive.trials("e") for run in trial.runs]
    assert stages.count(Stage.CONFIRM) >= 9
    assert stages.count(Stage.EXTRA) == 18
    for url in (alone, beyond):
        hp.run(larger, db=url, on="inline", extend=True)
    found, expected = (
        [(t.number, dict(t.params), t.state, t.value, t.sd, t.batch, t.tell_seq) for t in open_archive(url).trials("e")]
        for url in (beyond, alone)
    )
    assert len(expected) == 17
    assert found == expected
    assert checked(larger, beyond) == {}


def test_killed_and_gone_on_with_it_is_the_race_that_it_would_have_been(tmp_path):
    study, url = make(tmp_path), f"sqlite:///{tmp_path}/r.db"
    hp.run(study, db=url, on="inline")
    shutil.copy(tmp_path / "r.db", tmp_path / "whole.db")
    whole = f"sqlite:///{tmp_path}/whole.db"
    confirm(study, open_archive(whole), Place(db=whole), max_seeds=9)
    code = (
        "import sys, hpsearch as hp\nfrom hpsearch.confirm import confirm\nfrom hpsearch.launch import Place\n"
        "from hpsearch.stores.sql import open_archive\n"
        f"confirm(hp.read_study({str(tmp_path / 's.yaml')!r}), open_archive({url!r}), "
        f"Place(db={url!r}, workers=2), max_seeds=9)"
    )
    for wanted in (3, 20):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while process.poll() is None and sum(r[1] is Stage.CONFIRM and r[2].final for r in facts(url)[0]) < wanted:
            assert time.monotonic() < end
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _, found = confirm(study, open_archive(url), Place(db=url, workers=1), max_seeds=99)
    assert found.terms.looks[-1] == 9  # under its own terms
    assert facts(url) == facts(whole)
    assert sum(d.kind == RACE for d in open_archive(url).decisions("s")) == 1


def test_a_study_without_a_complete_trial_has_nothing_to_confirm(tmp_path):
    (tmp_path / "train.py").write_text("def train(run):\n    return float('nan')\n")
    (tmp_path / "n.yaml").write_text(
        "name: n\nobjective: train.py:train\nmetric: {loss: minimize}\nsearch_space: {lr: [1.0, 2.0]}\nstrategy: grid\n"
    )
    study, url = hp.read_study(tmp_path / "n.yaml"), f"sqlite:///{tmp_path}/r.db"
    hp.run(study, db=url, on="inline")
    with pytest.raises(UsageError, match="no trial is complete"):
        confirm(study, open_archive(url), Place(db=url, on="inline"))
    assert open_archive(url).study("n").state == "complete"


@pytest.mark.parametrize(
    ("effect", "low", "high"),
    [(0.5, 34, 36), (0.8, 15, 17), (0.01, None, None), (0.0, None, None)],  # 34 and 15: a t-test's usual tables
)
def test_a_tie_says_how_many_seeds_would_settle_it(effect, low, high):
    spread = [-1.32, -0.93, -0.51, -0.17, 0.13, 0.47, 0.88, 1.45]
    sd = stdev(spread)
    ours = [0.5 + 0.1 * k for k in range(8)]
    theirs = [a + 0.01 * (effect + z / sd) for a, z in zip(ours, spread, strict=True)]

    def trial(number, values):
        found = Run(key=RunKey(number, 0), state=State.COMPLETE, value=float(number))
        fresh = [
            Run(key=RunKey(number, 1 + k), stage=Stage.CONFIRM, state=State.COMPLETE, value=value)
            for k, value in enumerate(values)
        ]
        return Trial(number=number, params={}, state=State.COMPLETE, value=float(number), runs=(found, *fresh))

    terms = begin([trial(0, []), trial(1, [])], Direction.MINIMIZE, max_seeds=8)
    raced = [trial(0, ours), trial(1, theirs)]
    end = standing(terms, raced, Direction.MINIMIZE).end
    assert end.details["ties"] == [0, 1]
    found = confirmation(raced, [terms.decision, end], Direction.MINIMIZE)
    if low is None:
        assert found.seeds_needed is None
        assert found.to_settle == "more than 1,000 seeds would be needed to tell them apart: take the cheaper"
    else:
        assert low <= found.seeds_needed <= high
        assert f"about {found.seeds_needed} seeds" in found.to_settle


# Ship


def look(study, url, number, reason="a reason"):
    return reveal(
        study,
        open_archive(url),
        record_of(study),
        partial(open_store, url),
        number,
        reason=reason,
        files=files_folder(url, study.name),
        sealed=partial(sealed_metrics, url, study.name),
    )


def test_the_checklist_says_what_the_record_says(raced):
    study, url, _ = raced
    archive = open_archive(url)
    chosen = int(confirm(study, archive, Place(db=url))[1].chosen or 0)
    checks, _ = checklist(study, archive.study("s"), archive, chosen)
    said = {check.name: check.holds for check in checks}
    assert said["beats the baseline"] is True
    assert said["confirmed on fresh seeds"] is True
    assert said["not at an edge of its range"] is True  # a categorical has no edge
    assert said["healthy layers"] is None
    assert said["same code and software"] is not None
    assert said["same data"] is None  # a plain function's are its own
    worst = next(trial.number for trial in archive.trials("s") if trial.params["lr"] == 0.1)
    loser = {check.name: check.holds for check in checklist(study, archive.study("s"), archive, worst)[0]}
    assert loser["confirmed on fresh seeds"] is False
    assert loser["beats the runner-up, or is cheaper"] is False


@pytest.mark.parametrize(
    ("ours", "others", "holds", "words"),
    [
        (["a", "a"], ["a"], True, "a, as in #1"),
        (["a", "b"], ["a"], False, "#0's runs saw 2 data sets"),
        (["a"], ["b", "a"], False, "#1's runs saw 2 data sets"),
        (["a"], ["b"], None, "#0 a, #1 b: either data\\(\\) reads a hyperparameter, or the data have changed"),
        (["a"], [""], None, "unknown of #1"),
        ([""], [None], None, "unknown: only the runs of a TrainingTask"),
        (["a", None], None, True, "a"),
    ],
)
def test_the_same_data_is_what_the_runs_say(ours, others, holds, words):
    def trial(number, seen):
        where = [None if d is None else Environment(python="", torch="", device="", machine="", data=d) for d in seen]
        runs = [Run(key=RunKey(number, seed), environment=one) for seed, one in enumerate(where)]
        return Trial(number=number, params={}, runs=tuple(runs))

    found = _same_data(trial(0, ours), [] if others is None else [trial(1, others)])
    assert (found.holds, re.match(words, found.words) is not None) == (holds, True)


def test_only_the_confirmed_winner_is_looked_at_and_every_look_is_recorded(raced):
    study, url, _ = raced
    _, found = confirm(study, open_archive(url), Place(db=url))
    with pytest.raises(UsageError, match="the last race chose"):
        look(study, url, 0)
    assert found.chosen is not None
    fresh = [
        v
        for s, v in open_archive(url).trials("s")[found.chosen].values(Stage.CONFIRM).items()
        if s in found.terms.seeds
    ]
    first = look(study, url, found.chosen, "the table")
    assert first.metrics["test_loss"].mean == pytest.approx(sum(fresh) / len(fresh) + 1)
    assert first.validation.n == len(fresh)
    second = look(study, url, found.chosen, "once more")
    assert [(one.number, one.reason) for one in looks(open_archive(url).decisions("s"))] == [
        (1, "the table"),
        (2, "once more"),
    ]
    assert second.number == 2
    assert open_archive(url).study("s").state == "complete"


SLOW_LOOK = """
import sys
from functools import partial
import hpsearch as hp
from hpsearch.attempt import record_of
from hpsearch.settings import files_folder
from hpsearch.ship import reveal
from hpsearch.stores.sql import open_archive, open_store, sealed_metrics

file, url, number = sys.argv[1:]
study = hp.read_study(file)

def slow(runs):
    print("looking", flush=True)
    sys.stdin.read()
    return sealed_metrics(url, study.name, runs)

reveal(
    study, open_archive(url), record_of(study), partial(open_store, url), int(number), reason="from another door",
    files=files_folder(url, study.name), sealed=slow,
)
"""


def test_two_who_look_at_once_are_not_both_the_first(raced, tmp_path):
    study, raced_url, _ = raced
    shutil.copy(raced_url.removeprefix("sqlite:///"), tmp_path / "r.db")
    url = f"sqlite:///{tmp_path}/r.db"
    chosen = confirm(study, open_archive(url), Place(db=url))[1].chosen
    before = len(looks(open_archive(url).decisions("s")))
    command = [sys.executable, "-c", SLOW_LOOK, str(study.file), url, str(chosen)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "looking\n"
        with pytest.raises(StudyHeldError, match=f"process {other.pid}"):
            look(study, url, chosen)
        other.communicate("")
    finally:
        other.kill()
    assert other.returncode == 0
    assert look(study, url, chosen, "after it").number == before + 2
    said = [(one.number, one.reason) for one in looks(open_archive(url).decisions("s"))]
    assert said[before:] == [(before + 1, "from another door"), (before + 2, "after it")]
    assert open_archive(url).study("s").state == "complete"


def test_who_has_lost_the_study_while_looking_has_not_looked(raced, tmp_path):
    """Two looks of one process: the second takes the lease, and what the first would have written is refused."""
    study, raced_url, _ = raced
    shutil.copy(raced_url.removeprefix("sqlite:///"), tmp_path / "r.db")
    url = f"sqlite:///{tmp_path}/r.db"
    chosen = confirm(study, open_archive(url), Place(db=url))[1].chosen
    before = len(looks(open_archive(url).decisions("s")))

    def interrupted(runs):
        look(study, url, chosen, "in between")
        return sealed_metrics(url, "s", runs)

    with pytest.raises(StudyHeldError):
        reveal(
            study,
            open_archive(url),
            record_of(study),
            partial(open_store, url),
            chosen,
            reason="too late",
            files=files_folder(url, "s"),
            sealed=interrupted,
        )
    assert [one.reason for one in looks(open_archive(url).decisions("s"))][before:] == ["in between"]


def test_a_look_leaves_the_code_that_the_study_was_searched_with(raced, tmp_path):
    _, raced_url, _ = raced
    shutil.copy(raced_url.removeprefix("sqlite:///"), tmp_path / "r.db")
    url, study = f"sqlite:///{tmp_path}/r.db", make(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN + "\n# mended\n")
    before = open_archive(url).study("s").code_hash
    assert source_hash(study.objective) != before
    look(study, url, confirm(study, open_archive(url), Place(db=url))[1].chosen)
    assert open_archive(url).study("s").code_hash == before


def test_an_unconfirmed_trial_is_not_looked_at(tmp_path):
    study, url = make(tmp_path), f"sqlite:///{tmp_path}/r.db"
    hp.run(study, db=url, on="inline")
    with pytest.raises(UsageError, match="is not confirmed"):
        look(study, url, 2)
    assert not [d for d in open_archive(url).decisions("s") if d.kind == REVEAL]


def test_a_tasks_weights_are_evaluated_on_the_part_that_no_search_saw(tmp_path, monkeypatch):
    import torch

    from hpsearch.training.data import sealed_test
    from hpsearch.training.load import load

    monkeypatch.setattr(sys, "path", list(sys.path))  # load puts the study's folder on it

    shutil.copy(OBJECTIVES / "tasks.py", tmp_path)
    (tmp_path / "l.yaml").write_text(
        "name: l\nobjective: tasks.py:Line\nmetric: {val_loss: minimize}\nseeds: {search: 1, confirm: 6}\nn_trials: 3\n"
        "search_space: {lr: {log: [1e-3, 1]}}\nstrategy: random\n"
    )
    study, url = hp.read_study(tmp_path / "l.yaml"), f"sqlite:///{tmp_path}/r.db"
    hp.run(study, db=url, workers=1)
    _, found = confirm(study, open_archive(url), Place(db=url, workers=1, fuse=8), max_seeds=6)
    assert found.chosen is not None
    further = [r for t in open_archive(url).trials("l") for r in t.runs if r.stage is Stage.CONFIRM]
    assert all(run.engine.startswith("vmap") for run in further), {run.engine for run in further}
    kept = open_archive(url).checkpoints("l")
    assert {RunKey(found.chosen, seed) for seed in found.terms.seeds} <= kept.keys()
    seen = look(study, url, found.chosen)
    task = load(study.objective)
    part, _ = sealed_test(task, study.seed, "cpu")
    losses = []
    for seed in found.terms.seeds:
        model = hp.load("l", url).trial(found.chosen).model(seed)
        with torch.no_grad():
            losses.append(task.loss(model(part.inputs), part.targets).item())
    assert seen.metrics["test_loss"].mean == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert seen.metrics["test_loss"].n == 6
    assert {run.state for trial in open_archive(url).trials("l") for run in trial.runs} == {State.COMPLETE}


def test_a_report_says_what_the_race_has_shown_and_that_the_test_set_was_looked_at(raced):
    from hpsearch.findings import verdict_of
    from hpsearch.report import page

    study, url, _ = raced
    _, found = confirm(study, open_archive(url), Place(db=url))
    assert found.chosen is not None
    before = len(looks(open_archive(url).decisions("s")))
    look(study, url, found.chosen, "for <script>the report</script>")
    look(study, url, found.chosen, "once too often")
    results = hp.load("s", url)
    words = " ".join(sentence.text for sentence in verdict_of(results))
    assert found.words in words
    assert f"The test set was looked at {before + 2} times: " in words
    assert "once too often" in words
    assert "Left the race: #" in words
    html = page(results)
    assert "<script>the report" not in html
    assert f"looked at {before + 2} times" in html
    assert "test_loss" not in html


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_study_of_digits_from_its_search_to_its_report_by_the_commands(tmp_path):
    """With one seed, confirmed with eight new ones: as a user does it."""
    for file in ("digits.py", "digits_random.yaml"):
        shutil.copy(STUDIES / file, tmp_path)
    text, n = re.subn(r"seeds: 3.*", "seeds: {search: 1, confirm: 8}", (tmp_path / "digits_random.yaml").read_text())
    assert n == 1
    (tmp_path / "digits_random.yaml").write_text(text.replace("n_trials: 64", "n_trials: 8"))

    def said(*tokens):
        command = [sys.executable, "-m", "hpsearch", *tokens]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said("run", "digits_random.yaml", "--workers", "2", "-q")
    said("confirm", "digits-random", "--top", "4", "--workers", "2", "--progress", "none")
    told = json.loads(said("confirm", "digits-random", "--json", "-q"))
    assert told["over"]
    assert told["trials"][0]["fresh"]["n"] >= 8
    shipped = said("ship", "digits-random")
    assert "✓ confirmed on fresh seeds" in shipped
    assert "✓ same data" in shipped
    assert "healthy layers" in shipped
    revealed = json.loads(said("ship", "digits-random", "--reveal-test", "--reason", "the table", "--json", "-q"))
    assert revealed["looks"] == 1
    said("report", "digits-random", "-o", "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "The test set was looked at once" in html
    assert "fresh seeds" in html
    said("verify")
