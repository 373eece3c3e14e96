"""Grid or random: how many values of one factor the trials have tried, after Bergstra and Bengio (JMLR 13, 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject, place, some, text, ticks
from hpsearch.trial import State

TITLE = "Grid or random: the trials projected on one hyperparameter"
POINTS = 400


@final
@dataclass(frozen=True, kw_only=True)
class Panel:
    """One study's trials over two parameters; places are on their own scales, 0 to 1."""

    study: str
    strategy: str
    #: (place on x, place on y, value or None, state)
    points: Sequence[tuple[float, float, float | None, str]]
    #: (x, y) of each point, as they are
    settings: Sequence[tuple[Any, Any]]
    trials: int
    #: values of the factor x that were tried
    distinct: int
    #: places on x that a full grid of as many trials would try; () where the study is one
    grid: Sequence[float]


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """A panel a study, over the same two parameters."""

    x: str
    y: str
    metric: str
    panels: Sequence[Panel]
    x_ticks: tuple[Sequence[float], Sequence[str]]
    y_ticks: tuple[Sequence[float], Sequence[str]]
    note: str


def data(subjects: Sequence[Subject], x: str, y: str) -> Data:
    """Trials of one or two studies, projected on ``x``.

    Args:
        subjects: studies that search ``x`` and ``y``; the first one's scales are drawn.
        x: the factor projected on: the one that mattered most.
        y: another one, for the plane.
    """
    first, notes, panels = subjects[0].space.parameters, [], []
    for subject in subjects:
        own = [t for t in subject.ended if not t.baseline and {x, y} <= t.params.keys()]
        shown, note = some(own, POINTS, subject.direction)
        points, settings = [], []
        for trial in shown:
            u, v = place(first[x], trial.params[x]), place(first[y], trial.params[y])
            if u is not None and v is not None:
                value = trial.value if trial.state is State.COMPLETE else None
                points.append((u, v, value, str(trial.state)))
                settings.append((trial.params[x], trial.params[y]))
        axes = max(1, len(subject.space.searched))
        per_axis = max(1, int(len(own) ** (1 / axes) + 1e-9))
        grid = [] if subject.strategy == "grid" else [place(first[x], v) or 0.0 for v in first[x].hard().grid(per_axis)]
        notes.append(note)
        panels.append(
            Panel(
                study=subject.study,
                strategy=subject.strategy,
                points=points,
                settings=settings,
                trials=len(own),
                distinct=len({text(t.params[x]) if isinstance(t.params[x], str) else t.params[x] for t in own}),
                grid=grid,
            )
        )
    return Data(
        x=x, y=y, metric=subjects[0].metric, panels=panels, x_ticks=ticks(first[x], 5), y_ticks=ticks(first[y], 5),
        note="; ".join(dict.fromkeys(filter(None, notes))),
    )  # fmt: skip


def figure(found: Data, *, narrow: bool = False) -> go.Figure:
    """Below the plane of two parameters, above it what of it the factor sees; dashed: where a grid would look.

    Args:
        found: what to draw.
        narrow: for a phone, with heads of more and shorter lines.
    """
    if not any(panel.points for panel in found.panels):
        return theme.empty(TITLE, "no trial has ended yet")
    columns = len(found.panels)
    narrow = narrow and columns > 1
    names, end = (16, "<br>") if narrow else (34, " ")
    heads = [
        f"{theme.safe(p.study, names)} ({theme.safe(p.strategy)}):<br>{_many(p.distinct, 'value')} of "
        f"{theme.safe(found.x, names // 2)}{end}in {_many(p.trials, 'trial')}"
        for p in found.panels
    ]
    if narrow:
        heads = [head.replace(" (", "<br>(", 1) for head in heads]
    drawn = make_subplots(
        rows=2, cols=columns, row_heights=[0.45, 0.55], shared_xaxes=True, shared_yaxes=True, vertical_spacing=0.06,
        horizontal_spacing=0.06, subplot_titles=heads,
    )  # fmt: skip
    dashed = [p for p in found.panels if p.grid]
    said = (
        [f"dashed: the {_many(len(dashed[0].grid), 'value')} a full grid of as many trials would try"] if dashed else []
    )
    layout = theme.new(TITLE, "; ".join(filter(None, [*said, found.note])), height=560).layout.to_plotly_json()
    layout["margin"]["t"] = 130
    drawn.update_layout(layout)
    values = [value for p in found.panels for _, _, value, _ in p.points if value is not None]
    for k, panel in enumerate(found.panels):
        _draw(drawn, panel, k + 1, values, columns)
        x_axis = {"tickvals": list(found.x_ticks[0]), "ticktext": list(found.x_ticks[1]), "range": [-0.04, 1.04]}
        y_axis = {"tickvals": list(found.y_ticks[0]), "ticktext": list(found.y_ticks[1]), "range": [-0.06, 1.06]}
        drawn.update_xaxes(**theme.axis("", **x_axis), row=1, col=k + 1)
        drawn.update_xaxes(**theme.axis(theme.safe(found.x), **x_axis), row=2, col=k + 1)
        drawn.update_yaxes(
            **theme.value_axis(found.metric if k == 0 else "", values or [0.0], showticklabels=bool(values)),
            row=1,
            col=k + 1,
        )
        drawn.update_yaxes(**theme.axis(theme.safe(found.y) if k == 0 else "", **y_axis), row=2, col=k + 1)
    if columns > 1 and values:
        drawn.update_yaxes(title={"text": ""}, row=1, col=2)
    told = [
        (panel.study, *chosen, value, state)
        for panel in found.panels
        for chosen, (_, _, value, state) in zip(panel.settings, panel.points, strict=True)
    ]
    return theme.tabled(drawn, ["study", found.x, found.y, found.metric, "state"], told)


def _many(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def _draw(drawn: go.Figure, panel: Panel, column: int, values: Sequence[float], columns: int) -> None:
    worst = max(values, default=0.0)
    good = [(u, v, value) for u, v, value, _ in panel.points if value is not None]
    lost = [(u, v) for u, v, value, _ in panel.points if value is None]
    blue = {"size": 7, "color": theme.BLUE, "opacity": 0.7}
    red = {"size": 7, "color": theme.RED, "symbol": "x"}
    first = column == 1
    for row, ys, lost_ys in (
        (1, [value for _, _, value in good], [worst] * len(lost)),
        (2, [v for _, v, _ in good], [v for _, v in lost]),
    ):
        drawn.add_trace(
            go.Scatter(x=[u for u, *_ in good], y=ys, mode="markers", marker=blue, name="trial",
                       showlegend=first and row == 1, hoverinfo="skip"),
            row=row, col=column,
        )  # fmt: skip
        if lost:
            drawn.add_trace(
                go.Scatter(x=[u for u, _ in lost], y=lost_ys, mode="markers", marker=red, showlegend=row == 1,
                           name="without a value (at the top)", hoverinfo="skip"),
                row=row, col=column,
            )  # fmt: skip
    axes = len(panel.grid) * (1, 2)
    for u, row in zip([u for u in panel.grid for _ in (1, 2)], axes, strict=True):
        k = 2 * (row - 1) + column if columns == 2 else row
        ref = "" if k == 1 else str(k)
        drawn.add_shape(type="line", x0=u, x1=u, y0=0, y1=1, xref=f"x{ref}", yref=f"y{ref} domain",
                        line={"color": theme.GREY, "dash": "dash", "width": 1})  # fmt: skip
