"""The record in memory: for tests, and for a search that is to leave nothing behind. It lasts as long as its object."""

from hpsearch.stores.memory.archive import MemoryArchive
from hpsearch.stores.memory.record import MemoryRecord
from hpsearch.stores.memory.store import MemoryStore

__all__ = ["MemoryArchive", "MemoryRecord", "MemoryStore"]
