"""What is PostgreSQL's own: its errors in our words, its sessions, many processes at once."""

from __future__ import annotations

import threading
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import text

from hpsearch.errors import NotFoundError, StoreError, StudyHeldError
from hpsearch.store import Claim, Turn, this_process
from hpsearch.stores.sql import back_up, check, facts, open_archive, open_store
from hpsearch.trial import RunKey
from tests.conformance.stores import ELSEWHERE, ENVIRONMENT, RECORD, done, score, trial
from tests.postgres import PASSWORD, QUOTED, USER


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.fixture
def role(postgres_server, postgres):
    """A user who may connect and nothing else."""
    postgres_server.execute("DROP ROLE IF EXISTS ann")
    postgres_server.execute("CREATE ROLE ann LOGIN PASSWORD 'annes'")
    postgres_server.execute("REVOKE CREATE ON SCHEMA public FROM public", name_of(postgres))
    return postgres.replace(f"{USER}:{QUOTED}", "ann:annes")


@pytest.mark.parametrize(
    ("change", "words", "hint"),
    [
        ((QUOTED, "wrong%20secret"), "refuses the user or the password", "USER:PASSWORD"),
        ((USER, "nobody_known"), "refuses the user or the password", "USER:PASSWORD"),
        ((f":{QUOTED}", ""), "wants a password", "PGPASSWORD"),
        (("127.0.0.1", "no-such-host.invalid"), "there is no such host", "check the host"),
        (("127.0.0.1:", "127.0.0.1:1"), "no server answers there|cannot be read", ""),
        (("/test_", "/untested_"), "there is no such database", "createdb"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_at_once(postgres, monkeypatch, change, words, hint):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    url = postgres.replace(*change, 1) if change[1] != "127.0.0.1:1" else f"postgresql://{USER}:{QUOTED}@127.0.0.1:1/x"
    for use in (lambda: open_store(url), lambda: open_archive(url).studies(), lambda: back_up(url)):
        with pytest.raises(StoreError, match=words) as caught:
            use()
        assert hint in caught.value.hint
        said = f"{caught.value} {caught.value.hint}"
        assert "\n" not in said
        assert not [secret for secret in (PASSWORD, QUOTED, "secret") if secret in said]


def test_a_user_who_may_not_make_tables_is_told(role):
    with pytest.raises(StoreError, match="may not do that there") as caught:
        open_store(role)
    assert "GRANT" in caught.value.hint


def test_a_user_who_may_only_read_reads(postgres_server, postgres, role):
    store = open_store(postgres)
    store.open(RECORD, this_process(), lease_s=60.0)
    store.close("stopped")
    postgres_server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO ann", name_of(postgres))
    assert [study.name for study in open_archive(role).studies()] == ["digits"]
    with pytest.raises(StoreError, match="may not do that there"):
        open_store(role).delete("digits")


def test_readers_cannot_write_and_an_empty_database_is_none(postgres):
    with pytest.raises(NotFoundError, match="is empty"):
        open_archive(postgres).studies()
    archive = open_archive(postgres)
    with archive._engine.connect() as connection:
        assert connection.scalar(text("SHOW transaction_read_only")) == "on"
        assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
    assert check(postgres)[0][0].endswith("is empty")


def test_another_programs_database_is_left_alone(postgres_server, postgres):
    postgres_server.execute("CREATE TABLE songs (title TEXT)", name_of(postgres))
    for use in (lambda: open_store(postgres), lambda: open_archive(postgres).studies()):
        with pytest.raises(StoreError, match="another program") as caught:
            use()
        assert "createdb" in caught.value.hint


def test_an_encoding_without_all_characters_is_refused(postgres_server):
    postgres_server.start()
    postgres_server.drop("latin")
    postgres_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreError, match="LATIN1") as caught:
        open_store(postgres_server.url("latin"))
    assert "UTF8" in caught.value.hint


def test_a_session_ends_what_takes_too_long(postgres):
    store = open_store(postgres + "?options=-c%20statement_timeout%3D123&connect_timeout=7")
    with store._engine.connect() as connection:
        shown = {
            name: connection.scalar(text(f"SHOW {name}"))
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
        }
        said = connection.connection.driver_connection.info.get_parameters()
    store._engine.dispose()
    assert shown == {
        "statement_timeout": "123ms",  # the address's own setting comes last
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "30s",
        "application_name": "hpsearch",
    }
    assert (said["connect_timeout"], said["tcp_user_timeout"], said["keepalives_idle"]) == ("7", "30000", "10")


def test_two_coordinators_that_create_a_study_at_once(postgres):
    """One has it, the other hears who."""
    stores, ends = [open_store(postgres) for _ in range(4)], []
    gate = threading.Barrier(4)

    def begin(store, holder) -> None:
        gate.wait()
        try:
            ends.append(store.open(RECORD, holder, lease_s=60.0).existed)
        except StudyHeldError as error:
            ends.append(str(error))

    from dataclasses import replace

    threads = [threading.Thread(target=begin, args=(s, replace(ELSEWHERE, pid=k))) for k, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count(False) == 1
    assert sum("is held by process" in str(end) for end in ends) == 3
    for store in stores:
        store._engine.dispose()


def test_studies_that_share_an_environment_do_not_disturb_each_other(postgres):
    """Both write the same new row; then one is deleted while the other goes on using it."""
    from dataclasses import replace

    stores = [open_store(postgres) for _ in range(2)]
    gate, key = threading.Barrier(2), RunKey(0, 0)
    for number, store in enumerate(stores):
        store.open(replace(RECORD, name=f"s{number}"), this_process(), lease_s=60.0)
        store.write(Turn(trials=[trial(0, (0,))], claims=[Claim(run=key, attempt=1)]))
    errors: list[BaseException] = []

    def finish(store) -> None:
        gate.wait()
        try:
            store.write(Turn(finished=[done(key, environment=ENVIRONMENT)], scores=[score(0)]))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=finish, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for store in stores:
        store.close("complete")
    open_store(postgres).delete("s0")
    assert open_archive(postgres).trials("s1")[0].runs[0].environment == ENVIRONMENT
    assert check(postgres)[0] == []


def test_a_row_that_breaks_a_rule_is_named(postgres_server, postgres):
    store = open_store(postgres)
    store.open(RECORD, this_process(), lease_s=60.0)
    store.write(Turn(trials=[trial(0, (0,))]))
    store.close("stopped")
    with closing(psycopg.connect(postgres_server.libpq(name_of(postgres)), autocommit=True)) as connection:
        connection.execute("ALTER TABLE run DROP CONSTRAINT run_state")
        connection.execute("UPDATE run SET state = 'lost'")
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM trial")
    wrong, _ = check(postgres)
    assert [line for line in wrong if "run: 1 rows break the rule run_state" in line]
    assert [line for line in wrong if "run: 1 rows belong to no trial" in line]
    assert facts(postgres)["risks"] == ["fsync = off"]
