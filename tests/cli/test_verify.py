"""verify, as a user meets it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import write_studies
from tests.postgres import Server


@pytest.fixture
def spoiled(folder: Path, tmp_path: Path) -> Path:
    """The database with one value changed by hand."""
    path = tmp_path / "spoiled.db"
    with closing(sqlite3.connect(folder / "hpsearch.db")) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
        copy.execute(
            "UPDATE trial SET value = 0.75 WHERE number = 1 AND study = (SELECT id FROM study WHERE name = 'toy')"
        )
        copy.commit()
    return path


def test_a_good_record(folder: Path, hpsearch) -> None:
    ended = hpsearch("verify")
    assert (ended.code, ended.err) == (0, "")
    assert "✓ toy: 10 trials, 20 runs" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    assert hpsearch("verify", "-q").out == ""
    found = json.loads(hpsearch("verify", "to", "--json").out)
    assert (found["holds"], [study["study"] for study in found["studies"]]) == (True, ["toy"])
    assert hpsearch("verify", "nothing").code == 3


def test_a_breach_is_named_with_its_address_and_ends_with_5(spoiled: Path, hpsearch) -> None:
    ended = hpsearch("verify", "--db", f"sqlite:///{spoiled}")
    assert ended.code == 5
    assert "error: the record does not hold: a breach" in ended.err
    assert "toy/1  value: expected 0." in ended.out
    assert "found 0.75" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    found = json.loads(hpsearch("verify", "--db", f"sqlite:///{spoiled}", "--json").out)
    (toy,) = [study for study in found["studies"] if study["breaches"]]
    assert toy["breaches"][0]["address"] == "toy/1"
    assert found["holds"] is False


def test_a_breach_on_postgresql_is_named_and_ends_with_5(
    tmp_path: Path, postgres: str, postgres_server: Server, hpsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_studies(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert hpsearch("run", "toy.yaml", "--on", "inline", "--db", postgres, "-q").code == 0
    good = hpsearch("verify", "--db", postgres)
    assert (good.code, good.err) == (0, "")
    assert "  not checked: the pages of indices and tables: it needs the extension amcheck" in good.out
    assert all(len(line) <= 80 for line in good.out.splitlines())
    in_json = json.loads(hpsearch("verify", "--db", postgres, "--json").out)
    assert (in_json["holds"], in_json["database"], len(in_json["database_not_checked"])) == (True, [], 1)
    postgres_server.execute("UPDATE trial SET value = 0.75 WHERE number = 1", postgres.rpartition("/")[2])
    ended = hpsearch("verify", "--db", postgres)
    assert ended.code == 5
    assert "error: the record does not hold: a breach" in ended.err
    assert "toy/1  value: expected 0." in ended.out
    assert "found 0.75" in ended.out


def test_rows_that_no_longer_say_anything_are_a_breach(spoiled: Path, hpsearch) -> None:
    with closing(sqlite3.connect(spoiled)) as connection:
        connection.execute("UPDATE trial SET params = '{' WHERE number = 0")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("DELETE FROM trial WHERE number = 2")
        connection.commit()
    ended = hpsearch("verify", "--db", f"sqlite:///{spoiled}")
    assert ended.code == 5
    assert "rows: expected rows that can be read" in ended.out
    assert "rows belong to no trial" in ended.out
