"""How all pictures look: Okabe and Ito's colours, quiet grids, labelled axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

#: Okabe and Ito, "Color universal design" (2008)
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK)
GREY, LIGHT, INK = "#8A8A8A", "#E6E6E6", "#222222"
#: for values, dark is good; even in lightness, also for the colour-blind
SCALE = "Cividis"
STATE_COLOURS = {"complete": BLUE, "pruned": GREY, "diverged": RED, "failed": PURPLE, "cancelled": LIGHT}
STATE_SYMBOLS = {"complete": "circle", "pruned": "triangle-down", "diverged": "x", "failed": "diamond-open"}
MOST_MARKS = 2000


def faint(colour: str, opacity: float) -> str:
    """``rgba(0,114,178,0.2)``."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def safe(text: str, longest: int = 60) -> str:
    """A text from the record as plotly may show it: without the markup that plotly reads, and not too long."""
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def new(title: str, note: str = "", *, height: int = 420) -> go.Figure:
    """An empty picture with its title, and under it in small what must be said about it."""
    small = f"<br><span style='font-size:12px;color:#555'>{note}</span>" if note else ""
    figure = go.Figure()
    figure.update_layout(
        title={"text": f"{title}{small}", "x": 0.0, "xref": "paper", "xanchor": "left", "font": {"size": 16}},
        height=height,
        margin={"l": 70, "r": 30, "t": 84 if note else 56, "b": 96},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": "system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        colorway=list(SERIES),
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0, "y": 0.01, "yref": "container", "yanchor": "bottom"},
        hovermode="closest",
        # For a page that says both beside the picture.
        meta={"title": title, "note": note},
    )
    return figure


def tabled(figure: go.Figure, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> go.Figure:
    """The figure, with what it draws by places or colours said in values: for a page that shows it as a table."""
    return figure.update_layout(
        meta={**figure.layout.meta, "table": {"heads": [*heads], "rows": [[*row] for row in rows]}}
    )


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its label, a light grid and no zero line."""
    line = {"showline": True, "linecolor": GREY, "gridcolor": LIGHT, "zeroline": False, "ticks": "outside"}
    return {"title": {"text": title}, **line, "tickcolor": GREY, "automargin": True, **more}


def value_axis(metric: str, values: Sequence[float], **more: Any) -> dict[str, Any]:
    """The metric's axis; on a log scale where the values span more than a factor of 8 above 0."""
    if not (values and min(values) > 0 and max(values) > 8 * min(values)):
        return axis(safe(metric), **more)
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    digits = (1, 2, 5) if last - first <= 4 else (1,)
    marks = [digit * 10.0**k for k in range(first, last + 1) for digit in digits]
    scale = {"type": "log", "tickvals": marks, "ticktext": [f"{mark:.3g}" for mark in marks]}
    ends = [math.log10(min(values)), math.log10(max(values))]
    margin = 0.06 * (ends[1] - ends[0])
    label = f"{safe(metric)} (log scale)" if metric else ""
    return axis(label, **scale, range=[ends[0] - margin, ends[1] + 2 * margin], **more)


def empty(title: str, why: str) -> go.Figure:
    """A picture that says why there is none."""
    figure = new(title, height=160)
    figure.add_annotation(text=why, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 14})
    figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    return figure


def javascript() -> str:
    """plotly.js, of the version that the figures are made for; about 5 MB."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text
