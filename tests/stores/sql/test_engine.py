from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hpsearch.errors import NotFoundError, StoreError
from hpsearch.store import Turn, this_process
from hpsearch.stores.sql import open_archive, open_store
from hpsearch.stores.sql.engine import parse, redacted, wal_is_safe
from tests.conformance.stores import RECORD, trial


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one study of three trials."""
    store = open_store(url(tmp_path / "a.db"))
    store.open(RECORD, this_process(), lease_s=60.0)
    store.write(Turn(trials=[trial(number) for number in range(3)]))
    store.close("stopped")
    return tmp_path / "a.db"


def test_reading_changes_nothing(path):
    before, names = digest(path), sorted(path.parent.iterdir())
    path.chmod(0o444)
    archive = open_archive(url(path))
    assert [study.name for study in archive.studies()] == ["digits"]
    assert len(archive.trials("digits")) == 3
    with pytest.raises(NotFoundError):
        archive.curves("none", [0])
    assert (digest(path), sorted(path.parent.iterdir())) == (before, names)


def test_reading_a_missing_database_creates_nothing(tmp_path):
    with pytest.raises(NotFoundError, match=r"missing\.db") as caught:
        open_archive(url(tmp_path / "missing.db"))
    assert "hpsearch run" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StoreError, match="nowhere does not exist"):
        open_store(url(tmp_path / "nowhere" / "a.db"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_record_to_a_reader(tmp_path):
    (tmp_path / "a.db").touch()
    with pytest.raises(NotFoundError, match="empty"):
        open_archive(url(tmp_path / "a.db")).studies()
    assert (tmp_path / "a.db").read_bytes() == b""
    assert not open_store(url(tmp_path / "a.db")).open(RECORD, this_process(), lease_s=1.0).existed


def write_foreign(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("This is a letter, and no database. " * 100)
        return
    with closing(sqlite3.connect(path)) as connection:
        if kind == "other":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE songs (title TEXT)")
        else:
            connection.execute("CREATE TABLE study (id INTEGER)")
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
            connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()


@pytest.mark.parametrize(
    ("kind", "words"), [("text", "no SQLite database"), ("other", "another program"), ("newer", "'9999'")]
)
def test_a_file_that_is_not_ours_is_refused_and_kept(tmp_path, kind, words):
    path = tmp_path / "a.db"
    write_foreign(path, kind)
    before = digest(path)
    for use in (lambda: open_store(url(path)), lambda: open_archive(url(path)).studies()):
        with pytest.raises(StoreError, match=words) as caught:
            use()
        assert caught.value.hint
        assert digest(path) == before


KILLED = """
import os, signal, sys
from sqlalchemy import event
from hpsearch.store import Turn
from hpsearch.stores.sql import open_store
from tests.conformance.stores import ELSEWHERE, RECORD, trial
store = open_store(sys.argv[1])
store.open(RECORD, ELSEWHERE, lease_s=0.0)
# A small cache spills the unfinished transaction into the file, so that only the journal can undo it.
raw = store._engine.raw_connection()
raw.execute("PRAGMA cache_size = 5")
raw.close()
event.listen(store._engine, "commit", lambda connection: os.kill(os.getpid(), signal.SIGKILL))
store.write(Turn(trials=[trial(number) for number in range(100, 2100)]))
"""


def test_a_writer_killed_in_a_transaction_leaves_whole_turns(path):
    if wal_is_safe(sqlite3.sqlite_version_info):
        pytest.skip("this SQLite writes in WAL mode: there is no hot journal")
    before = digest(path)
    end = subprocess.run([sys.executable, "-c", KILLED, url(path)], check=False, capture_output=True)
    assert end.returncode == -signal.SIGKILL, end.stderr.decode()
    assert path.with_name("a.db-journal").stat().st_size > 512
    assert digest(path) != before
    archive = open_archive(url(path))
    assert len(archive.trials("digits")) == 3
    assert archive.study("digits").state == "interrupted"
    assert not path.with_name("a.db-journal").exists()
    assert len(open_store(url(path)).open(RECORD, this_process(), lease_s=1.0).trials) == 3


def test_a_locked_database_is_said_to_be_locked(path, monkeypatch):
    monkeypatch.setattr("hpsearch.stores.sql.engine.BUSY_MS", 50)
    store = open_store(url(path))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.open(RECORD, this_process(), lease_s=60.0)
    assert store.open(RECORD, this_process(), lease_s=60.0).existed


def test_a_full_disk_is_said_to_be_full_and_the_turn_can_be_written_again(path):
    store = open_store(url(path))
    store.open(RECORD, this_process(), lease_s=60.0)
    raw = store._engine.raw_connection()
    pages = raw.cursor().execute("PRAGMA page_count").fetchone()[0]
    raw.cursor().execute(f"PRAGMA max_page_count = {pages}")
    raw.close()
    turn = Turn(trials=[trial(number) for number in range(3, 2000)])
    with pytest.raises(StoreError, match="disk is full") as caught:
        store.write(turn)
    assert "make room" in caught.value.hint
    assert len(open_archive(url(path)).trials("digits")) == 3
    raw = store._engine.raw_connection()
    raw.cursor().execute("PRAGMA max_page_count = 1000000")
    raw.close()
    store.write(turn)
    assert len(open_archive(url(path)).trials("digits")) == 2000


def test_a_damaged_file_is_said_to_be_damaged(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        open_archive(url(path)).studies()


def test_an_unknown_outcome_is_settled_by_writing_again(path):
    """The commit reaches the disk, but its caller never hears of it."""
    from sqlalchemy import event

    store = open_store(url(path))
    store.open(RECORD, this_process(), lease_s=60.0)
    engine = store._engine
    turn = Turn(trials=[trial(3)], seconds=2.0)

    def lose_the_answer(connection):
        connection.connection.driver_connection.execute("COMMIT")
        raise sqlite3.OperationalError("disk I/O error")

    event.listen(engine, "commit", lose_the_answer)
    with pytest.raises(StoreError):
        store.write(turn)
    event.remove(engine, "commit", lose_the_answer)
    store.write(turn)
    store.write(Turn(trials=[trial(4)]))
    summary = open_archive(url(path)).study("digits")
    assert (summary.seconds, summary.rev) == (2.0, 3)
    assert len(open_archive(url(path)).trials("digits")) == 5


@pytest.mark.parametrize(
    "address", ["", "hpsearch.db", "mysql://u:secret@h/x", "sqlite://", "sqlite:///:memory:", "::"]
)
def test_addresses_that_are_none(address):
    for use in (open_store, open_archive):
        with pytest.raises(StoreError) as caught:
            use(address)
        assert "sqlite:///hpsearch.db" in caught.value.hint
        assert "secret" not in str(caught.value)


def test_passwords_are_never_shown():
    shown = redacted(parse("postgresql://ann:secret1@host/db?password=secret2&sslpassword=secret3&x=1"))
    assert "secret" not in shown
    assert "ann" in shown
    assert "x=1" in shown


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False), ((3, 50, 6), False),
        ((3, 50, 7), True), ((3, 51, 0), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 52, 0), True),
    ],
)  # fmt: skip
def test_wal_only_where_it_is_mended(version, safe):
    assert wal_is_safe(version) is safe


def test_a_writer_is_durable(path):
    store = open_store(url(path))
    raw = store._engine.raw_connection()
    modes = {name: raw.cursor().execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    others = {name: raw.cursor().execute(f"PRAGMA {name}").fetchone()[0] for name in ("foreign_keys", "busy_timeout")}
    raw.close()
    wal = wal_is_safe(sqlite3.sqlite_version_info)
    assert modes == ({"journal_mode": "wal", "synchronous": 2} if wal else {"journal_mode": "delete", "synchronous": 3})
    assert others == {"foreign_keys": 1, "busy_timeout": 20_000}
