from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpsearch.archive import Archive
from hpsearch.store import Store
from hpsearch.stores.sql import open_archive, open_store
from tests.conformance.stores import Doors, StoreConformance
from tests.postgres import Server


class SqlDoors(Doors):
    def __init__(self, url: str) -> None:
        self.url = url
        self._stores: list[Store] = []

    def store(self) -> Store:
        self._stores.append(open_store(self.url))
        return self._stores[-1]

    def archive(self) -> Archive:
        return open_archive(self.url)

    def close(self) -> None:
        """As the end of their processes would."""
        for store in self._stores:
            store._engine.dispose()


class TestSqlite(StoreConformance):
    @pytest.fixture
    def doors(self, tmp_path) -> Iterator[SqlDoors]:
        doors = SqlDoors(f"sqlite:///{tmp_path}/record %20é?.db")
        yield doors
        doors.close()


@pytest.fixture(scope="module")
def template(postgres_server: Server) -> str:
    """A database with our tables: copying it costs less than making them."""
    postgres_server.start()
    name = postgres_server.create()
    open_store(postgres_server.url(name))._engine.dispose()
    return name


class TestPostgres(StoreConformance):
    @pytest.fixture
    def doors(self, postgres_server: Server, template: str) -> Iterator[SqlDoors]:
        name = postgres_server.create(template)
        doors = SqlDoors(postgres_server.url(name))
        yield doors
        doors.close()
        postgres_server.drop(name)
