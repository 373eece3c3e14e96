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
    "white": "#1d2126",
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
#: characters of an axis' label or a panel's head
WORDS = 34
CLEAR = "rgba(0,0,0,0)"
#: rows of a table
MOST_ROWS = 2000


def drawn(figure: go.Figure, theme: Theme = "light") -> dict[str, Any]:
    """``{"data": [...], "layout": {...}}`` of a figure, for plotly.js."""
    plain = json.loads(figure.to_json())
    layout = plain["layout"]
    for name in ("template", "title", "meta"):
        layout.pop(name, None)
    if theme == "dark":
        plain = _painted(plain)
        layout = plain["layout"]
    _fitted(layout)
    return {"data": plain["data"], "layout": plain["layout"]}


def _fitted(layout: dict[str, Any]) -> None:
    """A card is smaller than a report's page: smaller words, and no more room about the picture than they need."""
    heads = [note.get("text", "").count("<br>") for note in layout.get("annotations", []) if note.get("y") == 1.0]
    head = 18 * max(heads, default=0)
    on_top = any(name.startswith("xaxis") and axis.get("side") == "top" for name, axis in layout.items())
    bottom = 104 if layout.get("updatemenus") else 56
    layout["margin"] = {"l": 52, "r": 44 if on_top else 14, "t": (40 if on_top else 26) + head, "b": bottom}
    layout["font"] = {**layout.get("font", {}), "size": 12}
    for name, axis in layout.items():
        if name.startswith(("xaxis", "yaxis")) and isinstance(axis.get("title"), dict):
            words = _cut(axis["title"].get("text", ""))
            axis["title"] = {"standoff": 8, **axis["title"], "text": words, "font": {"size": 12}}
    for note in layout.get("annotations", []):
        note["text"] = "<br>".join(_cut(line) for line in note.get("text", "").split("<br>"))
        note["font"] = {**note.get("font", {}), "size": min(13, note.get("font", {}).get("size", 13))}
    if layout.get("height", 0) > 440:
        layout["height"] -= 60  # the title's and the legend's room
    layout["legend"] = {**layout.get("legend", {}), "x": 0.01, "xref": "container", "font": {"size": 11.5}}
    layout["paper_bgcolor"] = layout["plot_bgcolor"] = CLEAR
    layout["modebar"] = {"bgcolor": CLEAR}


def _cut(words: str) -> str:
    """Words that fit beside a card's axis; what marks up or escapes is left whole."""
    return words if len(words) <= WORDS or "<" in words or "&" in words else f"{words[: WORDS - 1]}…"


def said(figure: go.Figure) -> tuple[str, str]:
    """(title, note) of a figure, as plain text; the note as a sentence."""
    meta = figure.layout.meta or {}
    note = _plain(meta.get("note", ""))
    return _plain(meta.get("title", "")), f"{note[:1].upper()}{note[1:].removesuffix('.')}." if note else ""


def table(figure: go.Figure) -> tuple[list[str], list[list[Any]]]:
    """(heads, rows) of what a figure draws, or of what it says that it does; at most 2,000 rows."""
    if known := (figure.layout.meta or {}).get("table"):
        return known["heads"], known["rows"][:MOST_ROWS]
    rows: list[list[Any]] = []
    for trace in figure.data:
        rows += _cells(trace)
    return ["series", "x", "y", "says"], rows[:MOST_ROWS]


def _cells(trace: Any) -> list[list[Any]]:
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
