"""The filter bar: a page's query string as a choice of trials. The URL is the state; there is no other."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, final

from fastapi import Query

from hpsearch.errors import UsageError
from hpsearch.figures.subject import Subject
from hpsearch.trial import Direction, State, Trial

_WHERE = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
#: columns of a trial that are no hyperparameter
COLUMNS = ("number", "state", "value", "sd", "batch")


@final
@dataclass(frozen=True)
class Filter:
    """Which trials, as the URL says."""

    state: tuple[str, ...] = ()
    #: each ``NAME OP VALUE``: ``lr<0.1``; all must hold
    where: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.state or self.where)

    def choose(self, subject: Subject) -> list[Trial]:
        """The trials that fit, in number order.

        Raises:
            UsageError: a state or a condition is none.
        """
        known = {str(state) for state in State}
        if wrong := [state for state in self.state if state not in known]:
            raise UsageError(f"{wrong[0]!r} is no state", hint=f"one of {', '.join(sorted(known))}")
        tests = [_test(text, subject) for text in self.where]
        return [
            trial
            for trial in subject.trials
            if (not self.state or str(trial.state) in self.state) and all(test(trial) for test in tests)
        ]


def filter_of(
    state: Annotated[list[str] | None, Query(description="only trials in these states", max_length=8)] = None,
    where: Annotated[
        list[str] | None,
        Query(description="only trials for which this holds: `lr<0.1`, `state=complete`", max_length=16),
    ] = None,
) -> Filter:
    """The filter of a request; empty fields of the form are none."""
    return Filter(tuple(filter(None, state or ())), tuple(text for text in where or () if text.strip()))


def column(trial: Trial, name: str) -> Any:
    """A trial's value in a column: of those of every trial, else a hyperparameter."""
    return getattr(trial, name) if name in COLUMNS else trial.params.get(name)


def ordered(trials: Sequence[Trial], sort: str, metric: str, direction: Direction) -> list[Trial]:
    """Trials by a column, ``-`` before it the other way round; those without a value last. ``rank``: the best first."""
    name, down = way_of(sort, metric, direction)

    def key(trial: Trial) -> tuple[int, Any]:
        return place(trial, name)

    numbers = sorted(trials, key=lambda trial: trial.number)
    some = [t for t in numbers if key(t)[0] == 0]
    texts = [t for t in numbers if key(t)[0] == 1]
    none = [t for t in numbers if key(t)[0] == 2]
    return [*sorted(some, key=key, reverse=down), *sorted(texts, key=key, reverse=down), *none]


def way_of(sort: str, metric: str, direction: Direction) -> tuple[str, bool]:
    """(column, whether from the largest down) of an order as the URL says it."""
    name, down = sort.removeprefix("-"), sort.startswith("-")
    if name in ("rank", metric):
        down = (direction is Direction.MAXIMIZE) != down if name == "rank" else down
        name = "value"
    return name, down


def place(trial: Trial, name: str) -> tuple[int, Any]:
    """Where a trial stands in the order of a column: numbers (0), then texts (1), then what has no value (2)."""
    value = column(trial, name)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return 2, ""
    return (0, value) if isinstance(value, int | float) else (1, str(value))


def _test(text: str, subject: Subject) -> Callable[[Trial], bool]:
    match = _WHERE.fullmatch(text)
    names = [*COLUMNS, *subject.space.parameters]
    if match is None:
        raise UsageError(f"{text!r} is no condition", hint="NAME<VALUE, with <, <=, >, >=, = or !=: lr<0.1")
    name, sign, wanted = match.groups()
    if name == subject.metric:
        name = "value"
    if name not in names:
        raise UsageError(f"{text!r}: the trials have no {name!r}", hint=f"they have {', '.join(names)}")
    compare = _OPERATORS[sign]

    def holds(trial: Trial) -> bool:
        value = column(trial, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return sign in ("=", "!=") and compare("null" if value is None else str(value).lower(), wanted.lower())
        try:
            return compare(value, float(wanted))
        except ValueError:
            return sign == "!="

    return holds
