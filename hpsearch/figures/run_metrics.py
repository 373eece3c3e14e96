"""Everything that one run has told, metric by metric over its epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hpsearch.archive import Curve
from hpsearch.figures import theme

TITLE = "Metrics of the run"
METRICS, POINTS = 12, 160


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """One run's curves: the study's metric first, the others by name."""

    run: str
    #: (metric, epochs counted from 0, values)
    curves: Sequence[tuple[str, Sequence[int], Sequence[float]]]
    #: the epoch whose value counts; None where there is none
    best_epoch: int | None
    note: str


def data(run: str, metric: str, curves: Sequence[Curve], best_epoch: int | None) -> Data:
    """The curves of one run.

    Args:
        run: its address, for the title.
        metric: the study's, which goes first.
        curves: of this run alone.
        best_epoch: the epoch whose value counts.
    """
    told = sorted((c for c in curves if c.epochs), key=lambda c: (c.metric != metric, c.metric))
    notes = [f"{METRICS} of {len(told)} metrics"] if len(told) > METRICS else []
    if any(len(c.epochs) > POINTS for c in told[:METRICS]):
        notes.append(f"{POINTS} epochs of each shown")
    shown = []
    for curve in told[:METRICS]:
        n = len(curve.epochs)
        picked = range(n) if n <= POINTS else [k * (n - 1) // (POINTS - 1) for k in range(POINTS)]
        shown.append((curve.metric, [curve.epochs[k] for k in picked], [curve.values[k] for k in picked]))
    return Data(run=run, curves=shown, best_epoch=best_epoch, note="; ".join(notes))


def figure(found: Data) -> go.Figure:
    """A strip a metric over common epochs; a line where the best epoch was."""
    if not found.curves:
        return theme.empty(TITLE, "it has told no metric")
    n = len(found.curves)
    said = [f"dotted: epoch {found.best_epoch}, whose value counts" if found.best_epoch is not None else "", found.note]
    drawn = make_subplots(rows=n, cols=1, shared_xaxes=True, vertical_spacing=min(0.06, 0.25 / n))
    title, note = f"{TITLE} {theme.safe(found.run)}", "; ".join(filter(None, said))
    drawn.update_layout(theme.new(title, note, height=150 + 140 * n).layout.to_plotly_json(), showlegend=False)
    for k, (metric, epochs, values) in enumerate(found.curves):
        name = theme.safe(metric)
        drawn.add_trace(
            go.Scatter(
                x=list(epochs),
                y=list(values),
                mode="lines" if len(epochs) > 1 else "markers",
                line={"color": theme.SERIES[k % len(theme.SERIES)], "width": 2},
                name=name,
                hovertemplate=f"{name}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            ),
            row=k + 1,
            col=1,
        )
        axis = theme.axis(name) if min(values) == max(values) else theme.value_axis(metric, values)
        axis["title"] = {"text": name, "font": {"size": 12}}
        drawn.update_yaxes(**axis, row=k + 1, col=1)
    drawn.update_xaxes(**theme.axis(""))
    drawn.update_xaxes(title={"text": "epoch"}, row=n, col=1)
    if found.best_epoch is not None:
        drawn.add_vline(x=found.best_epoch, line={"dash": "dot", "color": theme.GREY, "width": 1.5})
    return drawn
