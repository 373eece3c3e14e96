"""How the next settings are chosen: a pure function of (study, history).

``ask`` does no I/O, reads no clock and keeps no state, so resume, crash and audit come for free: asked again with the
same history it gives the same answer, in any process. A strategy that learns does so in batches whose size it fixes
itself; the loop creates a whole batch at once and waits for all of it before it asks for the next, so no suggestion
depends on which worker was faster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

from hpsearch.errors import Problem
from hpsearch.space import Params, SearchSpace, Window
from hpsearch.trial import Direction, State


@final
@dataclass(frozen=True, kw_only=True)
class Observation:
    """A final trial as a strategy sees it."""

    params: Params
    #: complete, pruned, diverged, failed or cancelled
    state: State
    #: mean over the search seeds; None unless complete or pruned.
    #: Diverged counts as the worst value there is, failed as unknown.
    value: float | None
    #: not chosen by the strategy; may lie outside the search space
    baseline: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class History:
    """What a strategy may know when it chooses.

    A strategy without ``batch_size`` gets no observations: ``finished`` and ``pending`` are empty, ``batch`` is 0 and
    ``index`` counts all it has chosen. One with ``batch_size`` B gets ``finished``: the baselines, then its own trials
    0 .. batch * B - 1, in number order, all final; and ``pending``: the ``index`` params of its current batch so far,
    as if still running even where they have ended. The study's budget is not here: extending it must not change
    the past.
    """

    search_space: SearchSpace
    direction: Direction
    seed: int
    #: the current batch, from 0
    batch: int = 0
    #: how many of the current batch are chosen already
    index: int = 0
    finished: Sequence[Observation] = ()
    pending: Sequence[Params] = ()

    def asked(self, params: Sequence[Params]) -> History:
        """This history after the strategy has chosen ``params`` too."""
        return replace(self, index=self.index + len(params), pending=(*self.pending, *params))


@final
@dataclass(frozen=True, kw_only=True)
class Decision:
    """Something decided from results, with its reason, for the record."""

    #: ``zoom``, ``prune`` ...
    kind: str
    #: what it is about: a parameter's or a trial's name
    subject: str
    #: in words: ``best 3.2e-3 lies at the edge of [1e-4, 4e-3]``
    reason: str
    #: the numbers behind it, JSON: ``{"old": [low, high], "new": [low, high]}``
    details: Mapping[str, Any] = field(default_factory=dict)
    #: the batch or round after which it was taken
    batch: int = 0


def broken_rules(strategy: Strategy, rules: Sequence[tuple[str, bool, str]]) -> list[Problem]:
    """The problems of a strategy's options. ``rules``: (option, whether it holds, the rule in words)."""
    values = {option: getattr(strategy, option) for option, _, _ in rules}
    return [
        Problem(field=f"strategy.{option}", message=f"{rule}, not {values[option]!r}", value=values[option])
        for option, holds, rule in rules
        if not holds
    ]


class Strategy(ABC):
    """Chooses settings. A member is a frozen dataclass of its options, which is also the schema of the study file."""

    #: as a study file names it
    name: ClassVar[str]

    @property
    @abstractmethod
    def batch_size(self) -> int | None:
        """How many trials are chosen together from the same results; None: results do not matter at all."""

    @abstractmethod
    def ask(self, history: History, n: int) -> list[Params]:
        """At most ``n`` settings, all of the current batch, fixed values included.

        ``ask(h, a) + ask(h.asked(those), b) == ask(h, a + b)``. Fewer than ``n`` where the batch has no more; an empty
        list at the start of a batch (``index`` 0) means that the search is over.
        """

    @abstractmethod
    def decisions(self, history: History) -> list[Decision]:
        """What was decided when the current batch began, with the reasons; [] for a strategy that decides nothing."""

    @abstractmethod
    def window(self, history: History) -> Window:
        """The part of the unit cube of ``search_space.hard()`` the current batch is drawn from; {}: all of it."""

    @abstractmethod
    def size(self, search_space: SearchSpace) -> int | None:
        """How many trials there are in all; None where there is no end."""

    @abstractmethod
    def problems(self, search_space: SearchSpace) -> list[Problem]:
        """Why this strategy cannot search that space; [] where it can. Fields: ``strategy...``, ``search_space...``."""
