"""Whether PostgreSQL's pages are sound: asked of its extension amcheck, or said not to be known."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpsearch.store import Turn, this_process
from hpsearch.stores.sql import check, open_store
from tests.conformance.stores import RECORD, trial
from tests.postgres import QUOTED, USER, Server

#: versions of the system's PostgreSQL that come with the extension; pip's server does not
VERSIONS = sorted(path.parents[1].name for path in Path("/usr/share/postgresql").glob("*/extension/amcheck.control"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not VERSIONS:
        pytest.skip("no PostgreSQL with amcheck here: apt-get install postgresql")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPSEARCH_TEST_POSTGRES", f"/usr/lib/postgresql/{VERSIONS[-1]}/bin")
        made = Server()
    made.start()
    yield made
    made.remove()


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    """A database with some trials in it."""
    server.start()
    name = server.create()
    filled(server.url(name))
    yield name
    server.start()
    server.drop(name)


def filled(url: str) -> None:
    store = open_store(url)
    store.open(RECORD, this_process(), lease_s=60.0)
    store.write(Turn(trials=[trial(number) for number in range(50)]))
    store.close("stopped")


def swap(content: bytearray) -> None:
    """Two rows of an index's second page change places in its directory: 4 bytes each, after a header of 24."""
    a, b = 8192 + 24, 8192 + 64
    content[a : a + 4], content[b : b + 4] = content[b : b + 4], content[a : a + 4]


def future(content: bytearray) -> None:
    """The first row of a table was written by a transaction that is yet to come."""
    (entry,) = struct.unpack_from("<I", content, 24)
    struct.pack_into("<I", content, entry & 0x7FFF, 2**30)


def test_without_the_extension_it_says_what_it_has_not_looked_at(postgres: str) -> None:
    filled(postgres)
    wrong, unchecked = check(postgres)
    assert wrong == []
    (words,) = unchecked
    assert words.startswith("the pages of indices and tables: it needs the extension amcheck")


def test_a_role_that_may_not_use_it_is_told_so(server: Server, name: str) -> None:
    server.execute("CREATE EXTENSION amcheck", name)
    server.execute("DROP ROLE IF EXISTS ann; CREATE ROLE ann LOGIN PASSWORD 'annes'")
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO ann", name)
    url = server.url(name).replace(f"{USER}:{QUOTED}", "ann:annes")
    assert check(url) == (
        [],
        [
            "the pages of indices: this role may not call bt_index_check",
            "the pages of tables: this role may not call verify_heapam",
        ],
    )
    server.execute("GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO ann", name)
    assert check(url) == ([], ["the pages of tables: this role may not call verify_heapam"])
    # As docs/deploy.md says it.
    server.execute("GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean), verify_heapam TO ann", name)
    assert check(url) == ([], [])
    server.execute("DROP OWNED BY ann", name)


@pytest.mark.parametrize(
    ("relation", "damage", "words"),
    [
        ("trial_pkey", swap, "index trial_pkey is damaged: item order"),
        ("trial", future, "table trial is damaged, page 0: xmin"),
    ],
)
def test_a_damaged_page_is_found(
    server: Server, name: str, relation: str, damage: Callable[[bytearray], None], words: str
) -> None:
    # In a schema of its own, as some administrators have it.
    server.execute("CREATE SCHEMA tools; CREATE EXTENSION amcheck SCHEMA tools", name)
    assert check(server.url(name)) == ([], [])
    ((place,),) = server.execute(f"SELECT pg_relation_filepath('{relation}')", name)
    server.stop()
    path = server.folder / "data" / str(place)
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    server.start()
    wrong, unchecked = check(server.url(name))
    assert [line for line in wrong if line.startswith(words)], wrong
    assert unchecked == []
