"""What pictures are of: the parts of a study's record that they need, and how its parameters' scales are drawn."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.parameter import Categorical, Float, Int, Parameter, Value
from hpsearch.read import space_of
from hpsearch.results import Results
from hpsearch.space import SearchSpace
from hpsearch.trial import Direction, Stage, State, Trial, best_trials


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """A study as pictures see it."""

    study: str
    strategy: str
    metric: str
    direction: Direction
    space: SearchSpace
    #: in number order
    trials: Sequence[Trial]

    @property
    def best(self) -> Trial | None:
        """The best complete trial; None while there is none."""
        return next(iter(best_trials(self.trials, self.direction, 1)), None)

    @property
    def ended(self) -> list[Trial]:
        """The trials that have ended, cancelled ones aside."""
        return [trial for trial in self.trials if trial.state.final and trial.state is not State.CANCELLED]


def of(results: Results) -> Subject:
    """The subject of a loaded study."""
    spec = results.study.spec
    return Subject(
        study=results.study.name,
        strategy=spec["strategy"]["name"],
        metric=spec["metric"],
        direction=results.direction,
        space=space_of(spec),
        trials=results.trials,
    )


def seeds_of(trial: Trial) -> int:
    """How many seeds its value is the mean of: those of the search, whatever was run later."""
    return sum(run.stage is Stage.SEARCH and run.key.repeat == 0 and run.value is not None for run in trial.runs)


def some(trials: Sequence[Trial], most: int, direction: Direction) -> tuple[list[Trial], str]:
    """At most ``most`` of the trials, in their order, and a note where some are left out.

    Kept are the best fifth of ``most``, up to two fifths without a value (diverged, failed), and a fixed sample of the
    rest.
    """
    if len(trials) <= most:
        return list(trials), ""
    source = random.Random(0)
    kept = {t.number for t in best_trials(trials, direction, most // 5)}
    bad = [t.number for t in trials if t.value is None]
    kept |= set(bad if len(bad) <= 2 * most // 5 else source.sample(bad, 2 * most // 5))
    rest = [t.number for t in trials if t.value is not None and t.number not in kept]
    kept |= set(source.sample(rest, min(len(rest), most - len(kept))))
    lost = "the best kept" if len(bad) > 2 * most // 5 else "the best and all without a value kept"
    return [t for t in trials if t.number in kept], f"{len(kept):,} of {len(trials):,} trials shown; {lost}"


def place(parameter: Parameter, value: Value) -> float | None:
    """Where a value lies on the parameter's axis, 0 to 1 (``hard()``); None for no such choice."""
    try:
        u = parameter.hard().to_unit(value)
    except ValueError:
        return None
    return u if math.isfinite(u) else None


def ticks(parameter: Parameter, most: int = 7) -> tuple[list[float], list[str]]:
    """Places on the parameter's axis, 0 to 1, and the values to write there."""
    whole = parameter.hard()
    if isinstance(whole, Categorical):
        return [(k + 0.5) / whole.size for k in range(whole.size)], [text(c) for c in whole.choices]
    values: list[float]
    if whole.log:
        values = _log_ticks(whole.low, whole.high, most)
    elif isinstance(whole, Float) and whole.reverse_log:
        decades = [1 - 10.0**-k for k in range(10) if whole.low <= 1 - 10.0**-k <= whole.high]
        values = sorted({whole.low, *decades, whole.high})
    else:
        values = list(whole.grid(min(most, 6)))
    if isinstance(whole, Int):
        values = sorted({min(max(round(v), whole.low), whole.high) for v in values})
    return [whole.to_unit(v) for v in values], [text(v) for v in values]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    decades = [10.0**k for k in range(first, last + 1)]
    if len(decades) < 2:
        return [low, math.sqrt(low * high), high]
    step = math.ceil(len(decades) / most)
    return decades[::step]


def text(value: Value) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    word = str(value)
    word = word if len(word) <= 24 else word[:23] + "…"
    return word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def params_text(trial: Trial, names: Sequence[str]) -> str:
    """For a hover: a line a parameter."""
    return "<br>".join(f"{text(name)} {text(trial.params[name])}" for name in names if name in trial.params)
