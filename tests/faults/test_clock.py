"""A clock that is moved while a study runs: the machine's under SQLite, the server's under PostgreSQL.

A small library that a process and its children load first adds to the time that they are told what a file says, which
is changed while they run. The monotonic clock is left alone, as a moved clock leaves it. (libfaketime does this too,
but Python's ``sleep`` fails under its version 0.9.10.)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch.errors import StudyHeldError
from hpsearch.store import Turn, this_process
from hpsearch.stores.sql import open_archive, open_store
from tests.conformance.stores import RECORD, trial
from tests.faults.test_kill import STUDY, TRAIN, finished_runs, outcome, wait_for_more
from tests.postgres import Server

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no clock can be moved here: there is no C compiler"),
    pytest.mark.timeout(300),
]
DAY, HOUR = 86_400, 3600
SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *moved;

__attribute__((constructor)) static void find(void) {
    const char *path = getenv("MOVED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    moved = at == MAP_FAILED ? NULL : at;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && moved && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += *moved;
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    if (!failed && time) time->tv_sec = now.tv_sec, time->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """A clock that some processes have, so many seconds before or after the true one."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "moved"
        self.move(0)
        self._file.chmod(0o644)
        (folder / "clock.c").write_text(SOURCE)
        command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", folder / "clock.so", folder / "clock.c"]
        subprocess.run(command, check=True)
        #: of processes that have this clock
        self.environment = {"LD_PRELOAD": str(folder / "clock.so"), "MOVED_CLOCK": str(self._file)}

    def move(self, seconds: int) -> None:
        """-86,400: it is yesterday."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # the same bytes, which they all have
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of this machine, for every process that the test starts."""
    made = Clock(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Clock]]:
    """A database server with a clock of its own."""
    server = Server()
    clock = Clock(server.folder)
    server.environment = clock.environment
    server.start()
    yield server, clock
    server.remove()


@pytest.fixture
def db(moving: tuple[Server, Clock]) -> Iterator[str]:
    server, clock = moving
    clock.move(0)
    name = server.create()
    yield server.url(name)
    server.drop(name)


def write(folder: Path, sleep_s: float) -> Path:
    (folder / "train.py").write_text(TRAIN.replace("0.05", str(sleep_s)))
    (folder / "study.yaml").write_text(STUDY + "n_trials: 16\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of some seconds: there is time to move its clock."""
    return write(tmp_path, 0.15)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    folder = write(tmp_path_factory.mktemp("calm"), 0.0)
    hp.run(hp.read_study(folder / "study.yaml"), db=f"sqlite:///{folder}/calm.db", on="inline")
    return outcome(f"sqlite:///{folder}/calm.db")


def start(folder: Path, db: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hpsearch", "run", "study.yaml", "--db", db, "--workers", "2"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def told(folder: Path, db: str, *tokens: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpsearch", *tokens, "--db", db]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def move_while_it_runs(clock: Clock, process: subprocess.Popen[bytes], db: str) -> None:
    """A day back, a day forth, an hour back; runs end in each of these times."""
    for seconds in (-DAY, DAY, -HOUR):
        clock.move(seconds)
        wait_for_more(db, len(finished_runs(db)), process)
        assert process.poll() is None, process.communicate()[1].decode()


def test_the_machines_clock_goes_back_and_forth(folder: Path, clock: Clock, calm: list[tuple[object, ...]]) -> None:
    db = f"sqlite:///{folder}/moved.db"
    first = start(folder, db)
    try:
        wait_for_more(db, 0, first)
        move_while_it_runs(clock, first, db)
        # Its lease is renewed by the clock as it is now: nobody else gets the study.
        other = told(folder, db, "run", "study.yaml")
        assert other.returncode == 7, other.stderr
        assert f"process {first.pid} on" in other.stderr
        shown = told(folder, db, "status", "killed")
        assert shown.returncode == 0, shown.stderr
        # Killed tomorrow: its lease lasts until then, and yet it is known to be dead.
        clock.move(DAY)
        wait_for_more(db, len(finished_runs(db)) + 2, first)
    finally:
        end(first)
    clock.move(0)
    second = told(folder, db, "run", "study.yaml", "--workers", "2")
    assert second.returncode == 0, second.stderr
    assert outcome(db) == calm
    checked = told(folder, db, "verify")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.full
def test_the_servers_clock_goes_back_and_forth(
    folder: Path, moving: tuple[Server, Clock], db: str, calm: list[tuple[object, ...]]
) -> None:
    server, clock = moving
    process = start(folder, db)
    try:
        wait_for_more(db, 0, process)
        before = server.execute("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
        move_while_it_runs(clock, process, db)
        after = server.execute("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
        assert float(str(after)) < float(str(before)) - 3000  # it is the server's clock that has been moved
        _, errors = process.communicate(timeout=120)
    finally:
        end(process)
    assert process.returncode == 0, errors.decode()
    assert outcome(db) == calm
    checked = told(folder, db, "verify")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_lease_of_another_machine_lasts_as_much_longer_as_the_clock_went_back_and_says_so(
    moving: tuple[Server, Clock], db: str
) -> None:
    _, clock = moving
    elsewhere = replace(this_process(), host="elsewhere")
    held = open_store(db)
    held.open(RECORD, elsewhere, lease_s=60.0)
    clock.move(-HOUR)
    with pytest.raises(StudyHeldError, match=r"held by process \d+ on elsewhere") as caught:
        open_store(db).open(RECORD, this_process(), lease_s=60.0)
    assert "free in 36" in caught.value.hint
    # It lives, and says so within seconds: the lease is as long as ever again.
    held.renew(1.0)
    with pytest.raises(StudyHeldError) as caught:
        open_store(db).open(RECORD, this_process(), lease_s=60.0)
    assert any(f"free in {left} s" in caught.value.hint for left in range(40, 61))
    # Forth by more than the lease, before it could say so: whoever comes in these seconds gets the study, it does not.
    clock.move(0)
    other = open_store(db)
    other.open(RECORD, this_process(), lease_s=60.0)
    with pytest.raises(StudyHeldError):
        held.write(Turn(trials=[trial(0)]))
    other.write(Turn(trials=[trial(0)]))
    other.close("stopped")
    held.close("complete")  # of what it has lost it changes nothing
    assert open_archive(db).study("digits").state == "stopped"
    assert [t.number for t in open_archive(db).trials("digits")] == [0]
