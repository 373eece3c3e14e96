"""``hpsearch run --on ray``: a cluster that the command starts for itself, and what it says where there is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import environment, shell, write_studies

#: the port of Ray's dashboard, where it has one
DASHBOARD = 8265


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    write_studies(tmp_path)
    return tmp_path


def test_a_study_runs_on_a_cluster_of_its_own(fresh: Path, finished: Path) -> None:
    options = ["--on", "ray", "--workers", "2", "--progress", "none", "--json"]
    ended = shell(fresh, "run", "toy.yaml", *options)
    assert ended.code == 0, ended.err
    local = json.loads(shell(finished, "run", "toy.yaml", "--on", "inline", "--json", "-q").out)
    remote = json.loads(ended.out)
    assert {name: remote[name] for name in ("trials", "best")} == {name: local[name] for name in ("trials", "best")}
    assert "training 0.3 with seed 0" in shell(fresh, "logs", "toy/1").out
    again = shell(fresh, "rerun", "toy/1", "--verify", "--on", "ray", "--workers", "1")
    assert again.code == 0, again.err
    assert "bit-equal" in again.out + again.err


def test_the_cluster_is_of_this_machine_alone_and_ends_with_its_coordinator(fresh: Path) -> None:
    command = [sys.executable, "-m", "hpsearch", "run", "slow.yaml", "--on", "ray", "--workers", "1", "-q"]
    process = subprocess.Popen(command, cwd=fresh, env=environment(fresh), stderr=subprocess.DEVNULL)
    family: dict[int, psutil.Process] = {}
    try:
        end = time.monotonic() + 90
        while not (fresh / "hpsearch-files/slow/0/0/log.txt").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        family = {child.pid: child for child in psutil.Process(process.pid).children(recursive=True)}
        names = {child.name() for child in family.values()}
        assert {"gcs_server", "raylet"} <= names
        doors = {
            child: [link.laddr for link in child.net_connections() if link.status == "LISTEN"]
            for child in family.values()
        }
        ends = [one for found in doors.values() for one in found]
        assert {one.ip for one in ends} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        # Ray's dashboard, of which it starts a process all the same, lets nobody in; nor is anyone without the token.
        assert DASHBOARD not in {one.port for one in ends}
        assert [found for child, found in doors.items() if any("dashboard.py" in w for w in child.cmdline())] == [[]]
        (raylet,) = (child for child in family.values() if child.name() == "raylet")
        # Who comes knows, as the cluster does, that 127.0.0.1 is no name of the network's.
        here = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        refused = shell(fresh, "run", "other.yaml", "--on", "ray", "--ray-address", head_of(raylet), "-q", **here)
        assert refused.code == 6
        assert "takes no one without its token" in refused.err
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(list(family.values()), timeout=20)
    assert not alive


def head_of(raylet: psutil.Process) -> str:
    """The address at which drivers connect."""
    return next(word for word in raylet.cmdline() if word.startswith("--gcs-address=")).partition("=")[2]


def test_what_cannot_be_is_said_before_anything_runs(fresh: Path, hpsearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fresh)
    ended = hpsearch("run", "other.yaml", "--gpus-per-worker", "1")
    assert (ended.code, "--gpus-per-worker is of Ray's workers, and they are local" in ended.err) == (2, True)
    ended = hpsearch("run", "other.yaml", "--on", "ray", "--gpus-per-worker", "1.5")
    assert (ended.code, "a whole number or a part of one GPU, not 1.5" in ended.err) == (2, True)
    ended = hpsearch("run", "other.yaml", "--on", "ray", "--device", "cuda:1", "-q")
    assert (ended.code, "Ray chooses a GPU for each worker" in ended.err) == (2, True)
    ended = hpsearch("run", "other.yaml", "--workers", "many")
    assert (ended.code, "must be a whole number of at least 1, or auto" in ended.err) == (2, True)
    monkeypatch.setenv("RAY_TMPDIR", str(fresh))  # where Ray looks for a cluster that runs here
    ended = hpsearch("run", "other.yaml", "--on", "ray", "--ray-address", "auto", "-q")
    assert ended.code == 6
    assert "there is no Ray cluster at auto" in ended.err
