"""The learning rate's U: too low learns slowly, too high diverges, and the cliff is part of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject, params_text, place, some, ticks
from hpsearch.parameter import Categorical
from hpsearch.profile import profile_of
from hpsearch.trial import Direction, State

POINTS = 1200
CELLS = 12
#: the running quantile: of so many of the nearest trials at least
NEAREST, QUANTILE = 7, 0.1


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """Trials over one numeric parameter; places are on its own scale, 0 to 1."""

    name: str
    metric: str
    direction: str
    tick_places: Sequence[float]
    tick_texts: Sequence[str]
    #: (place, value, state, hover); value None where there is none
    points: Sequence[tuple[float, float | None, str, str]]
    #: (place, running 10 % quantile); None where most of the nearest trials have no value
    quantile: Sequence[tuple[float, float | None]]
    #: (start, end, share diverged) of the parts of the range that have trials
    diverged: Sequence[tuple[float, float, float]]
    best: tuple[float, float] | None
    note: str


def parameter_of(subject: Subject) -> str | None:
    """``lr``, or else the first numeric parameter; None where there is none."""
    numeric = [name for name, p in subject.space.searched.items() if not isinstance(p, Categorical)]
    near = [name for name in numeric if name in ("lr", "learning_rate", "alpha")]
    return next(iter([*near, *numeric]), None)


def data(subject: Subject, name: str) -> Data:
    """The value over the parameter ``name``."""
    p = subject.space.parameters[name]
    ended = [t for t in subject.ended if p.contains(t.params[name])]
    shown, note = some(ended, POINTS, subject.direction)
    names = list(subject.space.searched)
    points = []
    for trial in shown:
        where = place(p, trial.params[name])
        value = trial.value if trial.state is State.COMPLETE else None
        if where is not None:
            points.append(
                (where, value, str(trial.state), f"#{trial.number} {trial.state}<br>{params_text(trial, names)}")
            )
    bins = profile_of(name, p, ended, subject.direction, CELLS).bins
    width = 1 / len(bins)
    best = subject.best
    at = None if best is None or best.value is None else place(p, best.params[name])
    tick_places, tick_texts = ticks(p)
    pairs = [
        (place(p, t.params[name]) or 0.0, t.value if t.state is State.COMPLETE else None)
        for t in ended
        if t.state in (State.COMPLETE, State.DIVERGED)
    ]
    return Data(
        name=name,
        metric=subject.metric,
        direction=str(subject.direction),
        tick_places=tick_places,
        tick_texts=tick_texts,
        points=points,
        quantile=_running(pairs, subject.direction),
        diverged=[(k * width, (k + 1) * width, b.diverged / b.n) for k, b in enumerate(bins) if b.n],
        best=None if at is None or best is None or best.value is None else (at, best.value),
        note=note,
    )


def _running(pairs: Sequence[tuple[float, float | None]], direction: Direction) -> list[tuple[float, float | None]]:
    """The 10 % quantile from the good end of the trials nearest to each place; diverged ones are the worst."""
    if len(pairs) < 2 * NEAREST:
        return []
    sign = direction.sign
    ordered = np.array(sorted((u, math.inf if v is None else sign * v) for u, v in pairs))
    width = max(NEAREST, len(ordered) // 8)
    low, high = float(ordered[0, 0]), float(ordered[-1, 0])
    line: list[tuple[float, float | None]] = []
    for k in range(60):
        at = low + (high - low) * k / 59
        near = np.argsort(abs(ordered[:, 0] - at), kind="stable")[:width]
        loss = float(np.sort(ordered[near, 1])[round(QUANTILE * (width - 1))])
        line.append((at, sign * loss if loss < math.inf else None))
    return line


def lost(found: Data) -> bool:
    """Whether some trials have no value, and the picture a second panel for them."""
    return any(share for _, _, share in found.diverged) or any(value is None for _, value, _, _ in found.points)


def figure(found: Data) -> go.Figure:
    """Dots for trials, a line for the running quantile; where some diverged, the share of those below it."""
    title = f"{theme.safe(found.metric)} over {theme.safe(found.name)}"
    if not found.points:
        return theme.empty(title, "no trial has ended yet")
    below = lost(found)
    values = [v for _, v, _, _ in found.points if v is not None]
    said = ["line: best 10 % of the nearest trials" * bool(found.quantile), "bars: share diverged" * below, found.note]
    drawn = theme.new(title, "; ".join(filter(None, said)), height=420 if not below else 540 if values else 300)
    if below:
        _lost(drawn, found)
    for state in ("complete", "pruned", "failed"):
        here = [(u, v, text) for u, v, s, text in found.points if s == state and v is not None]
        if here:
            drawn.add_trace(
                go.Scatter(
                    x=[u for u, _, _ in here],
                    y=[v for _, v, _ in here],
                    mode="markers",
                    marker={"size": 7, "color": theme.STATE_COLOURS[state], "opacity": 0.55},
                    name=f"trial ({state})",
                    text=[text for _, _, text in here],
                    hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
                )
            )
    _lines(drawn, found)
    marks = {"tickvals": list(found.tick_places), "ticktext": list(found.tick_texts), "range": [-0.03, 1.03]}
    drawn.update_layout(
        xaxis=theme.axis(theme.safe(found.name), **marks, anchor="y2" if below else "y"),
        yaxis=theme.value_axis(found.metric, values, domain=[0.29 if below else 0, 1], visible=bool(values)),
    )
    if below:
        drawn.update_layout(
            yaxis2=theme.axis("diverged (%)", domain=[0, 0.19 if values else 1], range=[0, 100], tickvals=[0, 50, 100])
        )
    return drawn


def _lost(drawn: go.Figure, found: Data) -> None:
    """The trials without a value, and the share that diverged."""
    drawn.add_trace(
        go.Bar(
            x=[(a + b) / 2 for a, b, _ in found.diverged],
            y=[100 * share for _, _, share in found.diverged],
            width=[b - a for a, b, _ in found.diverged],
            marker={"color": theme.faint(theme.RED, 0.55), "line": {"color": theme.RED, "width": 1}},
            name="share diverged",
            hovertemplate="%{y:.0f} % diverged<extra></extra>",
            yaxis="y2",
        )
    )
    for state, height in (("diverged", 88), ("failed", 70), ("pruned", 52)):
        here = [(u, text) for u, v, s, text in found.points if s == state and v is None]
        if here:
            marker = {"size": 8, "symbol": theme.STATE_SYMBOLS[state], "color": theme.STATE_COLOURS[state]}
            drawn.add_trace(
                go.Scatter(
                    x=[u for u, _ in here],
                    y=[height] * len(here),
                    mode="markers",
                    marker=marker,
                    name=f"trial ({state})",
                    text=[text for _, text in here],
                    hovertemplate="%{text}<extra></extra>",
                    yaxis="y2",
                )
            )


def _lines(drawn: go.Figure, found: Data) -> None:
    if found.quantile:
        drawn.add_trace(
            go.Scatter(
                x=[u for u, _ in found.quantile],
                y=[v for _, v in found.quantile],
                mode="lines",
                line={"color": theme.INK, "width": 2.5, "shape": "hv"},
                name="running 10 % quantile",
                hovertemplate="best 10 % near here: %{y:.4g}<extra></extra>",
            )
        )
    if found.best:
        marker = {"size": 14, "symbol": "star", "color": theme.ORANGE, "line": {"color": theme.INK, "width": 1}}
        drawn.add_trace(
            go.Scatter(x=[found.best[0]], y=[found.best[1]], mode="markers", marker=marker, name="best trial")
        )
