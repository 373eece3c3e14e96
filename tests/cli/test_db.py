"""``hpsearch db``, and a whole journey of real commands on PostgreSQL."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hpsearch.errors import HpsearchError
from hpsearch.stores.sql import open_archive
from hpsearch.trial import State
from tests.cli.conftest import Ended, environment, shell, write_studies
from tests.postgres import QUOTED

DATABASES = Path(__file__).parents[1] / "stores" / "databases"


def test_info_check_backup_and_upgrade(hpsearch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(DATABASES / "0001.db", "hpsearch.db")
    assert "schema    0001 (this hpsearch's is 0002: hpsearch db upgrade)" in hpsearch("db", "info").out
    ended = hpsearch("db", "check")
    assert (ended.code, "older schema '0001'" in ended.err) == (5, True)
    ended = hpsearch("db", "upgrade", "--json")
    told = {"schema": 2, "from": "0001", "to": "0002", "backup": "hpsearch.db.0001.backup"}
    assert (ended.code, json.loads(ended.out)) == (0, told)
    assert "nothing to do" in hpsearch("db", "upgrade").err
    assert hpsearch("db", "check").err == "the database is sound\n"
    assert hpsearch("db", "backup", "-o", "copy.db").code == 0
    told = json.loads(hpsearch("db", "info", "--db", "sqlite:///copy.db", "--json").out)["database"]
    assert (told["schema"], told["studies"], told["url"]) == ("0002", 1, "sqlite:///copy.db")
    ended = hpsearch("db", "backup", "-o", "copy.db")
    assert (ended.code, "copy.db exists" in ended.err) == (2, True)


def test_a_damaged_file_is_told(hpsearch, folder):
    data = bytearray(Path("hpsearch.db").read_bytes())
    # A page in the middle, rubbed out: the file still opens.
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = bytes(4096)
    Path("hpsearch.db").write_bytes(data)
    ended = hpsearch("db", "check")
    assert (ended.code, "damaged" in ended.err) in [(5, True), (6, True)]


@pytest.mark.parametrize(
    "tokens", [("check", "-o", "x"), ("upgrade", "--no-backup", "-o", "x"), ("backup", "--no-backup"), ("vacuum",), ()]
)
def test_what_cannot_be_is_refused(hpsearch, folder, tokens):
    assert hpsearch("db", *tokens).code == 2
    assert hpsearch("db", "check").code == 0


def test_there_is_nothing_to_look_after(hpsearch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what in ("info", "check", "backup", "upgrade"):
        assert hpsearch("db", what).code == 3
    assert list(tmp_path.iterdir()) == []


def until_it_trains(url: str, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        with suppress(HpsearchError):
            if open_archive(url).study("slow").counts.get(State.RUNNING):
                return
        time.sleep(0.1)
    raise AssertionError(process.communicate())


@pytest.mark.timeout(200)
def test_a_server_that_stays_away_ends_the_study_in_words(postgres_server, postgres, tmp_path):
    """It is waited for, which is said; an impatient user ends the wait; the same command goes on."""
    write_studies(tmp_path)
    command = [sys.executable, "-m", "hpsearch.cli.app", "run", "slow.yaml", "-n", "2", "--db", postgres]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    until_it_trains(postgres, running)
    postgres_server.stop("fast")
    said = []
    while "trying again for up to 300 s" not in "".join(said[-1:]):
        said.append(running.stderr.readline())
        assert said[-1], "".join(said)
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=60)
    errors = "".join(said) + rest
    assert running.returncode == 6, errors
    assert "error: postgresql+psycopg://tester:***@127.0.0.1" in rest
    assert "run the same command again" in rest
    assert "Traceback" not in errors
    assert QUOTED not in errors
    postgres_server.start()
    ended = shell(tmp_path, "run", "slow.yaml", "-n", "2", "--workers", "2", "--progress", "none", "--db", postgres)
    assert (ended.code, "2 complete" in ended.err) == (0, True), ended


@pytest.mark.timeout(300)
def test_a_journey_on_postgresql(postgres_server, postgres, tmp_path, hpsearch, monkeypatch):
    """run, list, show, best, export, status, stop, resume, check, backup, delete: as on SQLite."""
    write_studies(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(postgres_server.bin), prepend=":")
    monkeypatch.setenv("HPSEARCH_DB", postgres)
    db, seen = ("--db", postgres), []

    def ask(*tokens: str, code: int = 0) -> Ended:
        ended = hpsearch(*tokens)
        assert ended.code == code, ended
        seen.append(ended.out + ended.err)
        return ended

    assert "is empty: no study was ever stored in it" in ask("list", code=3).err
    ended = shell(tmp_path, "run", "toy.yaml", "--workers", "2", "--progress", "none", *db)
    assert ended.code == 0, ended
    seen.append(ended.out + ended.err)
    assert hpsearch("run", "toy.yaml", "--on", "inline", "-q", "--db", "sqlite:///same.db").code == 0
    shown = [json.loads(hpsearch("best", "toy", "--json", "--db", url).out) for url in (postgres, "sqlite:///same.db")]
    best = [[(t["trial"], t["params"], t["value"], t["sd"]) for t in one["best"]] for one in shown]
    assert best[0] == best[1]
    assert best[0]
    assert "toy" in ask("list").out
    assert "loss" in ask("show", "toy/0").out
    ask("export", "toy", "--to", "csv", "-o", "toy.csv")
    with (tmp_path / "toy.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 20
    command = [sys.executable, "-m", "hpsearch.cli.app", "run", "slow.yaml", "-n", "3", "--workers", "1", *db]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    until_it_trains(postgres, running)
    ask("run", "slow.yaml", "-n", "3", "--on", "inline", code=7)
    ask("delete", "slow", "--yes", code=7)
    assert "slow" in ask("status").out
    ask("stop", "slow", "--now")
    seen.append(running.communicate(timeout=60)[1])
    assert running.returncode == 130, seen[-1]
    ended = shell(tmp_path, "resume", "slow", "--workers", "2", "--progress", "none", *db)
    assert (ended.code, "3 complete" in ended.err) == (0, True), ended
    checked = ask("db", "check").err
    assert (
        "the database is sound\nnot checked: the pages of indices and tables: it needs the extension amcheck" in checked
    )
    ask("db", "backup", "-o", "copy.dump")
    assert (tmp_path / "copy.dump").read_bytes()[:5] == b"PGDMP"
    ask("delete", "toy", "--yes")
    assert [line.split()[0] for line in ask("list").out.splitlines()[1:]] == ["slow"]
    assert not [text for text in seen if QUOTED in text or "pass word" in text]
