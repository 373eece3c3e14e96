"""Coarse to fine: how the window of each parameter moved and narrowed from round to round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject, place, some, ticks
from hpsearch.parameter import Categorical
from hpsearch.strategy import Decision
from hpsearch.trial import State, best_trials

TITLE = "Coarse to fine"
PANELS, POINTS = 6, 1200


@final
@dataclass(frozen=True, kw_only=True)
class Panel:
    """One parameter; places are on its own scale, 0 to 1."""

    name: str
    #: (round, start, end), rounds from 0
    windows: Sequence[tuple[int, float, float]]
    #: (round, place, state) of each trial
    points: Sequence[tuple[int, float, str]]
    #: (round, place): the best trial up to and with that round
    best: Sequence[tuple[int, float]]
    tick_places: Sequence[float]
    tick_texts: Sequence[str]


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """A panel a numeric parameter."""

    rounds: int
    panels: Sequence[Panel]
    note: str


def data(subject: Subject, decisions: Sequence[Decision]) -> Data | None:
    """The windows, from the ``zoom`` decisions; None for a study whose strategy has none.

    Args:
        subject: the study.
        decisions: all of it (``Archive.decisions``).
    """
    zooms = [d for d in decisions if d.kind == "zoom"]
    own = [t for t in subject.ended if not t.baseline]
    if subject.strategy != "coarse_to_fine" or not own:
        return None
    rounds = 1 + max(t.batch for t in own)
    names = [name for name, p in subject.space.searched.items() if not isinstance(p, Categorical)]
    shown, note = some(own, POINTS // max(1, min(len(names), PANELS)), subject.direction)
    panels = []
    for name in names[:PANELS]:
        p = subject.space.parameters[name]
        assert not isinstance(p, Categorical)
        ends = {0: (p.low, p.high)}
        for zoom in zooms:
            if zoom.subject == name and zoom.details.get("new"):
                ends[zoom.batch + 1] = (zoom.details["new"][0], zoom.details["new"][1])
        windows = [(k, place(p, a) or 0.0, place(p, b) or 0.0) for k, (a, b) in sorted(ends.items())]
        best = []
        for k in range(rounds):
            top = best_trials([t for t in subject.ended if t.batch <= k], subject.direction, 1)
            at = place(p, top[0].params[name]) if top else None
            if at is not None:
                best.append((k, at))
        places = [(t.batch, place(p, t.params[name]), str(t.state)) for t in shown]
        tick_places, tick_texts = ticks(p, 5)
        panels.append(
            Panel(
                name=name,
                windows=[w for w in windows if w[0] < rounds],
                points=[(k, u, state) for k, u, state in places if u is not None],
                best=best,
                tick_places=tick_places,
                tick_texts=tick_texts,
            )
        )
    if len(names) > PANELS:
        note = "; ".join(filter(None, [note, f"the first {PANELS} of {len(names)} parameters"]))
    return Data(rounds=rounds, panels=panels, note=note)


def figure(found: Data) -> go.Figure:
    """A panel a parameter: boxes for windows, dots for trials, a line through the best."""
    n = len(found.panels)
    if not n:
        return theme.empty(TITLE, "no numeric parameter was searched")
    columns = min(n, 2)
    rows = -(-n // columns)
    said = "; ".join(filter(None, ["box: the window a round draws from; star: best so far", found.note]))
    drawn = make_subplots(
        rows=rows, cols=columns, horizontal_spacing=0.12, vertical_spacing=0.3 / rows,
        subplot_titles=[theme.safe(panel.name) for panel in found.panels],
    )  # fmt: skip
    layout = theme.new(TITLE, said, height=170 + 230 * rows).layout.to_plotly_json()
    layout["margin"]["t"] = 110
    drawn.update_layout(layout)
    for k, panel in enumerate(found.panels):
        row, column = k // columns + 1, k % columns + 1
        _draw(drawn, panel, row, column, first=k == 0)
        drawn.update_xaxes(
            **theme.axis("round" if row == rows else "", dtick=1, range=[0.4, found.rounds + 0.6]), row=row, col=column
        )
        scale = {"tickvals": list(panel.tick_places), "ticktext": list(panel.tick_texts), "range": [-0.04, 1.04]}
        drawn.update_yaxes(**theme.axis("", **scale), row=row, col=column)
    return drawn


def _draw(drawn: go.Figure, panel: Panel, row: int, column: int, *, first: bool) -> None:
    where = {"row": row, "col": column}
    drawn.add_trace(
        go.Bar(
            x=[k + 1 for k, _, _ in panel.windows],
            y=[end - start for _, start, end in panel.windows],
            base=[start for _, start, _ in panel.windows],
            width=0.8,
            marker={"color": theme.faint(theme.SKY, 0.3), "line": {"color": theme.BLUE, "width": 1.5}},
            name="window",
            showlegend=first,
            legendgroup="window",
            hoverinfo="skip",
        ),
        **where,
    )
    for good, name in ((True, "trial"), (False, "diverged or failed")):
        here = [(k, u) for k, u, state in panel.points if (state in (State.COMPLETE, State.PRUNED)) == good]
        if here:
            # Side by side within their round, so that they do not hide each other.
            marker = {"size": 6, "color": theme.BLUE if good else theme.RED, "symbol": "circle" if good else "x"}
            drawn.add_trace(
                go.Scatter(
                    x=[k + 1 + 0.5 * ((i * 0.618) % 1 - 0.5) for i, (k, _) in enumerate(here)],
                    y=[u for _, u in here],
                    mode="markers",
                    marker=marker,
                    opacity=0.7,
                    name=name,
                    showlegend=first,
                    legendgroup=name,
                    hoverinfo="skip",
                ),
                **where,
            )
    marker = {"size": 11, "symbol": "star", "color": theme.ORANGE, "line": {"color": theme.INK, "width": 1}}
    drawn.add_trace(
        go.Scatter(
            x=[k + 1 for k, _ in panel.best],
            y=[u for _, u in panel.best],
            mode="lines+markers",
            line={"color": theme.INK, "width": 1.5},
            marker=marker,
            name="best so far",
            showlegend=first,
            legendgroup="best",
            hoverinfo="skip",
        ),
        **where,
    )
