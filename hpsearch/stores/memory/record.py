"""The rows of a record in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import final

from hpsearch.archive import not_found
from hpsearch.store import (
    Command,
    Holder,
    StudyRecord,
)
from hpsearch.strategy import Decision
from hpsearch.trial import Checkpoint, Lost, RunKey, Trial

AttemptKey = tuple[RunKey, int]


@final
@dataclass
class MemoryStudy:
    """One study's rows."""

    record: StudyRecord
    created: float
    updated: float
    state: str = "running"
    reason: str = ""
    rev: int = 0
    epoch: int = 0
    holder: Holder | None = None
    lease_until: float = 0.0
    seconds: float = 0.0
    fenced: int = 0
    trials: dict[int, Trial] = field(default_factory=dict)
    #: run -> attempt -> why it was lost; "" while it is not
    attempts: dict[RunKey, dict[int, str]] = field(default_factory=dict)
    #: the lost attempts, in the order in which they were
    lost: list[Lost] = field(default_factory=list)
    metrics: dict[AttemptKey, dict[int, dict[str, float]]] = field(default_factory=dict)
    layers: dict[AttemptKey, dict[int, Mapping[str, tuple[float, float]]]] = field(default_factory=dict)
    returned: dict[RunKey, dict[str, float]] = field(default_factory=dict)
    checkpoints: dict[RunKey, Checkpoint] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    notes: list[tuple[str, str, str]] = field(default_factory=list)

    def draft(self) -> MemoryStudy:
        """A copy to write on: all that is written in place is copied, the frozen rows in it are shared."""
        return replace(
            self,
            trials=dict(self.trials),
            attempts={key: dict(rows) for key, rows in self.attempts.items()},
            metrics={key: dict(rows) for key, rows in self.metrics.items()},
            layers={key: dict(rows) for key, rows in self.layers.items()},
            returned=dict(self.returned),
            checkpoints=dict(self.checkpoints),
            decisions=list(self.decisions),
            lost=list(self.lost),
        )

    @property
    def left(self) -> float:
        return self.lease_until - time.time()

    @property
    def live(self) -> bool:
        return self.holder is not None and self.left > 0 and not self.holder.is_dead()


@final
class MemoryRecord:
    """What a ``MemoryStore`` writes and a ``MemoryArchive`` reads."""

    def __init__(self) -> None:
        self.studies: dict[str, MemoryStudy] = {}

    def find(self, name: str) -> MemoryStudy:
        if name not in self.studies:
            raise not_found(name, self.studies)
        return self.studies[name]
