from __future__ import annotations

import pytest

from hpsearch.stores.memory import MemoryArchive, MemoryRecord, MemoryStore
from tests.conformance.stores import Doors, StoreConformance


class MemoryDoors(Doors):
    def __init__(self) -> None:
        self.record = MemoryRecord()

    def store(self) -> MemoryStore:
        return MemoryStore(self.record)

    def archive(self) -> MemoryArchive:
        return MemoryArchive(self.record)


class TestMemory(StoreConformance):
    @pytest.fixture
    def doors(self) -> MemoryDoors:
        return MemoryDoors()
