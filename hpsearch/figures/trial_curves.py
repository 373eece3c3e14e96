"""How one trial learned: a line a seed, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.archive import Curve
from hpsearch.figures import theme
from hpsearch.figures.subject import Subject
from hpsearch.trial import Stage, Trial

TITLE = "Learning curves, seed by seed"
LINES, POINTS = 24, 60


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """One run: the metric at each epoch, counted from 0."""

    #: ``seed 3``, or ``seed 3.1`` for a repetition
    name: str
    stage: Stage
    epochs: Sequence[int]
    values: Sequence[float]


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """One trial, its runs in the order of the record."""

    trial: int
    metric: str
    lines: Sequence[Line]
    #: (epoch, mean) over the search's seeds, at the epochs that all of them have reached; none below two seeds
    mean: Sequence[tuple[int, float]]
    note: str


def data(subject: Subject, trial: Trial, curves: Sequence[Curve]) -> Data:
    """The study's metric of each run of a trial.

    Args:
        subject: the study.
        trial: of it.
        curves: of its runs at least (``Archive.curves``).
    """
    own = {c.run: c for c in curves if c.metric == subject.metric and c.run.trial == trial.number and c.epochs}
    runs = [run for run in trial.runs if run.key in own]
    searched = [own[run.key] for run in runs if run.stage is Stage.SEARCH and run.key.repeat == 0]
    tables = [dict(zip(curve.epochs, curve.values, strict=True)) for curve in searched]
    shared = sorted(set(tables[0]).intersection(*tables[1:])) if len(tables) > 1 else []
    notes = [f"{LINES} of {len(runs)} runs"] if len(runs) > LINES else []
    if any(len(curve.epochs) > POINTS for curve in own.values()):
        notes.append(f"{POINTS} epochs of each shown")
    return Data(
        trial=trial.number,
        metric=subject.metric,
        lines=[
            Line(
                name=f"seed {str(run.key).partition('/')[2]}",
                stage=run.stage,
                epochs=_some(own[run.key].epochs),
                values=_some(own[run.key].values),
            )
            for run in runs[:LINES]
        ],
        mean=[(e, sum(table[e] for table in tables) / len(tables)) for e in _some(shared)],
        note="; ".join(notes),
    )


def _some(items: Sequence[float] | Sequence[int]) -> list:  # type: ignore[type-arg]
    """At most ``POINTS`` of them, first and last among them."""
    if len(items) <= POINTS:
        return list(items)
    return [items[k * (len(items) - 1) // (POINTS - 1)] for k in range(POINTS)]


def figure(found: Data) -> go.Figure:
    """A thin line a run, solid for the search's, dashed for those beyond it; the mean thick on top."""
    if not found.lines:
        return theme.empty(TITLE, f"no run has told {theme.safe(found.metric)} epoch by epoch")
    kinds = {line.stage for line in found.lines}
    said = ["thick: mean of the search's seeds" if found.mean else "one seed: no mean"]
    said += ["dashed: seeds beyond the search"] if kinds - {Stage.SEARCH} else []
    drawn = theme.new(f"{TITLE}: #{found.trial}", "; ".join(filter(None, [*said, found.note])))
    for k, line in enumerate(found.lines):
        search = line.stage is Stage.SEARCH
        name = line.name if search else f"{line.name} ({line.stage})"
        drawn.add_trace(
            go.Scatter(
                x=list(line.epochs),
                y=list(line.values),
                mode="lines" if len(line.epochs) > 1 else "markers",
                line={"color": theme.SERIES[k % 5] if search else theme.GREY, "width": 1.4,
                      "dash": "solid" if search else "dash"},
                opacity=0.85 if search else 0.6,
                name=name,
                showlegend=search,  # the note says what dashed lines are; there may be many
                hovertemplate=f"{name}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )  # fmt: skip
    if found.mean:
        drawn.add_trace(
            go.Scatter(
                x=[epoch for epoch, _ in found.mean],
                y=[value for _, value in found.mean],
                mode="lines" if len(found.mean) > 1 else "markers",
                line={"color": theme.INK, "width": 3},
                name="mean",
                hovertemplate="mean, epoch %{x}: %{y:.4g}<extra></extra>",
            )
        )
    drawn.update_xaxes(**theme.axis("epoch"))
    drawn.update_yaxes(**theme.value_axis(found.metric, [v for line in found.lines for v in line.values]))
    return drawn
