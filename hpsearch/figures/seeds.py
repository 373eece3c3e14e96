"""The best trials seed by seed: whether the winner stands out of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject
from hpsearch.trial import best_trials
from hpsearch.verdict import Spread, spread

TITLE = "Seeds of the best trials"
TOP, SEEDS = 6, 100


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial: (seed, value) of the search's runs, and what they say of its mean."""

    trial: int
    values: Sequence[tuple[int, float]]
    spread: Spread


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """The best trials, best first."""

    metric: str
    rows: Sequence[Row]
    note: str


def data(subject: Subject, top: int = TOP) -> Data:
    """The values of the best trials on each seed of the search."""
    rows, cut = [], False
    for trial in best_trials(subject.trials, subject.direction, top):
        values = sorted(trial.values().items())
        cut |= len(values) > SEEDS
        rows.append(Row(trial=trial.number, values=values[:SEEDS], spread=spread([value for _, value in values])))
    return Data(metric=subject.metric, rows=rows, note=f"the first {SEEDS} seeds are drawn" if cut else "")


def figure(found: Data) -> go.Figure:
    """A dot a seed; a diamond for the mean and a bar for its 95 % interval. The best is at the top."""
    if not found.rows:
        return theme.empty(TITLE, "no trial is complete")
    barred = any(row.spread.low is not None for row in found.rows)
    said = "diamond: mean; bar: 95 % interval (t)" if barred else "one seed: nobody knows the spread"
    drawn = theme.new(TITLE, "; ".join(filter(None, [said, found.note])), height=max(240, 150 + 36 * len(found.rows)))
    names = [f"#{row.trial}" for row in found.rows]
    dots = [
        (value, name, f"seed {seed}") for row, name in zip(found.rows, names, strict=True) for seed, value in row.values
    ]
    drawn.add_trace(
        go.Scatter(
            x=[value for value, _, _ in dots],
            y=[name for _, name, _ in dots],
            text=[words for _, _, words in dots],
            mode="markers",
            marker={"size": 7, "color": theme.SKY, "opacity": 0.8},
            name="a seed",
            hovertemplate="%{y} %{text}: %{x:.4g}<extra></extra>",
        )
    )
    ends = [row.spread for row in found.rows]
    means = [end.mean for end in ends]
    bars = {"type": "data", "symmetric": False, "color": theme.RED, "thickness": 2, "width": 5}
    high = [(end.high or 0.0) - (end.mean or 0.0) if end.high is not None else 0.0 for end in ends]
    low = [(end.mean or 0.0) - end.low if end.low is not None else 0.0 for end in ends]
    drawn.add_trace(
        go.Scatter(
            x=means,
            y=names,
            mode="markers",
            marker={"symbol": "diamond", "size": 11, "color": theme.RED},
            error_x={**bars, "array": high, "arrayminus": low} if barred else None,
            name="mean and its interval" if barred else "value",
            hovertemplate="%{y} mean %{x:.4g}<extra></extra>",
        )
    )
    drawn.update_xaxes(**theme.axis(theme.safe(found.metric)))
    drawn.update_yaxes(**theme.axis("trial", autorange="reversed", type="category"))
    return drawn
