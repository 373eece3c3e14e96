"""A database that is torn, cut, flipped, of a newer version, locked, or on a full disk; and a clock that goes back."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.cli.app import call
from hpsearch.store import Turn, this_process
from hpsearch.stores.sql import open_archive, open_store
from hpsearch.trial import State
from tests.conformance.stores import RECORD, trial

TRAIN = """
def train(run):
    for epoch in range(40):
        run.report(epoch, **{f"metric-{k}": run["x"] + epoch for k in range(10)}, loss=run["x"])
    return run["x"]
"""
STUDY = """
name: s
objective: train.py:train
metric: {loss: minimize}
search_space: {x: {uniform: [0, 1]}}
strategy: random
n_trials: 40
baseline: false
"""


def write_study(folder: Path) -> Path:
    (folder / "train.py").write_text(TRAIN)
    (folder / "s.yaml").write_text(STUDY)
    return folder


def command(folder: Path, *tokens: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpsearch", *tokens], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("good"))
    hp.run(hp.read_study(folder / "s.yaml"), db=f"sqlite:///{folder}/r.db", on="inline")
    return folder


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2 + 100]
    elif how == "torn":
        # One page of another time: the middle of the file was never written.
        middle = len(content) // 2 // 4096 * 4096
        content[middle : middle + 4096] = bytes(4096)
    elif how == "flipped":
        for place in range(4096 * 4, len(content), 4096):
            content[place] ^= 0xFF
    path.write_bytes(content)
    if how == "newer":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            connection.commit()


@pytest.mark.parametrize(("how", "words"), [("cut", ""), ("torn", ""), ("flipped", ""), ("newer", "newer hpsearch")])
def test_a_damaged_database_is_said_to_be_so_and_is_not_touched(
    good: Path, tmp_path: Path, how: str, words: str
) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "r.db"
    damage(path, how)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    ended = command(tmp_path, "verify", "--db", "sqlite:///r.db")
    assert ended.returncode in (5, 6), ended
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 2
    assert words in ended.stderr
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


@pytest.mark.parametrize(("how", "words"), [("cut", ""), ("torn", ""), ("flipped", ""), ("newer", "newer hpsearch")])
def test_no_study_goes_on_in_a_damaged_database(good: Path, tmp_path: Path, how: str, words: str) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "r.db"
    damage(path, how)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    ended = command(tmp_path, "run", "s.yaml", "--on", "inline", "--db", "sqlite:///r.db", "-q")
    assert ended.returncode == 6, ended
    *_, error, hint = ended.stderr.splitlines()
    assert error.startswith("error: sqlite:///r.db")
    assert "damaged" in error or how == "newer"
    assert words in hint
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr) < 800
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert not [one.name for one in tmp_path.iterdir() if one.name.startswith("r.db-")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        # Root may mount: where it fails all the same, nobody is to think that this was tested.
        give_up = pytest.skip if os.geteuid() else pytest.fail
        give_up(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    # Lazily: the failed coordinator's connection lives as long as its traceback.
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_pauses_the_study_and_room_lets_it_go_on(small_disk: Path, tmp_path: Path) -> None:
    study = hp.read_study(write_study(tmp_path) / "s.yaml")
    db, calm = f"sqlite:///{small_disk}/r.db", f"sqlite:///{tmp_path}/calm.db"
    run = ("run", "s.yaml", "--on", "inline", "--db", db, "--files", "files", "-q")
    ended = command(tmp_path, *run)
    assert ended.returncode == 6, ended
    assert ended.stderr.startswith(f"error: {db}: the disk is full")
    assert "make room and run the same command again" in ended.stderr
    assert len(ended.stderr.splitlines()) == 2
    results = hp.load("s", db)
    assert results.study.state == "interrupted"
    known = {t.number: t.value for t in results.trials if t.state is State.COMPLETE}
    assert 0 < len(known) < 40
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    ended = command(tmp_path, *run)
    assert ended.returncode == 0, ended
    assert hp.load("s", db).study.state == "complete"
    hp.run(study, db=calm, on="inline", files=tmp_path / "calm")
    found, expected = ({t.number: (dict(t.params), t.value) for t in hp.load("s", url).trials} for url in (db, calm))
    assert found == expected
    assert known.items() <= {number: value for number, (_, value) in found.items()}.items()
    assert call(["verify", "--db", db]) == 0


#: a reader that begins, sees somebody wait for it with the write lock in hand, and ends a second later, or when it is
#: told to; it says what the file was then. (Another process looks: who closes a file loses its locks of it.)
READING = """
import select, sqlite3, subprocess, sys

def somebody_waits():
    other = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        return False
    except sqlite3.OperationalError:
        return True
    finally:
        other.close()

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT * FROM study").fetchall()
print("reading", flush=True)
waited = 0
while waited < 20 and not select.select([sys.stdin], [], [], 0.05)[0]:
    waited += somebody_waits()
sha256 = subprocess.check_output(["sha256sum", sys.argv[1]], text=True).split()[0]
print(sha256, waited, flush=True)
if sys.argv[2:]:
    sys.stdin.read()
connection.execute("COMMIT")
"""


def reader(path: Path, *more: str) -> subprocess.Popen[str]:
    with closing(sqlite3.connect(path)) as connection:
        # Beside a WAL nobody waits for readers.
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    code = [sys.executable, "-c", READING, str(path), *more]
    process = subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    return process


def test_a_long_reader_delays_the_study_and_does_not_end_it(tmp_path: Path) -> None:
    study, db = hp.read_study(write_study(tmp_path) / "s.yaml"), f"sqlite:///{tmp_path}/r.db"
    open_store(db)
    before = hashlib.sha256((tmp_path / "r.db").read_bytes()).hexdigest()
    reading = reader(tmp_path / "r.db")
    try:
        assert hp.run(study, db=db, on="inline").exit_code == 0
    finally:
        unchanged, waited = reading.communicate()[0].split()
    assert waited == "20"
    assert unchanged == before
    assert call(["verify", "--db", db]) == 0


#: the command, which waits for others for a third of a second
HASTY = """
import sys
from hpsearch.cli.app import call
from hpsearch.stores.sql import engine
engine.BUSY_MS = 300
sys.exit(call(sys.argv[1:]))
"""


def test_a_reader_that_does_not_end_pauses_the_study_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_study(tmp_path)
    open_store(f"sqlite:///{tmp_path}/r.db")
    run = [sys.executable, "-c", HASTY, "run", "s.yaml", "--on", "inline", "--db", "sqlite:///r.db", "-q"]
    reading = reader(tmp_path / "r.db", "until it is told")
    try:
        ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    finally:
        reading.communicate()
    assert ended.returncode == 6, ended
    assert ended.stderr.startswith("error: sqlite:///r.db: another process has locked it")
    assert len(ended.stderr.splitlines()) == 2
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended
    assert call(["verify", "--db", f"sqlite:///{tmp_path}/r.db"]) == 0


def test_a_clock_that_goes_back_frees_no_lease_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator's wall clock is in the record for people to read; nothing is decided by it."""
    db = f"sqlite:///{tmp_path}/r.db"
    store = open_store(db)
    store.open(RECORD, this_process(), lease_s=60.0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400.0)
    store.write(Turn(trials=[trial(0)]))
    assert store.renew(1.0) == []
    assert open_archive(db).study("digits").state == "running"
    monkeypatch.setattr(time, "time", lambda: now + 86_400.0)
    store.write(Turn(trials=[trial(1)]))
    assert open_archive(db).study("digits").state == "running"
    store.close("stopped")
    assert [t.number for t in open_archive(db).trials("digits")] == [0, 1]
