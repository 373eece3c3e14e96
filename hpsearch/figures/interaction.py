"""Two hyperparameters together: where the valley lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject, place, some, ticks
from hpsearch.profile import Interaction, interaction_of
from hpsearch.trial import State

POINTS = 900


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """A smoothed surface, and the trials that it was made of."""

    metric: str
    direction: str
    surface: Interaction
    #: (place on x, place on y, state)
    points: Sequence[tuple[float, float, str]]
    best: tuple[float, float] | None
    x_ticks: tuple[Sequence[float], Sequence[str]]
    y_ticks: tuple[Sequence[float], Sequence[str]]
    note: str


def data(subject: Subject, x: str, y: str) -> Data:
    """The metric over ``x`` and ``y``, all other parameters averaged."""
    shown, note = some([t for t in subject.ended if subject.space.contains(t.params)], POINTS, subject.direction)
    px, py = subject.space.parameters[x], subject.space.parameters[y]
    points = []
    for trial in shown:
        u, v = place(px, trial.params[x]), place(py, trial.params[y])
        if u is not None and v is not None:
            points.append((u, v, str(trial.state)))
    best = subject.best
    at = None if best is None else (place(px, best.params[x]), place(py, best.params[y]))
    return Data(
        metric=subject.metric,
        direction=str(subject.direction),
        surface=interaction_of(subject.space, subject.trials, subject.direction, x, y),
        points=points,
        best=(at[0], at[1]) if at is not None and at[0] is not None and at[1] is not None else None,
        x_ticks=ticks(px),
        y_ticks=ticks(py),
        note=note,
    )


def figure(found: Data) -> go.Figure:
    """Contours of the smoothed value, dots for trials, crosses for those that diverged or failed."""
    surface = found.surface
    title = f"{theme.safe(surface.x)} with {theme.safe(surface.y)}"
    if not any(value is not None for row in surface.values for value in row):
        return theme.empty(title, "too few trials have a value")
    said = "surface: smoothed over the trials' ranks; blank: too few trials near"
    drawn = theme.new(title, "; ".join(filter(None, [said, found.note])), height=480)
    drawn.add_trace(
        go.Contour(
            x=list(surface.grid),
            y=list(surface.grid),
            z=[list(row) for row in surface.values],
            colorscale=theme.SCALE,
            reversescale=found.direction == "maximize",
            ncontours=12,
            line={"width": 0.5, "color": "white"},
            colorbar={"title": {"text": theme.safe(found.metric, 24)}, "thickness": 14},
            hovertemplate="%{z:.4g}<extra></extra>",
        )
    )
    for good, name in ((True, "trial"), (False, "diverged or failed")):
        here = [(u, v) for u, v, state in found.points if (state in (State.COMPLETE, State.PRUNED)) == good]
        if here:
            marker = {"size": 6, "color": "white" if good else theme.RED, "symbol": "circle" if good else "x"}
            marker["line"] = {"color": theme.INK, "width": 1}
            drawn.add_trace(
                go.Scatter(x=[u for u, _ in here], y=[v for _, v in here], mode="markers", marker=marker, name=name,
                           hoverinfo="skip")
            )  # fmt: skip
    if found.best:
        marker = {"size": 15, "symbol": "star", "color": theme.ORANGE, "line": {"color": theme.INK, "width": 1}}
        drawn.add_trace(go.Scatter(x=[found.best[0]], y=[found.best[1]], mode="markers", marker=marker, name="best"))
    for update, name, marks in (
        (drawn.update_xaxes, surface.x, found.x_ticks),
        (drawn.update_yaxes, surface.y, found.y_ticks),
    ):
        update(**theme.axis(theme.safe(name), tickvals=list(marks[0]), ticktext=list(marks[1]), range=[0, 1]))
    return drawn
