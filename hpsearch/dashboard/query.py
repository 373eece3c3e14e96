"""The filter bar: a page's query string as a choice of trials. The URL is the state; there is no other."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Annotated, Any, final

from fastapi import Query

from hpsearch.errors import UsageError, shown
from hpsearch.figures.subject import Subject
from hpsearch.parameter import Categorical
from hpsearch.trial import Direction, State, Trial

Test = Callable[[Trial], bool]
#: the longer ones first, as they are looked for
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
#: columns of a trial that are no hyperparameter
COLUMNS = ("number", "state", "value", "sd", "batch", "seconds")
STATES = tuple(str(state) for state in State)
#: what stands for no value
NULL = "null"


@final
@dataclass(frozen=True)
class Filter:
    """Which trials, as the URL says."""

    state: tuple[str, ...] = ()
    #: each ``NAME OP VALUE``: ``lr<0.1``; all must hold
    where: tuple[str, ...] = ()
    #: what cannot be read of it -> why, with the way out; filled by ``checked``
    problems: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __bool__(self) -> bool:
        return bool(self.state or self.where)

    def choose(self, subject: Subject) -> list[Trial]:
        """The trials that fit, in number order.

        Raises:
            UsageError: a state or a condition is none.
        """
        if wrong := [state for state in self.state if state not in STATES]:
            raise UsageError(f"{shown(wrong[0])} is no state", hint=f"one of {', '.join(STATES)}")
        tests = [_test(text, subject) for text in self.where]
        return [
            trial
            for trial in subject.trials
            if (not self.state or str(trial.state) in self.state) and all(test(trial) for test in tests)
        ]

    def checked(self, subject: Subject) -> Filter:
        """The same with its ``problems``: a page keeps what was typed, and says beside it what is wrong."""
        found: dict[str, str] = {}
        bare = replace(subject, trials=[trial for trial in subject.trials if trial.baseline])
        for one in (*(Filter(state=(text,)) for text in self.state), *(Filter(where=(text,)) for text in self.where)):
            try:
                one.choose(bare)
            except UsageError as error:
                found[(one.state or one.where)[0]] = f"{error}; {error.hint}" if error.hint else str(error)
        return replace(self, problems=found)

    @property
    def sound(self) -> Filter:
        """What is left without the ``problems``."""
        if not self.problems:
            return self
        state, where = (tuple(t for t in texts if t not in self.problems) for texts in (self.state, self.where))
        return Filter(state, where)


def filter_of(
    state: Annotated[list[str] | None, Query(description="only trials in these states", max_length=8)] = None,
    where: Annotated[
        list[str] | None,
        Query(description="only trials for which this holds: `lr<0.1`, `state=complete`", max_length=16),
    ] = None,
) -> Filter:
    """The filter of a request; empty fields of the form are none."""
    return Filter(
        tuple(dict.fromkeys(filter(None, state or ()))),
        tuple(dict.fromkeys(text.strip() for text in where or () if text.strip())),
    )


def column(trial: Trial, name: str) -> Any:
    """A trial's value in a column: of those of every trial, else a hyperparameter."""
    if name == "seconds":
        return sum(run.seconds for run in trial.runs)
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


def _test(text: str, subject: Subject) -> Test:
    """Whether a trial fits a condition.

    Raises:
        UsageError: it is none; says which part of it, and what could stand there.
    """
    known = list(dict.fromkeys([*COLUMNS, subject.metric, *subject.space.parameters]))
    name, sign, wanted = _parts(text, known)
    if name == subject.metric and name not in COLUMNS:
        name = "value"
    choices = _choices(name, subject)
    if choices is None and not _is_number(wanted) and wanted.lower() != NULL:
        raise UsageError(f"{name} is a number, and {shown(wanted)} is none", hint=f"{name}{sign}0.1")
    if choices is not None:
        _check_choice(name, sign, wanted, choices)
    compare = _OPERATORS[sign]

    def holds(trial: Trial) -> bool:
        value = column(trial, name)
        if _is_numeric(value) and _is_number(wanted):
            return bool(compare(value, float(wanted)))
        return sign in ("=", "!=") and _is(value, wanted) == (sign == "=")

    return holds


def _check_choice(name: str, sign: str, wanted: str, choices: Sequence[Any]) -> None:
    numeric = all(choice is None or _is_numeric(choice) for choice in choices)
    if sign not in ("=", "!="):
        if not numeric:
            raise UsageError(f"{name} has no order", hint=f"{name}={_text(choices[0])}, or {name}!=...")
        if not _is_number(wanted):
            raise UsageError(f"{name} is a number, and {shown(wanted)} is none", hint=f"{name}{sign}{choices[0]}")
    elif not any(_is(choice, wanted) for choice in choices):
        raise UsageError(f"{name} is never {shown(wanted)}", hint=f"one of {', '.join(map(_text, choices[:8]))}")


def _parts(text: str, known: Sequence[str]) -> tuple[str, str, str]:
    """(name, operator, value) of a condition. A name may hold what looks like an operator, so known ones go first."""
    for name in sorted((n for n in known if text.startswith(n)), key=len, reverse=True):
        rest = text[len(name) :].lstrip()
        for sign in _OPERATORS:
            if rest.startswith(sign) and rest[len(sign) :].strip():
                return name, sign, rest[len(sign) :].strip()
    at, sign = min(((text.find(s), s) for s in _OPERATORS if s in text), default=(-1, ""), key=lambda found: found[0])
    name = text[:at].strip()
    if at < 0 or not name or name in known:
        raise UsageError(f"{shown(text)} is no condition", hint="NAME<VALUE, with <, <=, >, >=, = or !=: lr<0.1")
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"they have {', '.join(known)}"
    raise UsageError(f"the trials have no {shown(name)}", hint=hint)


def _choices(name: str, subject: Subject) -> Sequence[Any] | None:
    """What a column's values are one of; None for numbers."""
    if name == "state":
        return STATES
    parameter = None if name in COLUMNS else subject.space.parameters[name]
    if not isinstance(parameter, Categorical):
        return None
    # A baseline's setting may be none of the choices.
    tried = (trial.params.get(name) for trial in subject.trials if trial.baseline)
    return list(dict.fromkeys([*parameter.choices, *tried, None]))


def _text(value: Any) -> str:
    """A choice as it is typed."""
    return NULL if value is None else str(value).lower()


def _is(value: Any, wanted: str) -> bool:
    """Whether a value is the one that was typed."""
    if _is_numeric(value) and _is_number(wanted):
        return bool(value == float(wanted))
    return _text(value) == wanted.lower()


def _is_numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False
