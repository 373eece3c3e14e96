"""Hyperparameters: what values they may take, and how these map to the unit interval.

u = 0 is ``low``, u = 1 is ``high``, and equal steps in u are equal steps
    in x                for a plain Float
    in log(x)           with ``log``
    in log(1 - x)       with ``reverse_log`` (momentum: 0.9, 0.99, 0.999 are evenly spaced)
An Int, a stepped Float or a Categorical of n values owns n cells of the interval;
a value maps back to the middle of its cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import cast, final

from hpsearch.errors import Problem, StudyError, shown

#: the values that a hyperparameter may take
Value = float | int | str | bool | None


def _clip(x: float, low: float, high: float) -> float:
    return low if x < low else high if x > high else x


def _cell(u: float, n: int) -> int:
    return min(int(_clip(u, 0.0, 1.0) * n), n - 1)


def _is_real(x: object) -> bool:
    """True for a finite number that a float can hold; False for a boolean."""
    try:
        return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
    except OverflowError:
        return False


def _is_whole(x: object) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


#: above it, doubles skip whole numbers
_MOST = 2**53


def _raise(problems: list[tuple[str, str, object]]) -> None:
    if problems:
        raise StudyError([Problem(field=f, message=m, value=v) for f, m, v in problems])


def _wrong_kinds(p: Float | Int, good: Callable[[object], bool], kind: str) -> Iterator[tuple[str, str, object]]:
    """Fields that are no numbers, or no true or false, where they should be."""
    for f in fields(p):
        value: object = getattr(p, f.name)
        if f.name in ("log", "reverse_log"):
            if not isinstance(value, bool):
                yield f.name, f"must be true or false, not {shown(value)}", value
        elif value is None and f.default is None:
            continue
        elif f.name == "points":
            if not _is_whole(value) or not 1 <= cast("int", value) <= _MOST:
                yield "points", f"must be a whole number of at least 1, not {shown(value)}", value
        elif not good(value):
            text = " (a string: remove the quotes)" if isinstance(value, str) else ""
            yield f.name, f"must be {kind}, not {shown(value)}{text}", value


def _wrong_order(p: Float | Int) -> Iterator[tuple[str, str, object]]:
    low, high = p.outer
    if p.low > p.high:
        yield "low", f"is above high: {shown(p.low)} > {shown(p.high)}", p.low
    if low > p.low:
        yield "hard_low", f"is above low: {shown(low)} > {shown(p.low)}", low
    if high < p.high:
        yield "hard_high", f"is below high: {shown(high)} < {shown(p.high)}", high


def _steps(low: float, high: float, step: float) -> int:
    """How many whole steps fit between low and high. In decimal: 0.1 fits into [0.1, 0.3] twice."""
    return int((Decimal(repr(float(high))) - Decimal(repr(float(low)))) / Decimal(repr(float(step))))


@final
@dataclass(frozen=True)
class Float:
    """A real number in [low, high].

    ``log`` needs ``low > 0``; ``reverse_log`` needs ``high < 1``; ``step`` excludes both.
    ``hard_low`` and ``hard_high`` say how far outside [low, high] a strategy that moves its window may go.
    ``points`` is how many values a grid takes.

    Raises:
        StudyError: with every mistake in the fields.
    """

    low: float
    high: float
    log: bool = False
    reverse_log: bool = False
    step: float | None = None
    points: int | None = None
    hard_low: float | None = None
    hard_high: float | None = None

    def __post_init__(self) -> None:
        _raise(list(_wrong_kinds(self, _is_real, "a finite number")) or list(self._mistakes()))
        for name in ("low", "high", "step", "hard_low", "hard_high"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))

    def _mistakes(self) -> Iterator[tuple[str, str, object]]:
        yield from _wrong_order(self)
        low, high = self.outer
        if self.log and self.reverse_log:
            yield "log", "excludes reverse_log: choose one", True
        if self.log and low <= 0:
            yield "low", f"must be above 0 on a log scale, not {low}", low
        if self.reverse_log and high >= 1:
            yield "high", f"must be below 1 on a reverse log scale, not {high}", high
        if self.step is not None and (self.log or self.reverse_log):
            yield "step", f"excludes log and reverse_log; it is {self.step}", self.step
        if self.step is not None and self.step <= 0:
            yield "step", f"must be above 0, not {self.step}", self.step
        elif self.step is not None and low < high and _steps(low, high, self.step) > _MOST:
            yield "step", f"is too small for this range: {self.step}", self.step

    @property
    def outer(self) -> tuple[float, float]:
        """(hard_low or low, hard_high or high)."""
        return (
            self.low if self.hard_low is None else self.hard_low,
            self.high if self.hard_high is None else self.hard_high,
        )

    @property
    def size(self) -> int | None:
        """How many values there are; None for a continuum."""
        if self.low == self.high:
            return 1
        return None if self.step is None else _steps(self.low, self.high, self.step) + 1

    def from_unit(self, u: float) -> float:
        """The value at ``u``, clipped to [0, 1]. Never leaves [low, high] by rounding."""
        size = self.size
        if size is not None:
            return self._stepped(_cell(u, size))
        if u <= 0.0:
            return self.low
        if u >= 1.0:
            return self.high
        a, b = self._scale(self.low), self._scale(self.high)
        # b - a may pass the largest float; a sum of parts cannot.
        s = a + u * (b - a) if math.isfinite(b - a) else a * (1 - u) + b * u
        return _clip(self._unscale(s), self.low, self.high)

    def to_unit(self, value: Value) -> float:
        """Where ``value`` lies in [0, 1]; outside of it where the value is outside [low, high]."""
        x = _number(value)
        size = self.size
        if size is not None:
            step = self.step or 1.0
            return 0.5 if size == 1 else (round((x - self.low) / step) + 0.5) / size
        a, b = self._scale(self.low), self._scale(self.high)
        if a == b:  # a range of a few ulps: the scaled ends coincide though low < high
            return 0.5
        s = self._scale(x)
        # Halves where b - a would pass the largest float.
        return (s - a) / (b - a) if math.isfinite(b - a) else (s / 2 - a / 2) / (b / 2 - a / 2)

    def contains(self, value: Value) -> bool:
        """True for a number within the hard bounds, on the step's lattice where there is one."""
        if not _is_real(value):
            return False
        x = _number(value)
        low, high = self.outer
        if not low <= x <= high:
            return False
        return self.step is None or x == self._stepped(round((x - self.low) / self.step))

    def grid(self, points: int) -> list[float]:
        """At most ``points`` values, evenly spaced on the parameter's scale, both ends included."""
        size = self.size
        if size is not None and size <= points:
            return [self._stepped(k) for k in range(size)]
        if points == 1:
            return [self._rounded(0.5)]
        return list(dict.fromkeys(self._rounded(k / (points - 1)) for k in range(points)))

    def _rounded(self, u: float) -> float:
        """``from_unit(u)`` in 12 digits where nobody can tell: 0.0001 and not 0.00010000000000000009."""
        x = self.from_unit(u)
        short = float(f"{x:.12g}")
        same = (
            self.step is None and 0 < u < 1 and self.low <= short <= self.high and abs(self.to_unit(short) - u) < 1e-9
        )
        return short if same else x

    def narrow(self, start: float, end: float) -> Float:
        """The same parameter on the part [start, end] of its unit interval."""
        return replace(self, low=self.from_unit(start), high=self.from_unit(end), hard_low=None, hard_high=None)

    def hard(self) -> Float:
        """The same parameter with its hard bounds as low and high (kept on the step's lattice)."""
        low, high = self.outer
        if self.step is not None:
            low = self._stepped(-_steps(low, self.low, self.step))
        return replace(self, low=low, high=high, hard_low=None, hard_high=None)

    def _stepped(self, k: int) -> float:
        if self.step is None or k == 0:
            return self.low
        # In decimal, so that 0.1 + 2 * 0.1 is 0.3 and not 0.30000000000000004.
        return float(Decimal(repr(self.low)) + k * Decimal(repr(float(self.step))))

    def _scale(self, x: float) -> float:
        if self.log:
            return math.log(x) if x > 0 else -math.inf
        if self.reverse_log:
            return -math.log1p(-x) if x < 1 else math.inf
        return x

    def _unscale(self, s: float) -> float:
        if self.log:
            # exp(log(max float)) rounds past the largest float.
            return math.exp(min(s, 709.782712893384))
        if self.reverse_log:
            return -math.expm1(-s)
        return s


@final
@dataclass(frozen=True)
class Int:
    """A whole number in [low, high], every ``step``-th; ``log`` needs ``low >= 1`` and step 1.

    Raises:
        StudyError: with every mistake in the fields.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    points: int | None = None
    hard_low: int | None = None
    hard_high: int | None = None

    def __post_init__(self) -> None:
        _raise(list(_wrong_kinds(self, _is_whole, "a whole number")) or list(self._mistakes()))

    def _mistakes(self) -> Iterator[tuple[str, str, object]]:
        yield from _wrong_order(self)
        low, high = self.outer
        for field, number in [("low", low), ("high", high)]:
            if abs(number) > _MOST:
                yield field, f"must lie within -2^53 and 2^53, not {shown(number)}", number
        if self.step < 1:
            yield "step", f"must be at least 1, not {self.step}", self.step
        if self.log and low < 1:
            yield "low", f"must be at least 1 on a log scale, not {shown(low)}", low
        if self.log and self.step != 1:
            yield "step", f"excludes log; it is {shown(self.step)}", self.step

    @property
    def outer(self) -> tuple[int, int]:
        """(hard_low or low, hard_high or high)."""
        return (
            self.low if self.hard_low is None else self.hard_low,
            self.high if self.hard_high is None else self.hard_high,
        )

    @property
    def size(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def from_unit(self, u: float) -> int:
        """The value whose cell holds ``u``, clipped to [0, 1]."""
        if not self.log:
            return self.low + self.step * _cell(u, self.size)
        a, b = math.log(self.low - 0.5), math.log(self.high + 0.5)
        x = round(math.exp(a + _clip(u, 0.0, 1.0) * (b - a)))
        return min(max(x, self.low), self.high)

    def to_unit(self, value: Value) -> float:
        """The middle of the value's cell."""
        x = _number(value)
        if not self.log:
            return ((x - self.low) // self.step + 0.5) / self.size
        a, b = math.log(self.low - 0.5), math.log(self.high + 0.5)
        left, right = math.log(max(x, 0.75) - 0.5), math.log(max(x, 0.75) + 0.5)
        return ((left + right) / 2 - a) / (b - a)

    def contains(self, value: Value) -> bool:
        """True for a whole number within the hard bounds, on the step's lattice."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        low, high = self.outer
        return low <= value <= high and (value - self.low) % self.step == 0

    def grid(self, points: int) -> list[int]:
        """At most ``points`` values, evenly spaced on the parameter's scale, both ends included."""
        if self.size <= points:
            return list(range(self.low, self.high + 1, self.step))
        if points == 1:
            return [self.from_unit(0.5)]
        if self.log:  # between the ends themselves, not their cells': 1, 10, 100, 1000
            ratio = math.log(self.high / self.low) / (points - 1)
            inner = [round(self.low * math.exp(k * ratio)) for k in range(points - 1)]
            return list(dict.fromkeys([*inner, self.high]))
        return list(dict.fromkeys(self.from_unit(k / (points - 1)) for k in range(points)))

    def narrow(self, start: float, end: float) -> Int:
        """The same parameter on the part [start, end] of its unit interval."""
        return replace(self, low=self.from_unit(start), high=self.from_unit(end), hard_low=None, hard_high=None)

    def hard(self) -> Int:
        """The same parameter with its hard bounds as low and high (kept on the step's lattice)."""
        low, high = self.outer
        low += (self.low - low) % self.step
        return replace(self, low=low, high=high, hard_low=None, hard_high=None)


@final
@dataclass(frozen=True)
class Categorical:
    """One of ``choices``, which have no order. One choice only: a fixed value.

    Raises:
        StudyError: no choice, or the same choice twice, or a choice that is no scalar.
    """

    choices: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            _raise([("choices", "needs at least one choice", [])])
        for choice in cast("tuple[object, ...]", self.choices):
            if choice is not None and not isinstance(choice, bool | int | float | str):
                _raise([("choices", f"must be numbers, strings, booleans or null, not {shown(choice)}", choice)])
            if isinstance(choice, float) and not math.isfinite(choice):
                _raise([("choices", f"must be finite, not {shown(choice)}", choice)])
        twice = [c for k, c in enumerate(self.choices) if any(_same(c, d) for d in self.choices[:k])]
        if twice:
            _raise([("choices", f"names {shown(twice[0])} twice", twice[0])])

    @property
    def size(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    def from_unit(self, u: float) -> Value:
        """The choice whose cell holds ``u``, clipped to [0, 1]."""
        return self.choices[_cell(u, self.size)]

    def to_unit(self, value: Value) -> float:
        """The middle of the choice's cell.

        Raises:
            ValueError: no such choice.
        """
        for k, choice in enumerate(self.choices):
            if _same(choice, value):
                return (k + 0.5) / self.size
        raise ValueError(f"{shown(value)} is none of {list(self.choices)}")

    def contains(self, value: Value) -> bool:
        """True for one of the choices; 1, 1.0 and True are three different ones."""
        return any(_same(choice, value) for choice in self.choices)

    def grid(self, points: int) -> list[Value]:
        """All choices, whatever ``points`` says."""
        return list(self.choices)

    def narrow(self, start: float, end: float) -> Categorical:
        """Itself: a window means nothing where there is no order."""
        return self

    def hard(self) -> Categorical:
        """Itself."""
        return self


Parameter = Float | Int | Categorical


def _same(a: Value, b: Value) -> bool:
    return type(a) is type(b) and a == b


def _number(value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return value
