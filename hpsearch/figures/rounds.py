"""Coarse to fine: how the window of each parameter moved and narrowed from round to round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject, place, some, ticks
from hpsearch.parameter import Categorical
from hpsearch.strategy import Decision
from hpsearch.trial import State, best_trials

TITLE = "Coarse to fine"
PANELS, POINTS = 6, 1200
#: steps when it is played
FRAMES = 12


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
    #: (round, start, end, that best trial's value of it or None), as they are
    told: Sequence[tuple[int, Any, Any, Any]]
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
        best, chosen = [], {}
        for k in range(rounds):
            top = best_trials([t for t in subject.ended if t.batch <= k], subject.direction, 1)
            at = place(p, top[0].params[name]) if top else None
            if at is not None:
                best.append((k, at))
                chosen[k] = top[0].params[name]
        places = [(t.batch, place(p, t.params[name]), str(t.state)) for t in shown]
        tick_places, tick_texts = ticks(p, 5)
        panels.append(
            Panel(
                name=name,
                windows=[w for w in windows if w[0] < rounds],
                points=[(k, u, state) for k, u, state in places if u is not None],
                best=best,
                told=[(k, *ends[k], chosen.get(k)) for k in sorted(ends) if k < rounds],
                tick_places=tick_places,
                tick_texts=tick_texts,
            )
        )
    if len(names) > PANELS:
        note = "; ".join(filter(None, [note, f"the first {PANELS} of {len(names)} parameters"]))
    return Data(rounds=rounds, panels=panels, note=note)


def until(found: Data, rounds: int) -> Data:
    """The same after so many rounds; the picture stays as wide as it will be."""

    def cut(panel: Panel) -> Panel:
        return replace(
            panel,
            windows=[w for w in panel.windows if w[0] < rounds],
            points=[p for p in panel.points if p[0] < rounds],
            best=[b for b in panel.best if b[0] < rounds],
            told=[t for t in panel.told if t[0] < rounds],
        )

    return replace(found, panels=[cut(panel) for panel in found.panels])


def figure(found: Data, *, played: bool = False, narrow: bool = False) -> go.Figure:
    """A panel a parameter: boxes for windows, dots for trials, a line through the best.

    Args:
        found: what to draw.
        played: with a button that plays the rounds, in at most 12 steps.
        narrow: for a phone, the panels one below the other.
    """
    n = len(found.panels)
    if not n:
        return theme.empty(TITLE, "no numeric parameter was searched")
    columns = 1 if narrow else min(n, 2)
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
    if played and found.rounds > 1:
        _play(drawn, found)
    told = [(panel.name, k + 1, *rest) for panel in found.panels for k, *rest in panel.told]
    return theme.tabled(drawn, ["parameter", "round", "window from", "to", "best so far at"], told)


def _play(drawn: go.Figure, found: Data) -> None:
    """A button that plays the rounds. The frames lie in the layout, with it: whoever draws the picture can play it."""
    steps = sorted({1 + k * (found.rounds - 1) // (FRAMES - 1) for k in range(FRAMES)} | {found.rounds})[-FRAMES:]
    frames = []
    for step in steps:
        here = until(found, step)
        traces = [trace for k, panel in enumerate(here.panels) for trace in _traces(panel, first=k == 0)]
        frames.append({"data": [{key: trace[key] for key in ("x", "y", "base") if key in trace} for trace in traces]})
    timing = {"mode": "immediate", "transition": {"duration": 0}, "frame": {"duration": 900, "redraw": True}}
    button = {"label": "▶ Play", "method": "animate", "args": [frames, timing]}
    drawn.update_layout(
        height=drawn.layout.height + 50,
        margin={"b": drawn.layout.margin.b + 50},
        updatemenus=[
            {
                "type": "buttons", "showactive": False, "buttons": [button], "x": 0, "xanchor": "left", "y": 0,
                "yanchor": "top", "pad": {"t": 56}, "bgcolor": "white", "bordercolor": theme.GREY,
                "font": {"color": theme.INK},
            }
        ],
    )  # fmt: skip


def _draw(drawn: go.Figure, panel: Panel, row: int, column: int, *, first: bool) -> None:
    for trace in _traces(panel, first=first):
        drawn.add_trace(trace, row=row, col=column)


def _traces(panel: Panel, *, first: bool) -> list[dict[str, Any]]:
    """Windows, trials, trials without a value, the best: always these four, so that frames fit them."""
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": [k + 1 for k, _, _ in panel.windows],
            "y": [end - start for _, start, end in panel.windows],
            "base": [start for _, start, _ in panel.windows],
            "width": 0.8,
            "marker": {"color": theme.faint(theme.SKY, 0.3), "line": {"color": theme.BLUE, "width": 1.5}},
            "name": "window",
        }
    ]
    for good, name in ((True, "trial"), (False, "diverged or failed")):
        here = [(k, u) for k, u, state in panel.points if (state in (State.COMPLETE, State.PRUNED)) == good]
        traces.append(
            {
                # Side by side within their round, so that they do not hide each other.
                "x": [k + 1 + 0.5 * ((i * 0.618) % 1 - 0.5) for i, (k, _) in enumerate(here)],
                "y": [u for _, u in here],
                "mode": "markers",
                "marker": {"size": 6, "color": theme.BLUE if good else theme.RED, "symbol": "circle" if good else "x"},
                "opacity": 0.7,
                "name": name,
            }
        )
    traces.append(
        {
            "x": [k + 1 for k, _ in panel.best],
            "y": [u for _, u in panel.best],
            "mode": "lines+markers",
            "line": {"color": theme.INK, "width": 1.5},
            "marker": {"size": 11, "symbol": "star", "color": theme.ORANGE, "line": {"color": theme.INK, "width": 1}},
            "name": "best so far",
        }
    )
    common = {"hoverinfo": "skip", "showlegend": first}
    return [{**trace, **common, "legendgroup": trace["name"]} for trace in traces]
