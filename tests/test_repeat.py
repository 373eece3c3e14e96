"""Extra runs with real processes: recorded, killed and gone on with, sound for ``verify``, and seen by ``compare``."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.compare import trial_row, verdicts
from hpsearch.confirm import confirm
from hpsearch.errors import StudyChangedError, UsageError
from hpsearch.extra import requests
from hpsearch.launch import Place
from hpsearch.repeat import add_seeds, repeat_failed
from hpsearch.settings import files_folder
from hpsearch.stores.sql import open_archive, open_audit
from hpsearch.trial import RunKey, Stage, State
from hpsearch.verify import verify

TRAIN = """
import random, time
from pathlib import Path

def train(run):
    time.sleep(run["pause"])
    if run["x"] == 0.9 and not Path(run.study_dir, f"mended{run.seed}").exists():
        raise RuntimeError("the disk is full")
    loss = (run["x"] - 0.4) ** 2 + random.Random(f"{run.seed} {run['x']}").gauss(0, 0.01)
    run.report(0, val_loss=loss)
    return loss
"""


def make(folder: Path, pause: float = 0.0) -> tuple[hp.Study, str]:
    """A study whose trial at x = 0.9 has failed with both seeds, and the other three are complete."""
    (folder / "train.py").write_text(TRAIN)
    (folder / "s.yaml").write_text(
        "name: s\nobjective: train.py:train\nmetric: {val_loss: minimize}\nseeds: {search: 2, confirm: 2}\n"
        f"search_space: {{x: [0.1, 0.4, 0.5, 0.9], pause: {pause}}}\nstrategy: grid\nbaseline: false\n"
    )
    study, url = hp.read_study(folder / "s.yaml"), f"sqlite:///{folder}/r.db"
    hp.run(study, db=url, on="inline")
    return study, url


@pytest.fixture
def searched(tmp_path):
    return make(tmp_path)


def facts(url):
    """What is recorded of runs and extra runs, the times aside."""
    archive = open_archive(url)
    runs = [(r.key, r.stage, r.state, r.value) for trial in archive.trials("s") for r in trial.runs]
    return sorted(runs), requests(archive.decisions("s"))


def breaches(study, url, database=None):
    found = open_audit(database or url).facts("s")
    hashed = open_archive(url).study("s").code_hash
    return verify(found, study, environment=lambda: None, code_hash=hashed).breaches


def at(url, x):
    """The number of the trial at x."""
    return next(t.number for t in open_archive(url).trials("s") if t.params["x"] == x)


def test_added_seeds_change_no_trial_and_are_compared(searched):
    study, url = searched
    archive, place = open_archive(url), Place(db=url, on="inline")
    before, good, bad = archive.trials("s"), at(url, 0.4), at(url, 0.1)
    done = add_seeds(study, archive, place, [good, bad], 6)
    assert done.over
    assert done.requests[0].seeds == (2, 3, 4, 5, 6, 7)
    after = archive.trials("s")
    assert [(t.state, t.value, t.sd, t.tell_seq, t.search_runs) for t in after] == [
        (t.state, t.value, t.sd, t.tell_seq, t.search_runs) for t in before
    ]
    assert archive.study("s").state == "complete"
    (pair,) = verdicts([trial_row("s", after[n]) for n in (good, bad)], study.direction)
    assert (pair.n, pair.beats) == (8, True)
    assert hp.run(study, db=url, on="inline").state == "complete"
    assert archive.trials("s") == after
    assert breaches(study, url) == []
    more = add_seeds(study, archive, place, [good], 1)
    assert more.requests[0].runs == (RunKey(good, 8),)


def test_a_race_and_added_seeds_leave_each_other_alone(searched):
    study, url = searched
    archive, place = open_archive(url), Place(db=url, on="inline")
    confirm(study, archive, place, max_seeds=4)
    used = {run.key.seed for trial in archive.trials("s") for run in trial.runs}
    best = at(url, 0.4)
    done = add_seeds(study, archive, place, [best], 2)
    assert not set(done.requests[0].seeds) & used
    _, other = confirm(study, archive, place, max_seeds=4, again=True)
    assert not set(other.terms.seeds) & (used | set(done.requests[0].seeds))
    assert breaches(study, url) == []
    fresh = next(one for one in other.contenders if one.trial.number == best).fresh
    assert 0 < fresh.n <= 4  # the added seeds are not the race's
    assert trial_row("s", archive.trials("s")[best], confirmed=True).judged.keys() >= set(done.requests[0].seeds)


def test_a_failed_run_is_repeated_as_a_row_of_its_own(searched, tmp_path):
    study, url = searched
    archive, place, number = open_archive(url), Place(db=url, on="inline"), at(url, 0.9)
    (tmp_path / "mended0").touch()
    everything = [run.key for trial in archive.trials("s") for run in trial.runs]
    before = archive.trials("s")[number]
    done = repeat_failed(study, archive, place, everything)
    assert [(run.key, run.state) for run in done.runs(done.requests[0])] == [
        (RunKey(number, 0, 1), State.COMPLETE),
        (RunKey(number, 1, 1), State.FAILED),
    ]
    after = archive.trials("s")[number]
    assert (after.state, after.value, after.search_runs) == (State.FAILED, None, before.search_runs)
    assert list(trial_row("s", after).judged) == [0]
    (tmp_path / "mended1").touch()
    done = repeat_failed(study, archive, place, everything)
    assert [run.key for run in done.runs(done.requests[0])] == [RunKey(number, 1, 2)]
    assert list(trial_row("s", archive.trials("s")[number]).judged) == [0, 1]
    assert repeat_failed(study, archive, place, everything).outcome is None
    assert breaches(study, url) == []
    log = files_folder(url, "s") / f"{number}/1.2"
    assert log.is_dir()


SCRIPT = """
import hpsearch as hp
from hpsearch.launch import Place
from hpsearch.repeat import add_seeds, repeat_failed
from hpsearch.stores.sql import open_archive
study, url = hp.read_study({file!r}), {url!r}
archive, place = open_archive(url), Place(db=url, workers=1)
{verb}
"""
ADD = "add_seeds(study, archive, place, [0, 2], 3)"
REPEAT = "repeat_failed(study, archive, place, [r.key for t in archive.trials('s') for r in t.runs])"


def killed(folder: Path, url: str, verb: str, *, after: int) -> None:
    """Begin it in a process of its own, and kill that when so many extra runs have ended."""
    code = SCRIPT.format(file=str(folder / "s.yaml"), url=url, verb=verb)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while sum(stage is Stage.EXTRA and state.final for _, stage, state, _ in facts(url)[0]) < after:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("verb", [ADD, REPEAT], ids=["seeds", "failed"])
def test_killed_and_gone_on_with_it_is_what_it_would_have_been(tmp_path, verb):
    study, url = make(tmp_path, pause=0.3)
    if verb is REPEAT:
        (tmp_path / "mended1").touch()  # seed 0 fails again: it is not repeated twice
    shutil.copy(tmp_path / "r.db", tmp_path / "whole.db")
    whole = f"sqlite:///{tmp_path}/whole.db"
    names = {"study": study, "add_seeds": add_seeds, "repeat_failed": repeat_failed}
    exec(verb, {**names, "archive": open_archive(whole), "place": Place(db=whole, on="inline")})
    killed(tmp_path, url, verb, after=1)
    if verb is ADD:
        killed(tmp_path, url, verb, after=3)
    assert facts(url)[0] != facts(whole)[0]
    assert facts(url)[1] == facts(whole)[1]
    exec(verb, {**names, "archive": open_archive(url), "place": Place(db=url, workers=1)})
    assert facts(url) == facts(whole)
    assert len(facts(url)[1]) == 1
    assert breaches(study, url) == []


def test_what_cannot_be_is_said(searched, tmp_path):
    study, url = searched
    add = partial(add_seeds, study, open_archive(url))
    place = Place(db=url, on="inline")
    with pytest.raises(UsageError, match="--add-seeds: must be from 1 to 10,000, not 0"):
        add(place, [0], 0)
    (tmp_path / "train.py").write_text(TRAIN + "\n")
    with pytest.raises(StudyChangedError, match="training code of s has changed"):
        add(place, [0], 1)
    before = facts(url)
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute(
            "UPDATE trial SET state = 'queued', value = NULL, sd = NULL, tell_seq = NULL WHERE number = 2"
        )
    with pytest.raises(UsageError, match=r"s/2 has not ended \(queued\)"):
        add(place, [0, 2], 1)
    assert facts(url)[1] == before[1]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("DELETE FROM decision WHERE kind = 'extra'", "extra run"),
        ("UPDATE run SET repeat = 2 WHERE repeat = 1 AND trial = :failing AND seed = 0", "repeat"),
        ("UPDATE run SET seed = 1, repeat = 3 WHERE stage = 'extra' AND trial = 0 AND seed = 2", "repeat"),
        ("UPDATE run SET stage = 'confirm' WHERE stage = 'extra' AND trial = 0 AND seed = 2", "seed"),
        ("UPDATE run SET stage = 'confirm' WHERE stage = 'extra' AND repeat = 1", "repeat"),
        ("DELETE FROM run WHERE stage = 'extra' AND trial = 1", "extra run"),
    ],
)
def test_verify_finds_what_is_wrong_with_extra_runs(soiled, change, rule):
    study, url, copy = soiled
    with sqlite3.connect(copy) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        assert connection.execute(change, {"failing": at(url, 0.9)} if ":failing" in change else {}).rowcount
    assert rule in {breach.rule for breach in breaches(study, url, f"sqlite:///{copy}")}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A study with two added seeds and two repetitions."""
    folder = tmp_path_factory.mktemp("record")
    study, url = make(folder)
    archive, place = open_archive(url), Place(db=url, on="inline")
    add_seeds(study, archive, place, [0, 1], 1)
    repeat_failed(study, archive, place, [RunKey(at(url, 0.9), 0), RunKey(at(url, 0.9), 1)])
    return study, url


@pytest.fixture
def soiled(record, tmp_path):
    """A copy of its database, to be changed by hand: (study, url of the good one, file of the copy)."""
    study, url = record
    assert breaches(study, url) == []
    return study, url, shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "c.db")
