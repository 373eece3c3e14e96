"""rerun as a command: what it prints, how it ends, and what is left when it is interrupted."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import psutil
import pytest

from tests.cli.conftest import environment

HANGS = """
import subprocess, time
from pathlib import Path

def train(run):
    if Path("hang").exists():
        child = subprocess.Popen(["sleep", "1234.5"])
        Path("pids.txt").write_text(str(child.pid))
        time.sleep(1000)
    run.report(0, loss=1.0)
    return 1.0
"""


@pytest.fixture
def db(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "hpsearch.db", isolation_level=None)
    yield connection
    connection.close()


def tamper(db: sqlite3.Connection, run: str, epoch: int, change: str) -> None:
    """Change the stored loss of a run of ``toy``."""
    where = (
        "trial = ? AND seed = ? AND epoch = ? AND name = 'loss' AND study = (SELECT id FROM study WHERE name = 'toy')"
    )
    done = db.execute(f"UPDATE metric SET value = {change} WHERE {where}", (*run.split("/"), epoch))
    assert done.rowcount == 1


def test_equal_runs_pass_the_check(folder: Path, db: sqlite3.Connection, hpsearch) -> None:
    ended = hpsearch("rerun", "toy/0", "oth/0/0", "toy/0/1", "--verify", "--workers", "2")
    assert ended.code == 0, ended.err
    assert sorted(ended.out.splitlines()) == [
        "other/0/0  bit-equal (4 epochs)",
        "toy/0/0  bit-equal (4 epochs)",
        "toy/0/1  bit-equal (4 epochs)",
    ]
    assert ended.err == "repeating 3 runs, each alone\n3 bit-equal\n"
    tamper(db, "0/1", 2, "value * (1 + 2.5e-6)")
    ended = hpsearch("rerun", "toy/0/1", "--verify", "-q")
    first, why = ended.out.splitlines()[0], ended.out.splitlines()[1:]
    assert (ended.code, ended.err) == (0, "")
    assert first == "toy/0/1  equal within tolerance (largest relative difference 2e-06 at epoch 2, loss)"
    assert all(line.startswith(" " * 9) for line in why)


def test_a_difference_ends_with_code_5_only_where_it_is_verified(
    folder: Path, db: sqlite3.Connection, hpsearch
) -> None:
    tamper(db, "0/0", 3, "0.1234")
    tamper(db, "0/1", 1, "value + 1e-7")
    ended = hpsearch("rerun", "toy/0")
    assert ended.code == 0
    lines = dict(line.split("  ", 1) for line in ended.out.splitlines() if line.startswith("toy"))
    assert lines["toy/0/0"] == "differs from epoch 3 on: loss 0.1234 stored, 0.2525 now"
    assert lines["toy/0/1"].startswith("equal within tolerance (largest relative difference 2e-07 at epoch 1, loss)")
    assert "Seeded are torch, numpy and random" in ended.out
    assert ended.err.splitlines()[-1] == "1 differs, 1 equal within tolerance"
    db.execute("UPDATE run SET engine = 'vmap, cpu, 64 lanes'")
    text = hpsearch("rerun", "toy/0/0").out
    assert "trained as vmap, cpu, 64 lanes when it was stored, as solo, cpu now" in text
    assert "with large steps" in text
    assert "Seeded" not in text
    ended = hpsearch("rerun", "toy/0", "--verify", "--json")
    assert ended.code == 5
    assert ended.err.splitlines()[-2:] == [
        "error: 1 of 2 runs cannot be confirmed within 0.0001: toy/0/0",
        "  hint: what differs is above; --tolerance allows more",
    ]
    found = json.loads(ended.out)
    assert (found["schema"], found["tolerance"]) == (2, 1e-4)
    run = found["runs"][0]
    assert (run["run"], run["result"], run["epoch"], run["metric"]) == ("toy/0/0", "differs", 3, "loss")
    assert (run["stored"], run["now"]) == (0.1234, pytest.approx(0.2525))
    assert hpsearch("rerun", "toy/0/0", "--verify", "-q", "--tolerance", "10").code == 0


def test_a_whole_study_leaves_out_what_failed(folder: Path, hpsearch) -> None:
    few = ("--name", "few", "--set", "strategy.grid.values.x=[0.95]", "--set", "seeds=1", "--on", "inline", "-q")
    assert hpsearch("run", "toy.yaml", *few).code == 0
    ended = hpsearch("rerun", "few", "--verify", "--json", "--workers", "2")
    assert ended.code == 0, ended.err
    assert "few: 1 of 4 runs left out: failed, or not ended" in ended.err
    found = json.loads(ended.out)["runs"]
    # The baseline, and two that have diverged.
    assert len(found) == 3
    assert {run["result"] for run in found} == {"bit-equal"}


def test_what_cannot_be_is_said_with_a_way_out(folder: Path, db: sqlite3.Connection, hpsearch) -> None:
    failed = db.execute("SELECT trial FROM run WHERE state = 'failed'").fetchone()[0]
    for tokens, code, words in [
        ((), 2, "hint: hpsearch rerun digits/12"),
        (("toy/0/0/0",), 2, "is no address"),
        (("nosuch/0",), 3, "there is no study 'nosuch'"),
        (("toy/99",), 3, "toy has no trial 99"),
        (("toy/0/7",), 3, "its seeds: 0, 1"),
        ((f"toy/{failed}/0",), 2, f"toy/{failed}/0 failed (exception)"),
        (("toy/0", "--tolerance", "-1"), 2, "--tolerance: must be at least 0"),
        (("toy/0", "--tolerance", "nan"), 2, "--tolerance: must be at least 0"),
        (("toy/0", "--workers", "0"), 2, "at least 1"),
    ]:
        ended = hpsearch("rerun", *tokens)
        assert (ended.code, ended.out) == (code, ""), ended
        assert words in ended.err
    train = folder / "train.py"
    elsewhere = Path(db.execute("SELECT file FROM study WHERE name = 'toy'").fetchone()[0]).parent
    db.execute("UPDATE study SET file = ? WHERE name = 'toy'", (str(folder / "toy.yaml"),))
    assert elsewhere != folder
    (folder / "toy.yaml").unlink()
    assert hpsearch("rerun", "toy/0/0", "--verify", "-q").code == 0
    train.write_text(train.read_text() + "\n")
    ended = hpsearch("rerun", "toy/0/0")
    assert ended.code == 2
    assert "--allow-changed-code repeats the runs with the code as it is now" in ended.err
    assert hpsearch("rerun", "toy/0/0", "--allow-changed-code", "--verify").code == 0
    train.unlink()
    ended = hpsearch("rerun", "toy/0/0")
    assert ended.code == 2
    assert f"there is no file {train}" in ended.err


def test_it_fits_80_columns(folder: Path, db: sqlite3.Connection) -> None:
    tamper(db, "0/0", 3, "0.1234")
    tamper(db, "0/1", 3, "value + 1e-7")
    db.execute("UPDATE environment SET facts = json_patch(facts, ?)", (json.dumps({"machine": "an abacus " * 12}),))
    command = ["-m", "hpsearch.cli.app", "rerun", "toy/0", "--verify"]
    child = pexpect.spawn(
        sys.executable, command, cwd=str(folder), env=environment(folder), dimensions=(24, 80), encoding="utf-8"
    )
    text = child.expect(pexpect.EOF, timeout=120) or child.before
    child.close()
    assert child.exitstatus == 5
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    lines = plain.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert any(line.startswith("toy/0/0  differs from epoch 3 on") for line in lines)
    assert "         machine an abacus" in plain


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hang.py").write_text(HANGS)
    (tmp_path / "hang.yaml").write_text(
        "name: hang\nobjective: hang.py:train\nmetric: {loss: minimize}\nsearch_space: {x: {uniform: [0, 1]}}\n"
        "strategy: random\nn_trials: 1\nbaseline: false\n"
    )
    (tmp_path / "temporary").mkdir()
    variables = environment(tmp_path) | {"TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "hpsearch.cli.app"]
    subprocess.run([*command, "run", "hang.yaml", "-q"], cwd=tmp_path, env=variables, check=True, timeout=120)
    (tmp_path / "hang").touch()
    # A test suite in the background of a shell has the signal ignored, and so have its children.
    start = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    start += "runpy.run_module('hpsearch.cli.app', run_name='__main__', alter_sys=True)"
    again = [sys.executable, "-c", start, "rerun", "hang/0"]
    child = subprocess.Popen(again, cwd=tmp_path, env=variables, stderr=subprocess.PIPE)
    for _ in range(600):
        if (tmp_path / "pids.txt").exists() and (tmp_path / "pids.txt").read_text():
            break
        time.sleep(0.1)
    family = [
        *psutil.Process(child.pid).children(recursive=True),
        psutil.Process(int((tmp_path / "pids.txt").read_text())),
    ]
    assert len(family) >= 3
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert list((tmp_path / "temporary").glob("hpsearch-*")) == []
