"""Kill the coordinator before and after each statement and commit of a study, then run it again: nothing is lost,
nothing is doubled, no choice is another. ``--full`` takes every point; else a part of them, the same at every start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.mutants import MUTANTS
from tests.faults.sweep import STUDIES, Job
from tests.postgres import Server

#: one in so many points, without --full and with it
STRIDE = {"sqlite": (16, 1), "postgresql": (40, 5)}
#: events that a recovery is killed at: its first 30 statements, before and after each
RECOVERY = 60
PROCESSES = 2


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where it can be: what is tested is which transactions there are, not the disk."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="hpsearch-sweep-", dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


def start(folder: Path, name: str, server: Server | None = None, **fields: Any) -> subprocess.Popen[str]:
    place = folder / name
    place.mkdir()
    url = server.url(server.create()) if server else f"sqlite:///{place}/r.db"
    job = Job(folder=str(place), url=url, **fields)
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    # Its output goes to a file: a full pipe would stop one process while another is read.
    with (place / "out").open("w") as out, (place / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.sweep"],
            cwd=Path(__file__).parents[2],
            env=os.environ | threads,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            text=True,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(vars(job)))
    process.stdin.close()
    return process


def end(process: subprocess.Popen[str], folder: Path, name: str) -> list[dict[str, Any]]:
    code = process.wait()
    assert code == 0, (folder / name / "err").read_text()
    return [json.loads(line) for line in (folder / name / "out").read_text().splitlines()]


def count(folder: Path, study: str, server: Server | None) -> int:
    """How many events the uninterrupted study has; it must hold itself."""
    (calm,) = end(start(folder, "calm", server, study=study), folder, "calm")
    assert calm["problems"] == []
    states = {trial[2] for trial in calm["calm"]["trials"]}
    assert {"complete", "pruned"} <= states
    return int(calm["events"])


def sweep(
    folder: Path, study: str, points: Sequence[int], again: Sequence[int] = (), server: Server | None = None
) -> list[dict[str, Any]]:
    """All points, shared out among processes."""
    shares = {f"part{k}": list(points[k::PROCESSES]) for k in range(PROCESSES)}
    begun = {
        name: start(folder, name, server, study=study, points=share, again=list(again))
        for name, share in shares.items()
        if share
    }
    return [line for name, process in begun.items() for line in end(process, folder, name) if "point" in line]


def check(found: Sequence[dict[str, Any]]) -> None:
    bad = [line for line in found if line["problems"]]
    assert not bad, f"{len(bad)} of {len(found)} points: {json.dumps(bad[:3], indent=1)}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", STRIDE)
@pytest.mark.parametrize("study", STUDIES)
def test_a_kill_at_any_statement_changes_nothing(
    study: str, engine: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    server: Server | None = request.getfixturevalue("postgres_server") if engine == "postgresql" else None
    if server:
        server.start()
    events = count(folder, study, server)
    points = range(1, events + 1, STRIDE[engine][request.config.getoption("--full")])
    found = sweep(folder, study, points, server=server)
    assert len(found) == len(points)
    # The first kills of a start on a slow machine may come late; nearly all must have struck.
    assert sum(line["killed"] for line in found) >= len(points) - 1
    check(found)


@pytest.mark.timeout(3600)
def test_a_second_kill_in_the_recovery_changes_nothing(folder: Path, request: pytest.FixtureRequest) -> None:
    full = request.config.getoption("--full")
    found = sweep(folder, "coarse", [101, 222] if full else [101], range(1, RECOVERY + 1, 1 if full else 5))
    assert sum(line["killed"] for line in found) >= len(found) - 1
    check(found)


#: what the sweep says of each mutant
CAUGHT = {
    "no_fence": ("differs", "verify"),
    "requeue_in_two_transactions": ("killed", "resume"),
    "acknowledge_before_commit": ("unrecorded",),
    "rng_in_memory": ("killed", "verify", "differs"),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_sweep_finds_a_planted_bug(mutant: str, folder: Path) -> None:
    # Requeuing is seen only where the recovery itself is killed, in its first turn.
    again = range(43, 56, 2) if mutant == "requeue_in_two_transactions" else ()
    points = [151] if again else [91, 151, 211]
    found = end(start(folder, mutant, study="coarse", points=points, again=list(again), mutant=mutant), folder, mutant)
    problems = [words for line in found if "point" in line for words in line["problems"]]
    assert any(words.startswith(CAUGHT[mutant]) for words in problems), found
