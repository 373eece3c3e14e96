"""Learning curves of the best trials, or of chosen ones, with the band of their seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.archive import Curve
from hpsearch.figures import theme
from hpsearch.figures.subject import Subject
from hpsearch.trial import Stage, Trial, best_trials
from hpsearch.verdict import quantile

TITLE = "Learning curves"
TOP, EPOCHS = 5, 100


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """One trial: the mean over its seeds, and the ends of its 95 % interval (t), at each epoch (counted from 0).

    With one seed there is no interval, and both ends are the value.
    """

    trial: int
    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """The best trials, best first; or the chosen ones, as they were chosen."""

    metric: str
    lines: Sequence[Line]
    note: str
    chosen: bool = False


def data(
    subject: Subject,
    curves: Sequence[Curve],
    top: int = TOP,
    *,
    chosen: Sequence[Trial] = (),
    stage: Stage = Stage.SEARCH,
) -> Data:
    """The study's metric over the epochs that all seeds of a trial have reached.

    Args:
        subject: the study.
        curves: of these trials' runs at least (``Archive.curves``).
        top: how many of the best trials, where none are ``chosen``.
        chosen: these trials.
        stage: of the runs.
    """
    own = [c for c in curves if c.metric == subject.metric and c.run.repeat == 0]
    lines, cut, thinned = [], False, False
    for trial in chosen or best_trials(subject.trials, subject.direction, top):
        searched = {run.key for run in trial.runs if run.stage is stage}
        runs = [dict(zip(c.epochs, c.values, strict=True)) for c in own if c.run in searched]
        if not runs:
            continue
        shared = sorted(set(runs[0]).intersection(*runs[1:]))
        cut |= any(len(run) > len(shared) for run in runs)
        if len(shared) > EPOCHS:
            thinned = True
            shared = [shared[k * (len(shared) - 1) // (EPOCHS - 1)] for k in range(EPOCHS)]
        columns = [[run[epoch] for run in runs] for epoch in shared]
        means, halves = [statistics.fmean(column) for column in columns], _halves(columns)
        lines.append(
            Line(
                trial=trial.number,
                epochs=shared,
                mean=means,
                low=[mean - half for mean, half in zip(means, halves, strict=True)],
                high=[mean + half for mean, half in zip(means, halves, strict=True)],
                seeds=len(runs),
            )
        )
    notes = ["as far as all seeds of a trial went" if cut else "", f"{EPOCHS} epochs shown" if thinned else ""]
    return Data(metric=subject.metric, lines=lines, note="; ".join(filter(None, notes)), chosen=bool(chosen))


def _halves(columns: Sequence[Sequence[float]]) -> list[float]:
    """Half of the 95 % interval for the mean of each column, as ``verdict.spread`` has it; 0 for one seed."""
    n = len(columns[0]) if columns else 0
    if n < 2:
        return [0.0] * len(columns)
    factor = quantile(0.05, n - 1) / math.sqrt(n)
    return [factor * statistics.stdev(column) for column in columns]


def figure(found: Data) -> go.Figure:
    """A line and a band a trial, the band from the lowest to the highest seed."""
    if not any(line.epochs for line in found.lines):
        return theme.empty(TITLE, "the best trials reported no epochs")
    many = any(line.seeds > 1 for line in found.lines)
    said = ["line: mean over seeds; band: its 95 % interval (t)" if many else "one seed: no band", found.note]
    title = TITLE if found.chosen else f"{TITLE} of the best {len(found.lines)}"
    drawn = theme.new(title, "; ".join(filter(None, said)))
    values = [value for line in found.lines for value in line.mean]
    axis = theme.value_axis(found.metric, values)
    # On a log scale what is below the picture, also below zero, ends at its lower edge.
    floor = 10 ** axis["range"][0] if axis.get("type") == "log" else -math.inf
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "solid")
    for k, line in enumerate(found.lines):
        colour = theme.SERIES[k % len(theme.SERIES)]
        name, epochs = f"#{line.trial}", list(line.epochs)
        if line.seeds > 1:
            drawn.add_trace(
                go.Scatter(
                    x=epochs + epochs[::-1],
                    y=[max(floor, value) for value in (*line.high, *reversed(line.low))],
                    mode="lines",
                    fill="toself",
                    fillcolor=theme.faint(colour, 0.15),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=name,
                )
            )
        drawn.add_trace(
            go.Scatter(
                x=epochs,
                y=list(line.mean),
                mode="lines" if len(epochs) > 1 else "markers",
                line={"color": colour, "width": 2, "dash": dashes[k % len(dashes)]},
                name=name,
                legendgroup=name,
                hovertemplate=f"{name} epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )
    drawn.update_xaxes(**theme.axis("epoch"))
    drawn.update_yaxes(**axis)
    return drawn
