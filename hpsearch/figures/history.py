"""The best so far, and every trial that led to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject, params_text, some
from hpsearch.trial import State
from hpsearch.verdict import spread

TITLE = "Best so far"
POINTS = 900


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """One trial."""

    trial: int
    #: None for a trial without a value (diverged, failed)
    value: float | None
    state: str
    baseline: bool
    hover: str


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """The best trial from here on."""

    trial: int
    value: float
    #: the interval for its mean over seeds (95 %, by t); None for one seed
    low: float | None
    high: float | None


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """Trials in number order."""

    metric: str
    direction: str
    points: Sequence[Point]
    steps: Sequence[Step]
    #: number of the last trial
    last: int
    note: str


def data(subject: Subject) -> Data:
    """The trials that ended, and the best so far in number order, with the spread over its seeds."""
    steps: list[Step] = []
    for trial in subject.ended:
        if trial.state is not State.COMPLETE or trial.value is None:
            continue
        if not steps or subject.direction.better(trial.value, steps[-1].value):
            found = spread(list(trial.values().values()))
            steps.append(Step(trial=trial.number, value=trial.value, low=found.low, high=found.high))
    shown, note = some(subject.ended, POINTS, subject.direction)
    points = [
        Point(
            trial=t.number,
            value=t.value if t.state in (State.COMPLETE, State.PRUNED) else None,
            state=str(t.state),
            baseline=t.baseline,
            hover=f"#{t.number} {t.state}<br>{params_text(t, list(subject.space.searched))}",
        )
        for t in shown
    ]
    last = subject.ended[-1].number if subject.ended else 0
    return Data(
        metric=subject.metric, direction=str(subject.direction), points=points, steps=steps, last=last, note=note
    )


def figure(found: Data) -> go.Figure:
    """Dots for trials, a line for the best so far; its band is the 95 % interval of its mean over seeds."""
    if not found.points:
        return theme.empty(TITLE, "no trial has ended yet")
    values = [p.value for p in found.points if p.value is not None]
    banded = any(step.low is not None for step in found.steps)
    band = "band: 95 % interval of the mean over seeds (t)" if banded else "one seed: no spread is known"
    said = [band if found.steps else "", found.note]
    drawn = theme.new(TITLE, "; ".join(filter(None, said)))
    floor = _floor(values, found.direction)
    for state in ("complete", "pruned", "diverged", "failed"):
        here = [p for p in found.points if p.state == state and not p.baseline]
        if here:
            drawn.add_trace(_dots(here, state, floor))
    if base := [p for p in found.points if p.baseline]:
        drawn.add_trace(_dots(base, "baseline", floor))
    for trace in _best(found, banded):
        drawn.add_trace(trace)
    drawn.update_xaxes(**theme.axis("trial"))
    drawn.update_yaxes(**theme.value_axis(found.metric, values))
    return drawn


def _floor(values: Sequence[float], direction: str) -> float:
    """Where what has no value is drawn: just beyond the worst."""
    if not values:
        return 0.0
    low, high = min(values), max(values)
    gap = 0.04 * (high - low) or abs(high) * 0.04 or 1.0
    if direction == "maximize":
        return low - gap if low - gap > 0 or low <= 0 else low
    return high * 1.15 if low > 0 and high > 8 * low else high + gap


def _dots(points: Sequence[Point], kind: str, floor: float) -> Any:
    state = "complete" if kind == "baseline" else kind
    colour = theme.ORANGE if kind == "baseline" else theme.STATE_COLOURS[state]
    marker = {"size": 10 if kind == "baseline" else 7, "color": colour, "opacity": 0.6 if kind == "complete" else 1}
    marker["symbol"] = "star" if kind == "baseline" else theme.STATE_SYMBOLS[state]
    lost = [p for p in points if p.value is None]
    name = f"{kind} (no value: drawn at the edge)" if lost and kind != "baseline" else kind
    return go.Scatter(
        x=[p.trial for p in points],
        y=[floor if p.value is None else p.value for p in points],
        mode="markers",
        marker=marker,
        name=name,
        text=[p.hover for p in points],
        hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
    )


def _best(found: Data, banded: bool) -> list[Any]:
    if not found.steps:
        return []
    ends = [*(step.trial for step in found.steps[1:]), found.last]
    xs = [x for step, end in zip(found.steps, ends, strict=True) for x in (step.trial, end)]
    ys = [step.value for step in found.steps for _ in range(2)]
    line = go.Scatter(x=xs, y=ys, mode="lines", line={"color": theme.INK, "width": 2.5}, name="best so far")
    # Its corners lie on the best trials' dots: whoever clicks there gets to the trial.
    line.update(text=[f"#{step.trial}" for step in found.steps for _ in range(2)])
    line.update(hovertemplate="best so far %{y:.4g}, %{text}<extra></extra>")
    if not banded:
        return [line]
    highs = [step.value if step.high is None else step.high for step in found.steps for _ in range(2)]
    lows = [step.value if step.low is None else step.low for step in found.steps for _ in range(2)]
    if min(ys) > 0:  # a log scale, perhaps, which knows nothing below zero
        lows = [max(low, y / 10) for low, y in zip(lows, ys, strict=True)]
    band = go.Scatter(
        x=xs + xs[::-1],
        y=highs + lows[::-1],
        mode="lines",
        fill="toself",
        fillcolor=theme.faint(theme.INK, 0.15),
        line={"width": 0},
        hoverinfo="skip",
        name="95 % interval",
    )
    return [band, line]
