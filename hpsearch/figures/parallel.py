"""Parallel coordinates: a line a trial through all its hyperparameters to its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject, place, some, text, ticks
from hpsearch.trial import State

TITLE = "All hyperparameters at once"
VERTICES, CLASSES = 1500, 8


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """One trial: its places on the axes, 0 to 1, and its rank: 0 the best, 1 the worst, None without a value."""

    trial: int
    #: its hyperparameters, as the axes are; None where it has none of this name
    settings: Sequence[Any]
    places: Sequence[float | None]
    value: float | None
    rank: float | None
    state: str


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """Trials over the axes; the last axis is the value's rank among the trials."""

    metric: str
    axes: Sequence[str]
    ticks: Sequence[tuple[Sequence[float], Sequence[str]]]
    #: worst first, so that the best is drawn on top
    lines: Sequence[Line]
    #: (place, text) of the last axis
    value_ticks: Sequence[tuple[float, str]]
    note: str


def data(subject: Subject, names: Sequence[str] = ()) -> Data:
    """The trials over ``names`` (all that are searched, where it is empty; at most ten)."""
    axes = list(names or subject.space.searched)[:10]
    shown, note = some(subject.ended, VERTICES // (len(axes) + 2), subject.direction)
    if len(axes) < len(subject.space.searched) and not names:
        note = "; ".join(filter(None, [note, f"{len(axes)} of {len(subject.space.searched)} hyperparameters"]))
    sign = subject.direction.sign
    valued = [t.value for t in shown if t.state is State.COMPLETE and t.value is not None]
    order = sorted(valued, key=lambda value: sign * value)
    last = max(1, len(order) - 1)
    lines = []
    for trial in shown:
        value = trial.value if trial.state is State.COMPLETE else None
        lines.append(
            Line(
                trial=trial.number,
                settings=[trial.params.get(n) for n in axes],
                places=[
                    place(subject.space.parameters[n], trial.params[n]) if n in trial.params else None for n in axes
                ],
                value=value,
                rank=None if value is None else order.index(value) / last,
                state=str(trial.state),
            )
        )
    lines.sort(key=lambda line: -2.0 if line.rank is None else -line.rank)
    marks = [(q, text(float(order[round(q * last)]))) for q in (0.0, 0.25, 0.5, 0.75, 1.0)] if len(order) > 1 else []
    return Data(
        metric=subject.metric, axes=axes, ticks=[ticks(subject.space.parameters[n], 5) for n in axes], lines=lines,
        value_ticks=marks or [(0.0, text(float(v))) for v in order], note=note,
    )  # fmt: skip


def figure(found: Data, *, narrow: bool = False) -> go.Figure:
    """Lines in eight classes of rank, the better the stronger; trials without a value are dashed and end at the bottom.

    Args:
        found: what to draw.
        narrow: for a phone, with shorter names.
    """
    if not found.lines:
        return theme.empty(TITLE, "no trial has ended yet")
    said = "; ".join(filter(None, ["last axis: by rank, the best at the top", found.note]))
    drawn = theme.new(TITLE, said, height=460)
    for k in reversed(range(CLASSES)):
        here = [n for n in found.lines if n.rank is not None and min(int(n.rank * CLASSES), CLASSES - 1) == k]
        if here:
            # Of one colour in several strengths: on a light and on a dark page alike the best stand out.
            colour = theme.BLUE if k == 0 else theme.faint(theme.BLUE, round(0.6 * 0.75 ** (k - 1), 3))
            name = f"best {100 / CLASSES:.3g} %" if k == 0 else "the others" if k == 1 else ""
            drawn.add_trace(_lines(here, {"color": colour, "width": 2.5 if k == 0 else 1}, name, 1.0))
    lost = [line for line in found.lines if line.rank is None]
    if lost:
        red = {"color": theme.RED, "width": 1, "dash": "dot"}
        drawn.add_trace(_lines(lost, red, "without a value (diverged, failed, pruned)", 0.8))
    n = len(found.axes)
    shapes, notes = [], []
    for k in range(n + 1):
        shapes.append({"type": "line", "x0": k, "x1": k, "y0": 0, "y1": 1, "line": {"color": theme.INK, "width": 1}})
        marks = zip(*found.ticks[k], strict=True) if k < n else [(1 - q, words) for q, words in found.value_ticks]
        for y, words in marks:
            side = {"xanchor": "right", "xshift": -4} if k < n else {"xanchor": "left", "xshift": 4}
            note = {"x": k, "y": y, "text": words, "font": {"size": 11}, "bgcolor": "rgba(255,255,255,0.75)"}
            notes.append({**note, **side, "showarrow": False})
    drawn.update_layout(shapes=shapes, annotations=notes)
    names = [theme.safe(name, 8 if narrow else 20) for name in (*found.axes, found.metric)]
    drawn.update_xaxes(
        tickvals=list(range(n + 1)),
        ticktext=names,
        range=[-0.35, n + 0.35],
        showgrid=False,
        zeroline=False,
        side="top",
        tickangle=0,
        tickfont={"size": 10 if narrow else 13},
    )
    drawn.update_yaxes(visible=False, range=[-0.12, 1.05])
    drawn.update_layout(margin={"t": 110, "b": 50})
    told = [[f"#{line.trial}", *line.settings, line.value, line.state] for line in reversed(found.lines)]
    return theme.tabled(drawn, ["trial", *found.axes, found.metric, "state"], told)


def _lines(lines: Sequence[Line], style: dict[str, object], name: str, opacity: float) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for line in lines:
        xs += [*range(len(line.places) + 1), None]
        ys += [*line.places, -0.08 if line.rank is None else 1 - line.rank, None]
    return go.Scatter(
        x=xs, y=ys, mode="lines", line=style, opacity=opacity, name=name, showlegend=bool(name), hoverinfo="skip"
    )
