"""The record as it lies, for ``verify``, and what is wrong with it: also what lost attempts have told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from hpsearch.strategy import Decision
from hpsearch.trial import RunKey, Trial


@final
@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a run."""

    #: from 1
    number: int
    #: why it was lost; None: it counts, or is in hand
    cause: str | None


@final
@dataclass(frozen=True, kw_only=True)
class Told:
    """What one attempt has left in one table."""

    #: ``metric``, ``sealed`` or ``layers``
    table: str
    run: RunKey
    attempt: int
    #: from 0; -1 in ``sealed``: of the finished run
    first_epoch: int
    last_epoch: int
    #: how many different ones
    epochs: int

    @property
    def gapless(self) -> bool:
        """Every epoch from the first to the last is there."""
        return self.epochs == self.last_epoch - self.first_epoch + 1


@final
@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the record says of one study, read in one transaction."""

    name: str
    #: as stored: ``running``, ``complete``, ``stopped``, ``interrupted`` or ``failed``
    state: str
    reason: str
    #: ``study.spec_of``
    spec: Mapping[str, Any]
    #: sha256 of the training code
    code_hash: str
    file: str
    #: how often a coordinator has taken the study
    starts: int
    #: the last place among ended trials
    tell_seq: int
    #: whether a holder is stored, and until when its lease lasts (seconds since 1970; 0: there is none)
    held: bool
    lease_until: float
    #: with all runs, in number order
    trials: Sequence[Trial]
    #: in number order
    attempts: Mapping[RunKey, Sequence[Attempt]]
    told: Sequence[Told]
    #: rows with a number that is none: ``metric val_loss of 3/0, attempt 1, epoch 7``
    not_finite: Sequence[str]
    #: run -> epoch -> the study's metric, as it was reported first
    curves: Mapping[RunKey, Mapping[int, float]]
    #: oldest first
    decisions: Sequence[Decision]


@final
@dataclass(frozen=True, kw_only=True)
class Breach:
    """Something that must hold and does not."""

    #: ``study``, ``study/trial`` or ``study/trial/seed``; empty: the database
    address: str
    #: what is broken, in a word or two: ``attempts``, ``suggestion``
    rule: str
    expected: str
    found: str


@final
@dataclass(kw_only=True)
class Verdict:
    """What came of one study."""

    study: str
    trials: int = 0
    runs: int = 0
    attempts: int = 0
    #: suggestions, and decisions at rungs, that were computed again and are the same
    suggestions: int = 0
    rulings: int = 0
    breaches: list[Breach] = field(default_factory=list)
    #: what could not be compared, and why
    skipped: list[str] = field(default_factory=list)

    def wrong(self, address: object, rule: str, expected: object, found: object) -> None:
        """Something does not hold; ``address``: a trial's number or a run's key, empty for the study."""
        place = f"{self.study}/{address}" if address != "" else self.study
        self.breaches.append(Breach(address=place, rule=rule, expected=str(expected), found=str(found)))


def same(stored: Any, now: Any) -> bool:
    """To the bit and the type: 1 is not 1.0."""
    return json.dumps(stored, sort_keys=True) == json.dumps(now, sort_keys=True)


def in_json(value: Any) -> str:
    """As a breach shows it."""
    return json.dumps(value, ensure_ascii=True)


def some(items: Iterable[object]) -> str:
    """``1, 2, 3 and 14 more``."""
    words = list(map(str, items))
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
