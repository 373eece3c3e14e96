from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from hpsearch.errors import StoreError, StudyHeldError, UsageError
from hpsearch.store import Turn, this_process
from hpsearch.stores import sql
from hpsearch.stores.sql import migrate, open_archive, open_store
from hpsearch.stores.sql.tables import metadata
from hpsearch.trial import RunKey, State
from tests.conformance.stores import RECORD, trial

#: a database of every released schema, as that release wrote it
DATABASES = Path(__file__).parents[1] / "databases"


def schema(path: Path) -> dict[str, str]:
    """Every table and index of a database, as SQL without its spacing."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: "|".join(clauses(sql)) for name, sql in rows if "alembic" not in name}


def clauses(sql: str) -> list[str]:
    """The parts of a CREATE, without order, spacing and brackets: Alembic may write them in another order."""
    without = " WITHOUT ROWID" if sql.rstrip().endswith("WITHOUT ROWID") else ""
    plain = sql.rstrip().removesuffix("WITHOUT ROWID").replace("(", " ").replace(")", " ")
    return sorted([without, *(" ".join(part.split()) for part in plain.split(","))])


def test_upgrading_from_nothing_gives_our_tables(tmp_path):
    open_store(f"sqlite:///{tmp_path}/a.db")
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_upgrading_postgresql_from_nothing_gives_our_tables(postgres):
    open_store(postgres)._engine.dispose()
    engine = create_engine(postgres)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_checks_are_our_tables_too(tmp_path):
    """Alembic compares no CHECK constraints."""
    open_store(f"sqlite:///{tmp_path}/migrated.db")
    engine = create_engine(f"sqlite:///{tmp_path}/created.db")
    metadata.create_all(engine)
    engine.dispose()
    migrated, created = schema(tmp_path / "migrated.db"), schema(tmp_path / "created.db")
    assert migrated == created
    assert sum("BETWEEN" in sql for sql in created.values()) >= 6


def test_all_revisions_are_known():
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == migrate.REVISIONS
    assert [scripts.get_current_head()] == [migrate.HEAD]
    for engine in ("db", "sql"):
        assert sorted(path.stem for path in DATABASES.glob(f"*.{engine}")) == sorted(migrate.REVISIONS)


def tables_of(url: str) -> list[str]:
    """The schema that a database has, and how many trials it holds."""
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = [connection.scalar(text("SELECT version_num FROM alembic_version"))]
        rows.append(connection.scalar(text("SELECT count(*) FROM trial")))
    engine.dispose()
    return rows


@pytest.fixture(params=["sqlite", "postgresql"])
def released(request, tmp_path, postgres_server, monkeypatch):
    """A database as a release wrote it (PostgreSQL's: the same rows in that release's tables), on each engine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(postgres_server.bin), prepend=":")

    def make(revision: str) -> str:
        if request.param == "sqlite":
            shutil.copyfile(DATABASES / f"{revision}.db", tmp_path / "a.db")
            return f"sqlite:///{tmp_path}/a.db"
        postgres = request.getfixturevalue("postgres")
        postgres_server.execute((DATABASES / f"{revision}.sql").read_text(), postgres.rpartition("/")[2])
        return postgres

    return make


@pytest.mark.parametrize("revision", migrate.REVISIONS)
def test_a_released_database_opens_as_it_was(released, revision):
    url = released(revision)
    sql.upgrade(url, copy=None)
    store = open_store(url)
    snapshot = store.open(RECORD, this_process(), lease_s=60.0)
    assert [one.state for one in snapshot.trials] == [State.COMPLETE, State.DIVERGED, State.FAILED, State.QUEUED]
    assert snapshot.trials[0].params == {"lr": 0.1, "act": "relu"}
    assert snapshot.losses == {RunKey(3, 0): {"oom": 1}}
    assert snapshot.trials[0].runs[0].engine == ("vmap, cpu, 64 lanes" if revision >= "0002" else "")
    archive = open_archive(url)
    assert list(archive.curves("digits", [0], ["loss"])[0].values) == [1.0, 0.5]
    assert archive.layers("digits", RunKey(0, 0)) == [(0, {"fc": (0.5, 2.0)})]
    assert archive.decisions("digits")[0].kind == "zoom"
    assert list(archive.study("digits").notes) == [("digits/0", "kept")]
    store.write(Turn(trials=[trial(4)]))
    store.close("stopped")
    assert sql.check(url)[0] == []


def test_an_upgrade_copies_first_and_says_what_it_did(released, tmp_path):
    url = released("0001")
    found, copy = sql.upgrade(url, copy=tmp_path / "kept")
    assert (found, copy, tables_of(url)) == ("0001", tmp_path / "kept", [migrate.HEAD, 4])
    if url.startswith("sqlite"):
        assert tables_of(f"sqlite:///{copy}") == ["0001", 4]
    else:
        listed = subprocess.run(["pg_restore", "--list", copy], check=True, capture_output=True, text=True).stdout
        assert "TABLE DATA public trial" in listed
    assert sql.upgrade(url, copy=None) == (migrate.HEAD, None)


def test_nothing_is_upgraded_where_the_copy_fails(released, tmp_path):
    url = released("0001")
    (tmp_path / "taken").write_text("somebody's")
    with pytest.raises(UsageError, match="taken exists"):
        sql.upgrade(url, copy=tmp_path / "taken")
    with pytest.raises(UsageError, match="nowhere does not exist"):
        sql.upgrade(url, copy=tmp_path / "nowhere" / "copy")
    assert (tmp_path / "taken").read_text() == "somebody's"
    assert tables_of(url) == ["0001", 4]


def test_a_running_study_is_not_upgraded_under_its_coordinator(released):
    url = released("0001")
    engine = create_engine(url)
    with engine.begin() as connection:
        words = "UPDATE study SET host='elsewhere', pid=1, boot_id='b', started=1, lease_until=4e9"
        connection.execute(text(words))
    engine.dispose()
    with pytest.raises(StudyHeldError, match="digits is held by process 1 on elsewhere"):
        sql.upgrade(url, copy=None)
    assert tables_of(url) == ["0001", 4]


def test_a_copy_that_nobody_can_make_is_said(postgres, monkeypatch, tmp_path):
    open_store(postgres)._engine.dispose()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match="pg_dump is not on PATH") as caught:
        sql.back_up(postgres, tmp_path / "copy")
    assert "pass" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_older_schema_is_upgraded_by_a_writer_only(tmp_path):
    path = tmp_path / "a.db"
    shutil.copyfile(DATABASES / "0001.db", path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="older schema '0001'") as caught:
        open_archive(f"sqlite:///{path}").studies()
    assert "hpsearch db upgrade" in caught.value.hint
    assert path.read_bytes() == before
    open_store(f"sqlite:///{path}")
    assert tables_of(f"sqlite:///{tmp_path}/a.db.0001.backup") == ["0001", 4]
    assert len(open_archive(f"sqlite:///{path}").studies()) == 1


def test_a_server_is_upgraded_on_request_only(postgres_server, postgres):
    postgres_server.execute((DATABASES / "0001.sql").read_text(), postgres.rpartition("/")[2])
    for use in (lambda: open_store(postgres), lambda: open_archive(postgres).studies()):
        with pytest.raises(StoreError, match="older schema '0001'") as caught:
            use()
        assert "hpsearch db upgrade" in caught.value.hint
    assert tables_of(postgres) == ["0001", 4]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_processes_may_create_a_database_at_once(tmp_path, engine, request):
    code = "import sys; from hpsearch.stores.sql import open_store; open_store(sys.argv[1])"
    url = f"sqlite:///{tmp_path}/a.db" if engine == "sqlite" else request.getfixturevalue("postgres")
    both = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 3
    assert tables_of(url) == [migrate.HEAD, 0]


def test_reading_imports_no_alembic(tmp_path):
    open_store(f"sqlite:///{tmp_path}/a.db")
    code = (
        "import sys; import hpsearch.stores.sql as s; assert 'sqlalchemy' not in sys.modules\n"
        "s.open_archive(sys.argv[1]).studies(); s.open_store(sys.argv[1])\n"
        "assert not {'alembic', 'torch', 'pandas', 'sqlalchemy.orm'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{tmp_path}/a.db"], check=True)
