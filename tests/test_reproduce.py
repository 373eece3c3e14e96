"""A stored trial once more: what is printed is run, in a fresh process, and gives the recorded value to the bit."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.errors import UsageError
from hpsearch.reproduce import command, snippet
from hpsearch.stores.sql import open_archive
from hpsearch.stores.sql.engine import parse, portable
from hpsearch.trial import Environment, State

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with a digits study of fused runs, and its record."""
    folder = tmp_path_factory.mktemp("digits")
    for name in ("digits.py", "digits_random.yaml"):
        shutil.copy(STUDIES / name, folder)
    study = hp.read_study(folder / "digits_random.yaml", {"n_trials": 3, "seeds": 2})
    url = f"sqlite:///{folder}/r.db"
    hp.run(study, db=url, workers=1)
    return study, url


def in_a_fresh_process(folder: Path, *words: str) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HPSEARCH_")}
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_that_knows_no_database_gives_the_recorded_values_to_the_bit(digits, tmp_path):
    study, url = digits
    archive = open_archive(url)
    (trial,) = archive.trials(study.name, [2])
    assert all(run.engine.startswith(("vmap", "compiled")) for run in trial.runs)
    text = snippet(archive.study(study.name), trial)
    assert "sqlite" not in text
    (tmp_path / "again.py").write_text(text)
    lines = in_a_fresh_process(tmp_path, sys.executable, "again.py").splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [
        [str(run.key.seed), "complete", repr(run.value)] for run in trial.runs
    ]
    assert [line.endswith("as recorded") for line in lines[:2]] == [True, True]
    assert lines[2] == f"mean {trial.value!r}"
    assert [path.name for path in tmp_path.iterdir()] == ["again.py"]


def test_the_command_finds_every_epoch_bit_equal(digits, tmp_path):
    study, url = digits
    archive = open_archive(url)
    (trial,) = archive.trials(study.name, [1])
    run = trial.runs[1]
    text = command(archive.study(study.name), trial, run, db=portable(parse(url)))
    program = [line for line in text.splitlines() if not line.startswith("#")]
    assert program == [f"hpsearch rerun digits-random/1/1 --verify --db {url}"]
    words = program[0].split()
    out = in_a_fresh_process(tmp_path, sys.executable, "-m", *words)
    assert out == "digits-random/1/1  bit-equal (40 epochs)\n"


def test_where_it_comes_from_is_said_and_what_will_not_be_the_same(digits):
    study, url = digits
    summary, (trial,) = open_archive(url).study(study.name), open_archive(url).trials(study.name, [1])
    machine = Environment(
        python="3.12.1", torch="2.12.0", device="cuda:0 (NVIDIA H100)", machine="x86_64", git_commit="a" * 40,
        git_dirty=True,
    )  # fmt: skip
    runs = [replace(run, state=State.PRUNED, environment=machine, engine="solo, cuda:0") for run in trial.runs]
    trial = replace(trial, runs=tuple(runs))
    head = command(summary, trial, db="sqlite:////x.db")
    assert "commit aaaaaaaaaaaa with changes, Python 3.12.1, torch 2.12.0" in head
    assert "pruned" in head
    assert summary.code_hash[:12] in head
    text = snippet(replace(summary, file=""), trial)
    ast.parse(text)
    assert "folder = Path.cwd()" in text
    assert "{0: 1, 1: 1}.items()" in text
    assert "device='auto'" in text
    assert "# in the folder of the training code:" in command(replace(summary, file=""), trial, db="sqlite:////x.db")


def test_what_has_failed_is_not_compared(digits):
    study, url = digits
    summary, (trial,) = open_archive(url).study(study.name), open_archive(url).trials(study.name, [1])

    def program(*states):
        runs = tuple(replace(run, state=state) for run, state in zip(trial.runs, states, strict=True))
        return command(summary, replace(trial, runs=runs), db="sqlite:////x.db").splitlines()[-1]

    assert program(State.FAILED, State.DIVERGED) == "hpsearch rerun digits-random/1/1 --verify --db sqlite:////x.db"
    assert program(State.FAILED, State.FAILED) == "hpsearch rerun digits-random/1 --failed --db sqlite:////x.db"
    with pytest.raises(UsageError, match="digits-random/1 has not ended"):
        program(State.QUEUED, State.FAILED)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:hidden@host:5433/lab?sslmode=require", "postgresql://me@host:5433/lab?sslmode=require"),
        ("postgresql://me@host/lab?password=hidden", "postgresql://me@host/lab"),
        ("sqlite:////there/r.db", "sqlite:////there/r.db"),
    ],
)
def test_an_address_is_shown_without_its_password(url, words):
    assert portable(parse(url)) == words


def test_a_relative_database_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert portable(parse("sqlite:///r.db")) == f"sqlite:///{tmp_path.resolve()}/r.db"


def test_show_prints_them(digits, tmp_path, capfd):
    from hpsearch.cli.app import call

    study, url = digits
    assert call(["show", "digits-random/1/1", "--command", "--db", url]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == f"hpsearch rerun digits-random/1/1 --verify --db {url}"
    assert call(["show", "digits-random/1", "--python", "--db", url, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    archive = open_archive(url)
    assert told["python"] == snippet(archive.study(study.name), archive.trials(study.name, [1])[0])
    assert max(map(len, told["python"].splitlines())) <= 120
    assert call(["show", "digits-random", "--python", "--db", url]) == 2
    assert "--python is of a trial or a run, and digits-random is a study" in capfd.readouterr().err
    assert call(["show", "digits-random/1", "--python", "--yaml", "--db", url]) == 2
    assert "--yaml and --python: one at a time" in capfd.readouterr().err
