"""A database server that is there and says nothing: its processes are stopped, or the network swallows its answers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy.exc import OperationalError

import hpsearch as hp
from hpsearch.store import Turn, this_process
from hpsearch.stores.sql import open_archive, open_store, session
from hpsearch.stores.sql.engine import make_engine, parse, unhurried
from tests.conformance.stores import RECORD, trial
from tests.faults.proxy import Proxy, Where
from tests.faults.test_kill import STUDY, TRAIN, finished_runs, outcome, wait_for_more
from tests.faults.test_lost_answers import record
from tests.faults.test_lost_answers import session as talk
from tests.postgres import Server

SILENT_S = 1.5
#: the command, whose waiting is short
COORDINATOR = """
import sys
import hpsearch.launch
from hpsearch.cli.app import call
from hpsearch.stores.sql import session
session.SILENT_S, hpsearch.launch.PATIENCE_S = {silent}, ({patience}, 1.0, 0.0)
sys.exit(call(["run", "study.yaml", "--db", {db!r}, "--workers", "2"]))
"""


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """All of its processes are stopped; the kernel goes on to acknowledge what they are sent."""
    first = psutil.Process(server.pid)
    first.suspend()  # it makes no more
    family = [first, *first.children(recursive=True)]
    try:
        for process in family:
            process.suspend()
        yield
    finally:
        for process in reversed(family):
            with suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SILENT_S", SILENT_S)


@pytest.mark.usefixtures("short")
def test_a_turn_outlasts_a_frozen_server(postgres: str, postgres_server: Server) -> None:
    words: list[str] = []
    store = open_store(f"{postgres}?connect_timeout=2", patience_s=lambda: 60.0, tell=words.append)
    store.open(RECORD, this_process(), lease_s=60.0)
    with ThreadPoolExecutor() as thread, frozen(postgres_server):
        written = thread.submit(store.write, Turn(trials=[trial(0)], seconds=1.0))
        time.sleep(SILENT_S + 3.0)  # and longer than it takes to connect again
        assert not written.done()
    written.result()
    store.write(Turn(trials=[trial(1)], seconds=1.0))
    store.close("stopped")
    summary = open_archive(postgres).study("digits")
    assert (summary.rev, summary.seconds) == (2, 2.0)
    assert "trying again for up to 60 s" in words[0]
    assert "the database is back" in words[-1]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("number", "where"), [(2, "swallow before"), (6, "swallow after")])
def test_a_swallowed_answer_loses_and_doubles_nothing(
    number: int, where: Where, postgres: str, postgres_server: Server
) -> None:
    open_store(postgres)
    told, cut = [], []
    for cuts in ({}, {number: where}):
        with Proxy(postgres_server.port, cuts) as proxy:
            told.append((talk(postgres_server.url(postgres.rpartition("/")[2], proxy.port)), record(postgres)))
            cut.append(proxy.cut)
        open_store(postgres).delete("digits")
    assert cut == [0, 1]
    assert told[0] == told[1]


@pytest.mark.usefixtures("short")
def test_a_statement_that_may_take_its_time_is_waited_for(postgres: str) -> None:
    open_store(postgres)
    engine = make_engine(parse(postgres), "rw")
    with engine.begin() as connection:
        unhurried(connection)
        connection.exec_driver_sql(f"SELECT pg_sleep({2 * SILENT_S})")
    with pytest.raises(OperationalError, match="has not answered for"), engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT pg_sleep({2 * SILENT_S})")
    engine.dispose()


def start(folder: Path, db: str, patience_s: float) -> subprocess.Popen[bytes]:
    code = COORDINATOR.format(silent=SILENT_S, patience=patience_s, db=f"{db}?connect_timeout=2")
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.PIPE)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_study_outlasts_a_frozen_server_and_pauses_at_one_that_stays_so(
    postgres: str, postgres_server: Server, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "study.yaml").write_text(STUDY + "n_trials: 12\n")
    first = start(tmp_path, postgres, 60.0)
    try:
        wait_for_more(postgres, 0, first)
        with frozen(postgres_server):
            time.sleep(3 * SILENT_S)
            assert first.poll() is None
        wait_for_more(postgres, len(finished_runs(postgres)), first)
        assert first.poll() is None, first.communicate()[1].decode()
    finally:
        first.kill()
        _, errors = first.communicate()
    assert "trying again for up to 60 s" in errors.decode()
    second = start(tmp_path, postgres, 2.0)
    wait_for_more(postgres, len(finished_runs(postgres)), second)
    with frozen(postgres_server):
        began = time.monotonic()
        _, errors = second.communicate(timeout=60)
        assert time.monotonic() - began < 45.0
    assert second.returncode == 6, errors.decode()
    assert "run the same command again" in errors.decode()
    assert "Traceback" not in errors.decode()
    third = start(tmp_path, postgres, 60.0)
    _, errors = third.communicate(timeout=60)
    assert third.returncode == 0, errors.decode()
    calm = f"sqlite:///{tmp_path}/calm.db"
    hp.run(hp.read_study(tmp_path / "study.yaml"), db=calm, on="inline")
    assert outcome(postgres) == outcome(calm)
    verified = [sys.executable, "-m", "hpsearch", "verify", "--db", postgres]
    done = subprocess.run(verified, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
