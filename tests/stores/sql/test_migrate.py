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
from sqlalchemy import create_engine

from hpsearch.errors import StoreError
from hpsearch.store import Turn, this_process
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
    assert sorted(path.stem for path in DATABASES.glob("*.db")) == sorted(migrate.REVISIONS)


@pytest.mark.parametrize("revision", migrate.REVISIONS)
def test_a_released_database_opens_as_it_was(tmp_path, revision):
    path = tmp_path / "a.db"
    shutil.copyfile(DATABASES / f"{revision}.db", path)
    store = open_store(f"sqlite:///{path}")
    snapshot = store.open(RECORD, this_process(), lease_s=60.0)
    assert [one.state for one in snapshot.trials] == [State.COMPLETE, State.DIVERGED, State.FAILED, State.QUEUED]
    assert snapshot.trials[0].params == {"lr": 0.1, "act": "relu"}
    assert snapshot.losses == {RunKey(3, 0): {"oom": 1}}
    assert snapshot.trials[0].runs[0].engine == ("vmap, cpu, 64 lanes" if revision >= "0002" else "")
    archive = open_archive(f"sqlite:///{path}")
    assert list(archive.curves("digits", [0], ["loss"])[0].values) == [1.0, 0.5]
    assert archive.layers("digits", RunKey(0, 0)) == [(0, {"fc": (0.5, 2.0)})]
    assert archive.decisions("digits")[0].kind == "zoom"
    assert list(archive.study("digits").notes) == [("digits/0", "kept")]
    store.write(Turn(trials=[trial(4)]))


def test_an_older_schema_is_upgraded_by_a_writer_only(tmp_path):
    path = tmp_path / "a.db"
    shutil.copyfile(DATABASES / "0001.db", path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="older schema '0001'") as caught:
        open_archive(f"sqlite:///{path}").studies()
    assert "upgrades it" in caught.value.hint
    assert path.read_bytes() == before
    open_store(f"sqlite:///{path}")
    with closing(sqlite3.connect(tmp_path / "a.db.0001.backup")) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        assert copy.execute("SELECT count(*) FROM trial").fetchone() == (4,)
    assert len(open_archive(f"sqlite:///{path}").studies()) == 1


def test_two_processes_may_create_a_database_at_once(tmp_path):
    code = "import sys; from hpsearch.stores.sql import open_store; open_store(sys.argv[1])"
    url = f"sqlite:///{tmp_path}/a.db"
    both = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 3


def test_reading_imports_no_alembic(tmp_path):
    open_store(f"sqlite:///{tmp_path}/a.db")
    code = (
        "import sys; import hpsearch.stores.sql as s; assert 'sqlalchemy' not in sys.modules\n"
        "s.open_archive(sys.argv[1]).studies(); s.open_store(sys.argv[1])\n"
        "assert not {'alembic', 'torch', 'pandas', 'sqlalchemy.orm'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{tmp_path}/a.db"], check=True)
