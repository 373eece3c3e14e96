"""Kill the coordinator before and after each statement and commit of a study, then run it again: nothing is lost,
nothing is doubled, no choice is another. One point in three on SQLite, one in fifteen on
PostgreSQL; with ``--full`` all."""

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

#: one in so many points, without --full and with it; odd, since points are before and after each statement in turn
STRIDE = {"sqlite": (3, 1), "postgresql": (15, 1)}
#: tests that the points of a study are shared out among, for as many processes of pytest: (engine, share)
PARTS = [("sqlite", 0), ("sqlite", 1), ("postgresql", 0)]
SHARES = {"sqlite": 2, "postgresql": 1}
#: of one study, with its commits (182 and 155 when this was written)
MOST_STATEMENTS = 300
#: events that a recovery is killed at: its first 30 statements, before and after each
RECOVERY = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where it can be: what is tested is which transactions there are, not the disk."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="hpsearch-sweep-", dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


def sweep(folder: Path, *jobs: dict[str, Any], server: Server | None = None) -> list[dict[str, Any]]:
    """What these jobs, all of one study, find: a line for the uninterrupted study, then one for each point."""
    url = server.url(server.create()) if server else f"sqlite:///{folder}/r.db"
    lines = [json.dumps(vars(Job(folder=str(folder), url=url, **job))) for job in jobs]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sweep"],
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | threads,
        input="\n".join(lines),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: Sequence[dict[str, Any]]) -> None:
    bad = [line for line in found if line["problems"]]
    assert not bad, f"{len(bad)} of {len(found)} points: {json.dumps(bad[:3], indent=1)}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("engine", "share"), PARTS)
@pytest.mark.parametrize("study", STUDIES)
def test_a_kill_at_any_statement_changes_nothing(
    study: str, engine: str, share: int, folder: Path, request: pytest.FixtureRequest
) -> None:
    server: Server | None = request.getfixturevalue("postgres_server") if engine == "postgresql" else None
    if server:
        server.start()
    stride = STRIDE[engine][request.config.getoption("--full")]
    first, step = 1 + share * stride, SHARES[engine] * stride
    calm, *found = sweep(folder, {"study": study, "points": [first], "step": step}, server=server)
    assert calm["problems"] == []
    # Each has two points, so a study that grows makes the sweep grow.
    assert calm["events"] / 2 <= MOST_STATEMENTS
    states = {trial[2] for trial in calm["calm"]["trials"]}
    assert {"complete", "pruned"} <= states
    assert [line["point"][0] for line in found] == list(range(first, calm["events"] + 1, step))
    # The first kills of a start on a slow machine may come late; nearly all must have struck.
    assert sum(line["killed"] for line in found) >= len(found) - 1
    check(found)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
def test_a_second_kill_in_the_recovery_changes_nothing(
    folder: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    server: Server | None = request.getfixturevalue("postgres_server") if engine == "postgresql" else None
    if server:
        server.start()
    full = request.config.getoption("--full") and server is None
    points, again = [101, 222] if full else [101], range(1, RECOVERY + 1, 1 if full else 5)
    calm, *found = sweep(folder, {"study": "coarse", "points": points, "again": list(again)}, server=server)
    assert calm["problems"] == []
    assert len(found) == len(points) * len(again)
    assert sum(line["killed"] for line in found) >= len(found) - 1
    check(found)


#: of all pairs of kills, these: every 13th event of the first start, every 11th of the second. Neither divides what a
#: turn takes, so all kinds of moments come together. All 150,000 pairs would take 15 hours of CPU
FIRST, SECOND = 13, 11


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("study", STUDIES)
def test_a_second_kill_anywhere_changes_nothing(study: str, folder: Path) -> None:
    (alone,) = sweep(folder, {"study": study})
    again = list(range(1, alone["events"] + 1, SECOND))
    calm, *found = sweep(folder, {"study": study, "points": [FIRST], "step": FIRST, "again": again})
    assert calm["problems"] == []
    assert len(found) == alone["events"] // FIRST * len(again)
    # The later the first kill, the earlier the second start is done; what lies behind that strikes nobody.
    assert sum(line["killed"] for line in found) > len(found) / 3
    check(found)


#: what the sweep says of each mutant
CAUGHT = {
    "no_fence": ("differs", "verify"),
    "requeue_in_two_transactions": ("killed",),
    "acknowledge_before_commit": ("unrecorded",),
    "rng_in_memory": ("killed", "verify", "differs"),
}
#: where each is looked for; requeuing is seen only between its two transactions, of the run whose worker is lost
LOOKED = {name: [91, 151, 211] for name in MUTANTS} | {"requeue_in_two_transactions": list(range(97, 117, 2))}


@pytest.mark.timeout(600)
def test_the_sweep_finds_each_planted_bug_and_no_other(folder: Path) -> None:
    # One process for all, and first the same points of the real code: what is found is the bug's.
    sound = {"study": "coarse", "points": sorted({at for points in LOOKED.values() for at in points})}
    planted = [{"study": "coarse", "points": points, "mutant": name} for name, points in LOOKED.items()]
    problems: dict[str, list[str]] = {name: [] for name in ("", *MUTANTS)}
    for line in sweep(folder, sound, *planted):
        # Without a kill a planted bug does nothing wrong: one that only fails would be no proof.
        assert "point" in line or line["problems"] == [], line
        problems[line["mutant"]] += line["problems"]
    assert problems.pop("") == []
    missed = [name for name, found in problems.items() if not any(words.startswith(CAUGHT[name]) for words in found)]
    assert not missed, {name: problems[name] for name in missed}
