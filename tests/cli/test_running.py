"""run, resume, stop, plan and try, with the real command where signals, terminals or streams matter."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pexpect
import pytest

from hpsearch.cli.run import seconds
from hpsearch.errors import UsageError
from tests.cli.conftest import environment, shell, write_studies


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the studies and no database."""
    write_studies(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPSEARCH_DB", raising=False)
    return tmp_path


def test_run_writes_lines_where_there_is_no_terminal(fresh: Path) -> None:
    ended = shell(fresh, "run", "other.yaml", "--on", "inline")
    assert (ended.code, ended.out) == (0, "other\n")
    lines = ended.err.splitlines()
    assert lines[0] == "study other   random, 3 trials x 1 seed, seed 0"
    progress = [line for line in lines if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ progress .*done=", line)]
    assert 1 <= len(progress) <= 3
    assert max(map(len, progress)) <= 80
    assert re.search(r"^✓ complete: 3 complete in 0:\d\d$", ended.err, re.M)
    assert re.search(r"^best #\d  loss 0\.\d+ \(1 seed\)$", ended.err, re.M)
    assert lines[-1] == "next: hpsearch show other"
    assert "\x1b" not in ended.err


LATE = """
def train(run):
    for epoch in range(8):
        run.report(epoch, other=1.0, **({"loss": run["x"]} if epoch >= 3 else {}))
    return run["x"]
"""


def test_a_metric_that_comes_after_the_first_rung_is_named_where_all_are_pruned(fresh: Path, hpsearch) -> None:
    (fresh / "late.py").write_text(LATE)
    (fresh / "late.yaml").write_text(
        "name: late\nobjective: late.py:train\nmetric: {loss: minimize}\nn_trials: 6\nstrategy: random\n"
        "search_space: {x: {uniform: [0, 1]}}\npruner: {successive_halving: {max_epochs: 8, eta: 2}}\n"
    )
    words = "no run had reported loss by epoch 1, so all were pruned: raise min_epochs"
    ended = hpsearch("run", "late.yaml", "--on", "inline", "--set", "baseline=false")
    assert f"note: {words}" in " ".join(ended.err.split())
    assert f"note     {words}\n" in hpsearch("status", "late").out
    later = hpsearch(
        "run", "late.yaml", "--on", "inline", "--name", "later", "--set", "pruner.successive_halving.min_epochs=4"
    )
    assert later.code == 0
    assert "note" not in later.err
    assert "note" not in hpsearch("status", "later").out


def test_run_again_changes_nothing_and_json_is_one_object(fresh: Path, hpsearch) -> None:
    first = hpsearch("run", "other.yaml", "--on", "inline", "--json", "-q")
    assert first.code == 0
    assert [line.split()[0] for line in first.err.splitlines()] == ["training"] * 3
    found = json.loads(first.out)
    assert (found["schema"], found["study"], found["state"], found["trials"]) == (
        2,
        "other",
        "complete",
        {"complete": 3},
    )
    assert found["best"]["loss"]["n"] == 1
    again = json.loads(hpsearch("run", "other.yaml", "--on", "inline", "--json", "-q").out)
    assert again["best"] == found["best"]


def test_options_change_the_study_and_extend_raises_the_budget(fresh: Path, hpsearch) -> None:
    ended = hpsearch("run", "other.yaml", "-n", "2", "--seeds", "[4, 5]", "--seed", "9", "--name", "mine", "--tag", "t",
                     "--set", "description=hello", "--on", "inline", "-q", "--json")  # fmt: skip
    assert json.loads(ended.out)["trials"] == {"complete": 2}
    found = json.loads(hpsearch("status", "mine", "--json").out)
    assert (found["seeds"], found["tags"]) == ([4, 5], ["t"])
    options = ["--seeds", "[4, 5]", "--seed", "9", "--name", "mine", "--on", "inline", "-q", "--json"]
    refused = hpsearch("run", "other.yaml", "-n", "3", *options)
    assert refused.code == 2
    assert "--extend" in refused.err
    assert json.loads(hpsearch("run", "other.yaml", "-n", "3", "--extend", *options).out)["trials"] == {"complete": 3}
    changed = hpsearch("run", "other.yaml", "-n", "3", *options, "--set", "search_space.x.uniform=[0, 2]")
    assert changed.code == 2
    assert "search_space.x.high" in changed.err


def test_code_that_always_fails_ends_with_the_exception(fresh: Path, hpsearch) -> None:
    ended = hpsearch("run", "other.yaml", "--set", "objective=train.py:broken", "--on", "inline", "-q")
    assert ended.code == 4
    assert "ValueError: always" in ended.err
    assert ended.out == ""


def test_resume_goes_on_with_what_is_stored(fresh: Path, hpsearch) -> None:
    hpsearch("run", "other.yaml", "-n", "2", "--on", "inline", "-q")
    study = fresh / "other.yaml"
    study.write_text(study.read_text().replace("n_trials: 3", "n_trials: 50"))
    ended = hpsearch("resume", "oth", "--on", "inline", "--json")
    assert ended.code == 0
    assert "has changed; the study goes on as it is stored" in ended.err
    assert json.loads(ended.out)["trials"] == {"complete": 2}
    shutil.move(fresh / "train.py", fresh / "gone.py")
    assert hpsearch("resume", "other", "--on", "inline").code == 2


def test_resume_without_the_study_file_says_how_to_have_it_back(fresh: Path, hpsearch) -> None:
    hpsearch("run", "other.yaml", "--on", "inline", "-q")
    study, text = fresh / "other.yaml", (fresh / "other.yaml").read_text()
    study.unlink()
    ended = hpsearch("resume", "other", "--on", "inline")
    assert ended.code == 2
    assert f"hint: put it back: hpsearch show other --yaml > {study}" in ended.err
    study.write_text(hpsearch("show", "other", "--yaml").out)
    assert study.read_text() == text
    assert hpsearch("resume", "other", "--on", "inline").code == 0


def test_a_large_grid_is_announced_and_goes_on_without_a_terminal(fresh: Path, hpsearch) -> None:
    choices = ["--set", "strategy=grid", "--set", "n_trials=1"]
    space = "search_space={mode: [plain, b], x: [0.1, 0.2], c: [1, 2], d: [1, 2]}"
    ended = hpsearch("run", "other.yaml", *choices, "--set", space, "--on", "inline")
    assert "note: a grid over 4 hyperparameters means 16 cells" in ended.err
    assert ended.code == 0


def test_plan_runs_nothing(fresh: Path, hpsearch) -> None:
    ended = hpsearch("plan", "toy.yaml", "--show", "3", "--no-measure")
    assert (ended.code, ended.err) == (0, "")
    assert "trials    10 (1 baseline) x 2 seeds = 20 runs" in ended.out
    assert "fixed     eps-1 1e-05" in ended.out
    rows = [line.split()[0] for line in ended.out.splitlines() if " 0." in line]
    assert rows == ["baseline", "#1", "#2", "#3"]
    found = json.loads(hpsearch("plan", "toy.yaml", "--json", "--no-measure").out)
    assert (found["trials"], found["runs"], len(found["first"])) == (10, 20, 5)
    assert not list(fresh.glob("*.db")) + list(fresh.glob("hpsearch-files"))


def test_plan_shows_the_rungs_and_what_pruning_saves(fresh: Path, hpsearch) -> None:
    plan = ("plan", "other.yaml", "--show", "0", "--no-measure", "--set", "n_trials=81")
    ended = hpsearch(*plan, "--set", "pruner=successive_halving", "--set", "search_space.epochs=27")
    assert ended.code == 0
    assert "pruner    successive_halving, 1 cohort of 81 trials: at most 243 epochs, 2,187 without it" in ended.out
    assert "          81 trials; at most 27 after epoch 1, 9 after 3, 3 after 9\n" in ended.out
    assert ended.err.startswith("note: a run goes on after a rung from what train has saved in run.checkpoint_dir; one")
    ended = hpsearch(*plan, "--set", "pruner.hyperband.max_epochs=9", "--set", "pruner.hyperband.asynchronous=true")
    rows = ended.out.splitlines()
    start = rows.index("pruner    hyperband, 1 cohort of 81 trials")
    assert rows[start + 1 : start + 4] == [
        "          44 trials; about 14 after epoch 1, 4 after 3",
        "          22 trials; about 7 after epoch 3",
        "          15 trials to the end",
    ]
    assert "depends on which were faster" in ended.err
    found = json.loads(hpsearch(*plan, "--set", "pruner.median.max_epochs=9", "--json").out)["pruner"]
    assert (found["name"], found["cohort"], found["epochs"]) == ("median", 81, None)
    assert found["brackets"] == [{"trials": 81, "rungs": [5], "come": [81, 81]}]
    assert json.loads(hpsearch(*plan, "--json").out)["pruner"] is None


def test_plan_times_an_epoch(fresh: Path) -> None:
    ended = shell(fresh, "plan", "slow.yaml", "--json", "--workers", "2")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert 0.05 < found["epoch_s"] < 2
    assert found["workers"] == 2


def test_plan_names_all_mistakes(fresh: Path, hpsearch) -> None:
    ended = hpsearch("plan", "toy.yaml", "--set", "strategey=grid", "--set", "seeds=none")
    assert ended.code == 2
    assert "strategey" in ended.err
    assert "seeds" in ended.err


def test_try_trains_once_and_records_nothing(fresh: Path) -> None:
    ended = shell(fresh, "try", "toy.yaml", "x=0.5", "mode=plain", "--seed", "7")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["0", "1", "2", "3"]
    assert lines[-1].startswith("complete  loss 0.11")
    assert ended.err == "toy  x 0.5  mode plain  eps-1 1e-05\n"
    ended = shell(fresh, "try", "toy.yaml", "x=0.5", "mode=[bold]boom\x1b[31m")
    assert ended.code == 4
    assert "ValueError: [red]no\\x1b[2J luck" in ended.err
    assert not list(fresh.glob("*.db")) + list(fresh.glob("hpsearch-files"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [("x", "sets no hyperparameter"), ("y=1", "y: no such"), ("x=much", "no number"), ("mode=odd", "none of plain")],
)
def test_try_explains_a_wrong_setting(fresh: Path, hpsearch, setting: str, words: str) -> None:
    ended = hpsearch("try", "toy.yaml", setting)
    assert ended.code == 2
    assert words in ended.err


def test_stop_from_another_terminal(fresh: Path) -> None:
    command = [sys.executable, "-m", "hpsearch.cli.app", "run", "slow.yaml", "--workers", "1"]
    running = subprocess.Popen(
        command, cwd=fresh, env=environment(fresh), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_for_a_run(fresh)
        held = shell(fresh, "run", "slow.yaml", "-q")
        assert held.code == 7
        status = json.loads(shell(fresh, "status", "slow", "--json").out)
        assert status["state"] == "running"
        assert str(running.pid) in status["holder"]
        assert "slow" in shell(fresh, "status").out
        assert shell(fresh, "delete", "slow", "--yes").code == 7
        ended = shell(fresh, "stop", "slow", "--now")
        assert ended.err.startswith("asked slow to stop")
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert (running.returncode, out) == (130, "slow\n")
    assert "stopped" in err
    assert err.splitlines()[-1] == "next: hpsearch resume slow"


def test_sigterm_ends_with_143(fresh: Path) -> None:
    command = [sys.executable, "-m", "hpsearch.cli.app", "run", "slow.yaml", "--workers", "1", "--grace", "0s", "-q"]
    running = subprocess.Popen(command, cwd=fresh, env=environment(fresh))
    try:
        _wait_for_a_run(fresh)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 143
    finally:
        running.kill()


def _wait_for_a_run(folder: Path) -> None:
    for _ in range(200):
        if list(folder.glob("hpsearch-files/slow/*/0/log.txt")):
            return
        time.sleep(0.1)
    raise AssertionError("no run has begun")


def test_live_progress_on_a_terminal_and_ctrl_c(fresh: Path) -> None:
    command = ["-m", "hpsearch.cli.app", "run", "slow.yaml", "--workers", "1", "--set", "objective=train.py:train",
               "--set", "search_space.mode=plain", "-n", "2000", "--seeds", "2"]  # fmt: skip
    variables = environment(fresh) | {"COLUMNS": "80", "LINES": "24"}
    child = pexpect.spawn(sys.executable, command, cwd=str(fresh), env=variables, dimensions=(24, 80), encoding="utf-8")
    seen = []
    child.logfile_read = type("Log", (), {"write": lambda self, text: seen.append(text), "flush": lambda self: None})()
    child.expect("★", timeout=60)
    child.expect("Ctrl-C once", timeout=30)
    _keep_output_at_an_interrupt(child)
    child.sendintr()
    child.expect("next: hpsearch resume slow", timeout=60)
    child.expect(pexpect.EOF, timeout=30)
    child.close()
    assert child.exitstatus == 130
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "".join(seen))
    assert "/2000 trials" in text
    assert "± sd (n)" in text
    assert "╸─" in text
    assert "interrupted" in text
    assert [line for line in re.split(r"[\r\n]+", text) if len(line) > 80] == []
    assert "Traceback" not in text


def _keep_output_at_an_interrupt(child: pexpect.spawn[str]) -> None:
    """A terminal that is interrupted echoes ^C and drops what it has not yet shown, also half an escape sequence."""
    settings = termios.tcgetattr(child.fileno())
    settings[3] = (settings[3] | termios.NOFLSH) & ~termios.ECHO
    termios.tcsetattr(child.fileno(), termios.TCSANOW, settings)


def test_a_terminal_is_asked_before_a_large_grid_and_a_delete(fresh: Path) -> None:
    space = "search_space={mode: [plain, b], x: [0.1, 0.2], c: [1, 2], d: [1, 2]}"
    command = ["-m", "hpsearch.cli.app", "run", "other.yaml", "--set", "strategy=grid", "--set", space]
    child = pexpect.spawn(sys.executable, command, cwd=str(fresh), env=environment(fresh), encoding="utf-8")
    child.expect(r"Run it all the same\? \[y/N\]", timeout=30)
    child.sendline("n")
    child.expect("nothing was run", timeout=30)
    child.expect(pexpect.EOF, timeout=30)
    child.close()
    assert child.exitstatus == 2
    assert not list(fresh.glob("*.db"))


@pytest.mark.parametrize(("text", "value"), [("30s", 30), ("2m", 120), ("1.5h", 5400), ("7", 7), ("0", 0)])
def test_times(text: str, value: float) -> None:
    assert seconds("--grace", text) == value


@pytest.mark.parametrize("text", ["", "s", "-1", "1d", "nan", "inf"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        seconds("--grace", text)
