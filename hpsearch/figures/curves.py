"""Learning curves of the best trials, with the band of their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.archive import Curve
from hpsearch.figures import theme
from hpsearch.figures.subject import Subject
from hpsearch.trial import Stage, best_trials

TITLE = "Learning curves"
TOP, EPOCHS = 5, 100


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """One trial: the mean over its seeds, and the lowest and highest seed, at each epoch (counted from 0)."""

    trial: int
    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """The best trials, best first."""

    metric: str
    lines: Sequence[Line]
    note: str


def data(subject: Subject, curves: Sequence[Curve], top: int = TOP) -> Data:
    """The study's metric over the epochs that all seeds of a trial have reached.

    Args:
        subject: the study.
        curves: of the best trials' runs at least (``Archive.curves``).
        top: how many trials.
    """
    own = [c for c in curves if c.metric == subject.metric and c.run.repeat == 0]
    lines, cut, thinned = [], False, False
    for trial in best_trials(subject.trials, subject.direction, top):
        searched = {run.key for run in trial.runs if run.stage is Stage.SEARCH}
        runs = [dict(zip(c.epochs, c.values, strict=True)) for c in own if c.run in searched]
        if not runs:
            continue
        shared = sorted(set(runs[0]).intersection(*runs[1:]))
        cut |= any(len(run) > len(shared) for run in runs)
        if len(shared) > EPOCHS:
            thinned = True
            shared = [shared[k * (len(shared) - 1) // (EPOCHS - 1)] for k in range(EPOCHS)]
        columns = [[run[epoch] for run in runs] for epoch in shared]
        lines.append(
            Line(
                trial=trial.number,
                epochs=shared,
                mean=[sum(column) / len(column) for column in columns],
                low=[min(column) for column in columns],
                high=[max(column) for column in columns],
                seeds=len(runs),
            )
        )
    notes = ["as far as all seeds of a trial went" if cut else "", f"{EPOCHS} epochs shown" if thinned else ""]
    return Data(metric=subject.metric, lines=lines, note="; ".join(filter(None, notes)))


def figure(found: Data) -> go.Figure:
    """A line and a band a trial, the band from the lowest to the highest seed."""
    if not any(line.epochs for line in found.lines):
        return theme.empty(TITLE, "the best trials reported no epochs")
    many = any(line.seeds > 1 for line in found.lines)
    said = ["line: mean; band: lowest to highest seed" if many else "one seed: no band", found.note]
    drawn = theme.new(f"{TITLE} of the best {len(found.lines)}", "; ".join(filter(None, said)))
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "solid")
    for k, line in enumerate(found.lines):
        colour = theme.SERIES[k % len(theme.SERIES)]
        name, epochs = f"#{line.trial}", list(line.epochs)
        if line.seeds > 1:
            drawn.add_trace(
                go.Scatter(
                    x=epochs + epochs[::-1],
                    y=[*line.high, *reversed(line.low)],
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
    drawn.update_yaxes(**theme.value_axis(found.metric, [v for line in found.lines for v in line.mean]))
    return drawn
