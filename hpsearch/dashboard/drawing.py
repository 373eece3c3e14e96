"""Pictures as the pages draw them: plotly's JSON without its title (the page says it), in the page's colours, and the
same numbers as a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import plotly.graph_objects as go

Theme = Literal["light", "dark"]

#: the light theme's colours, and what they are on a dark page
_DARK = {
    "white": "rgba(0,0,0,0)",
    "#222222": "#e8eaed",
    "#e6e6e6": "#33373d",
    "#555": "#a8adb5",
    "#555555": "#a8adb5",
    "#8a8a8a": "#8f959e",
    "#000000": "#e8eaed",
    "#0072b2": "#4aa3df",
    "rgba(255,255,255,": "rgba(29,33,38,",
    "rgba(34,34,34,": "rgba(232,234,237,",
    "rgba(0,114,178,": "rgba(74,163,223,",
}
#: rows of a table
MOST_ROWS = 2000


def drawn(figure: go.Figure, theme: Theme = "light") -> dict[str, Any]:
    """``{"data": [...], "layout": {...}}`` of a figure, for plotly.js."""
    plain = json.loads(figure.to_json())
    layout = plain["layout"]
    for name in ("template", "title", "meta"):
        layout.pop(name, None)
    layout["margin"] = {**layout.get("margin", {}), "t": 24, "r": 16}
    layout["paper_bgcolor"] = "rgba(0,0,0,0)"
    layout["plot_bgcolor"] = "rgba(0,0,0,0)"
    if theme == "dark":
        plain = _painted(plain)
    return {"data": plain["data"], "layout": plain["layout"]}


def said(figure: go.Figure) -> tuple[str, str]:
    """(title, note) of a figure, as plain text."""
    meta = figure.layout.meta or {}
    return _plain(meta.get("title", "")), _plain(meta.get("note", ""))


def table(figure: go.Figure) -> tuple[list[str], list[list[Any]]]:
    """(heads, rows) of what a figure draws, at most 2,000 rows."""
    layout = figure.to_plotly_json()["layout"]
    rows: list[list[Any]] = []
    for trace in figure.data:
        rows += _cells(trace, layout)
    return ["series", "x", "y", "says"], rows[:MOST_ROWS]


def _cells(trace: Any, layout: dict[str, Any]) -> list[list[Any]]:
    name = _plain(trace.name or "")
    if getattr(trace, "z", None) is not None and trace.type in ("heatmap", "contour"):
        xs, ys = _list(trace.x), _list(trace.y)
        return [
            [_plain(str(y)), _plain(str(x)), z, ""] for y, line in zip(ys, trace.z, strict=False)
            for x, z in zip(xs, line, strict=False) if z is not None
        ]  # fmt: skip
    if trace.hoverinfo == "skip":
        return []
    xs, ys = _list(trace.x), _list(trace.y)
    words = _list(trace.text) if isinstance(trace.text, list | tuple) else [""] * len(xs)
    return [
        [name, x, y, _plain(str(word or ""))]
        for x, y, word in zip(xs, ys, words or [""] * len(xs), strict=False)
        if x is not None and y is not None
    ]


def _list(values: Any) -> Sequence[Any]:
    return [] if values is None else list(values.tolist() if hasattr(values, "tolist") else values)


def _plain(text: str) -> str:
    """Plotly's markup as text."""
    text = re.sub(r"<br\s*/?>", "; ", text)
    text = re.sub(r"</?(b|i|span|sub|sup)\b[^>]*>", "", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _painted(node: Any, key: str = "") -> Any:
    """The same with each colour as it is on a dark page; what else says "white" (a choice, a name) stays."""
    if isinstance(node, dict):
        return {name: _painted(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [_painted(value, key) for value in node]
    if not isinstance(node, str) or not key.lower().endswith(("color", "colorway")):
        return node
    low = node.lower()
    for old, new in _DARK.items():
        if low == old or (old.startswith("rgba") and low.startswith(old)):
            return new + low[len(old) :]
    return node
