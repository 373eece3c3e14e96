"""Studies side by side: best so far at equal budget, each with its band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.compare import Search
from hpsearch.figures import theme

TITLE = "Best so far at equal budget"
#: points of a line, lines in all
POINTS, LINES = 120, 6


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """One study: its best value after so many trials, counted from 1; None before the first value."""

    study: str
    #: searches are counted from 0: studies that differ in their seed only share one
    search: int
    trials: Sequence[int]
    best: Sequence[float | None]


@final
@dataclass(frozen=True, kw_only=True)
class Band:
    """80 % of what the best of so many trials could have been, of one search."""

    search: int
    method: str
    trials: Sequence[int]
    better: Sequence[float]
    worse: Sequence[float]


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """A line a study, a band a search that has one."""

    metric: str
    n: int
    lines: Sequence[Line]
    bands: Sequence[Band]
    note: str


def data(metric: str, found: Sequence[Search]) -> Data:
    """What ``compare.searches`` found, thinned to the trials at which something is to be seen."""
    n = found[0].n if found else 0
    at = sorted({max(1, round(n * (k + 1) / POINTS)) for k in range(POINTS)}) if n else []
    lines, bands = [], []
    for k, search in enumerate(found):
        for study, curve in zip(search.studies, search.curves, strict=True):
            lines.append(Line(study=study, search=k, trials=at, best=[curve[t - 1] for t in at]))
        if search.band is not None:
            better, worse = ([ends[t - 1] for t in at] for ends in (search.band.better, search.band.worse))
            bands.append(Band(search=k, method=search.band.method, trials=at, better=better, worse=worse))
    note = f"the first {LINES} of {len(lines)} studies" if len(lines) > LINES else ""
    return Data(metric=metric, n=n, lines=lines[:LINES], bands=bands, note=note)


def figure(found: Data) -> go.Figure:
    """Steps for the studies, a band for what each search could have come to."""
    values = [value for line in found.lines for value in line.best if value is not None]
    if not values:
        return theme.empty(TITLE, "no trial has a value")
    said = []
    if found.bands:
        how = {"resampled": "trials drawn again, in any order", "repetitions": "studies that differ in their seed only"}
        said = ["band: 80 %, " + " and ".join(how[method] for method in dict.fromkeys(b.method for b in found.bands))]
    drawn = theme.new(f"{TITLE}: {found.n:,} trials", "; ".join(filter(None, [*said, found.note])))
    # Bands are wide in their first trials: the lines, which all is about, choose what is seen.
    axis = theme.value_axis(found.metric, values)
    margin = 0.15 * (max(values) - min(values)) or 1e-3 * abs(values[0]) or 1.0
    axis.setdefault("range", [min(values) - margin, max(values) + margin])
    # On a log scale what is below the picture, also below zero, ends at its lower edge.
    floor = 10 ** axis["range"][0] if axis.get("type") == "log" else -math.inf
    for band in found.bands:
        finite = [
            (t, a, b) for t, a, b in zip(band.trials, band.better, band.worse, strict=True) if abs(a) + abs(b) < 1e308
        ]
        drawn.add_trace(
            go.Scatter(
                x=[t for t, _, _ in finite] + [t for t, _, _ in reversed(finite)],
                y=[max(floor, y) for y in [a for _, a, _ in finite] + [b for _, _, b in reversed(finite)]],
                mode="lines",
                fill="toself",
                fillcolor=theme.faint(theme.SERIES[band.search % len(theme.SERIES)], 0.15),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    for k, line in enumerate(found.lines):
        drawn.add_trace(
            go.Scatter(
                x=list(line.trials),
                y=list(line.best),
                mode="lines" if found.n > 1 else "markers",
                line={
                    "color": theme.SERIES[line.search % len(theme.SERIES)], "width": 2, "shape": "hv",
                    "dash": dashes[k % len(dashes)],
                },
                name=theme.safe(line.study),
                hovertemplate=f"{theme.safe(line.study)} after %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )  # fmt: skip
    drawn.update_xaxes(**theme.axis("trials"))
    drawn.update_yaxes(**axis)
    return drawn
