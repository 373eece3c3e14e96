"""What stops trials early: a pure function of the recorded curves. Members come with fused training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from hpsearch.trial import Direction


@final
@dataclass(frozen=True, kw_only=True)
class Rung:
    """A cohort of trials waiting at an epoch: number -> the metric there, one value a search seed they share."""

    epoch: int
    direction: Direction
    values: Mapping[int, Sequence[float]]


class Pruner(ABC):
    """Decides which trials go no further."""

    name: ClassVar[str]

    @abstractmethod
    def rungs(self, epochs: int) -> list[int]:
        """The epochs (counted from 1, increasing, below ``epochs``) after which a trial may be stopped."""

    @abstractmethod
    def decide(self, rung: Rung) -> set[int]:
        """Numbers of the trials to stop at this rung."""
