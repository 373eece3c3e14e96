from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.archive import Archive
from hpsearch.store import Store
from hpsearch.stores.sql import open_archive, open_store
from tests.conformance.stores import Doors, StoreConformance


class SqliteDoors(Doors):
    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"

    def store(self) -> Store:
        return open_store(self.url)

    def archive(self) -> Archive:
        return open_archive(self.url)


class TestSqlite(StoreConformance):
    @pytest.fixture
    def doors(self, tmp_path: Path) -> SqliteDoors:
        return SqliteDoors(tmp_path / "record %20é?.db")
