"""rerun --add-seeds and --failed as commands: what they print, at 80 columns, how they end, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import environment

INLINE = ("--on", "inline", "--progress", "none")


SHORT = """
import time

def train(run):
    for epoch in range(10):
        time.sleep(0.1)
        run.report(epoch, loss=run["x"] + run.seed)
    return run["x"] + run.seed
"""


@pytest.fixture
def failed(folder: Path) -> str:
    """A run of ``toy`` that has failed, as trial/seed."""
    with closing(sqlite3.connect(folder / "hpsearch.db")) as connection:
        trial, seed = connection.execute(
            "SELECT trial, seed FROM run WHERE state = 'failed' AND study = (SELECT id FROM study WHERE name = 'toy')"
        ).fetchone()
    return f"{trial}/{seed}"


def test_seeds_are_added_to_the_trials_that_are_named_or_to_the_best(folder: Path, hpsearch) -> None:
    ended = hpsearch("rerun", "toy/0", "other/2", "toy/1", "--add-seeds", "3", *INLINE)
    assert ended.code == 0, ended.err
    assert "toy: 3 new seeds, 2 to 4, for #0 and #1" in ended.err
    assert "other: 3 new seeds, 1 to 3, for #2" in ended.err
    assert max(map(len, (ended.out + ended.err).splitlines())) <= 80
    head, *rows = ended.out.splitlines()
    assert head.split() == ["trial", "seeds", "loss", "95", "%", "interval", "(t)", "n"]
    assert [row.split()[0] for row in rows[:6]] == ["#0", "new", "now", "#1", "new", "now"]
    # x = 0.25: (x - 0.3)² + seed / 100, for seeds 0 to 4
    assert rows[0].split()[1:4] == ["before", "0.0075", "±"]
    assert rows[2].split()[:2] == ["now", "0.0225"]
    assert rows[2].split()[-1] == "5"
    assert hpsearch("verify").code == 0
    told = json.loads(hpsearch("rerun", "toy", "--add-seeds", "1", *INLINE, "--json", "-q").out)
    (study,) = told["studies"]
    assert (study["study"], study["over"], study["requests"][0]["seeds"]) == ("toy", True, [5])
    best = json.loads(hpsearch("show", "toy", "--json").out)["best"]["trial"]
    assert [one["trial"] for one in study["requests"][0]["trials"]] == [best]
    assert "extra" in hpsearch("show", "toy/0").out


def test_failed_runs_are_repeated_and_the_trial_stays_failed(folder: Path, failed: str, hpsearch) -> None:
    number = failed.partition("/")[0]
    ended = hpsearch("rerun", f"toy/{failed}", "--failed", *INLINE)
    assert ended.code == 4  # it fails always
    assert f"toy/{failed}.1" in ended.out
    assert "failed: exception" in ended.out
    assert "stay those of its search" in ended.err
    with closing(sqlite3.connect(folder / "hpsearch.db")) as connection:  # the others read the code that is there
        connection.execute("UPDATE study SET file = ?", (str(folder / "toy.yaml"),))
        connection.commit()
    mended = (folder / "train.py").read_text().replace("raise ValueError", "print").replace("return math.nan", "pass")
    (folder / "train.py").write_text(mended)
    ended = hpsearch("rerun", f"toy/{number}", "--failed", *INLINE)
    assert (ended.code, "--allow-changed-code" in ended.err) == (2, True)
    ended = hpsearch("rerun", f"toy/{number}", "--failed", "--allow-changed-code", *INLINE)
    assert ended.code == 0, ended.err
    assert f"toy/{failed}.2  complete" in ended.out
    assert max(map(len, (ended.out + ended.err).splitlines())) <= 80
    again = hpsearch("rerun", f"toy/{number}", "--failed", "--allow-changed-code", *INLINE)
    assert (again.code, again.out, again.err) == (0, "", "toy: no failed run is left to repeat\n")
    assert json.loads(hpsearch("show", f"toy/{number}", "--json").out)["state"] == "failed"
    assert hpsearch("rerun", f"toy/{failed}.2", "--allow-changed-code", "-q").out.startswith(
        f"toy/{failed}.2  bit-equal"
    )


def test_what_cannot_be_is_said_with_a_way_out(folder: Path, failed: str, hpsearch) -> None:
    number = failed.partition("/")[0]
    for tokens, words in [
        (("toy/0/1", "--add-seeds", "2"), "toy/0/1 is a run; seeds are added to a trial"),
        (("toy/0", "--add-seeds", "0"), "--add-seeds: must be from 1 to 10,000, not 0"),
        (("toy/0", "--add-seeds", "1", "--failed"), "--failed and --add-seeds: one at a time"),
        (("toy/0", "--add-seeds", "1", "--verify"), "--add-seeds and --verify: one at a time"),
        (("toy/0", "--failed", "--tolerance", "1"), "--failed and --tolerance: one at a time"),
        (("toy/0/0", "--failed"), "toy/0/0 has not failed (complete)"),
        (("toy/0", "--fuse", "4"), "--fuse 4: what is compared is repeated alone"),
        (("toy/0", "--gpus-per-worker", "1"), "--gpus-per-worker is of Ray's workers, and they are local"),
        ((f"toy/{number}", "--add-seeds", "x"), "--add-seeds"),
    ]:
        ended = hpsearch("rerun", *tokens)
        assert (ended.code, ended.out) == (2, ""), ended
        assert words in ended.err
    assert hpsearch("rerun", "toy/99", "--add-seeds", "1").code == 3


def test_a_comparison_on_another_executor(folder: Path, hpsearch) -> None:
    ended = hpsearch("rerun", "toy/0/1", "--on", "inline", "--verify", "-q")
    assert (ended.code, ended.out) == (0, "toy/0/1  bit-equal (4 epochs)\n")
    remote = hpsearch("rerun", "toy/0/1", "--on", "ray", "--workers", "1", "--verify", "-q")
    assert (remote.code, remote.out) == (0, "toy/0/1  bit-equal (4 epochs)\n")
    assert not (folder / "hpsearch-files" / "toy" / "0" / "1.1").exists()


def test_ctrl_c_ends_in_good_order_and_the_same_command_goes_on(folder: Path, hpsearch) -> None:
    (folder / "short.py").write_text(SHORT)
    (folder / "short.yaml").write_text(
        "name: short\nobjective: short.py:train\nmetric: {loss: minimize}\nsearch_space: {x: {uniform: [0, 1]}}\n"
        "strategy: random\nn_trials: 1\nbaseline: false\n"
    )
    assert hpsearch("run", "short.yaml", *INLINE, "-q").code == 0
    start = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    start += "runpy.run_module('hpsearch.cli.app', run_name='__main__', alter_sys=True)"
    command = ["rerun", "short/0", "--add-seeds", "2", "--workers", "1", "--progress", "none", "--grace", "0s"]
    child = subprocess.Popen(
        [sys.executable, "-c", start, *command], cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not (folder / "hpsearch-files/short/0/1/log.txt").exists():
        assert child.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert err.splitlines()[-1] == "next: the same command goes on"
    ended = hpsearch(*command)
    assert ended.code == 0, ended.err
    assert "short: goes on with what was interrupted: 2 new seeds, 1 and 2, for #0" in ended.err
    assert ended.out.splitlines()[-1].split()[-1] == "3"
    assert hpsearch("verify", "short").code == 0
