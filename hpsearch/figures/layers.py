"""Gradient and weight norms of each layer over the epochs, and which of them vanish or explode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hpsearch.figures import theme

TITLE = "Layers"
#: norms of a layer's last gradient of an epoch, below or above which it is said to vanish or explode ...
VANISHING, EXPLODING = 1e-6, 1e2
#: ... where they stay so for so many epochs that follow each other
EPOCHS = 3
MOST_LAYERS, CELLS = 40, 1000


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """Norms as log10; rows are layers in their order, columns epochs; None where the norm was 0 or not finite."""

    run: str
    layers: Sequence[str]
    epochs: Sequence[int]
    gradients: Sequence[Sequence[float | None]]
    weights: Sequence[Sequence[float | None]]
    #: layer -> in words: ``gradient vanishes from epoch 4``
    flags: Mapping[str, str]
    note: str


def data(run: str, rows: Sequence[tuple[int, Mapping[str, tuple[float, float]]]]) -> Data | None:
    """The norms of one run; None where none were recorded.

    Args:
        run: its address, for the title.
        rows: as ``Archive.layers`` gives them.
    """
    names = list(dict.fromkeys(name for _, table in rows for name in table))
    if not names:
        return None
    flags = {name: flag for name in names if (flag := _flag(name, rows))}
    shown = names
    if len(names) > MOST_LAYERS:
        step = len(names) / MOST_LAYERS
        kept = set(flags) | {names[int(k * step)] for k in range(MOST_LAYERS)}
        shown = [name for name in names if name in kept][:MOST_LAYERS]
    most = CELLS // len(shown)
    picked = list(rows)
    if len(rows) > most:
        picked = [rows[k * (len(rows) - 1) // (most - 1)] for k in range(most)]
    notes = [
        f"{len(shown)} of {len(names)} layers" if len(shown) < len(names) else "",
        f"{len(picked)} of {len(rows)} epochs" if len(picked) < len(rows) else "",
    ]
    return Data(
        run=run,
        layers=shown,
        epochs=[epoch for epoch, _ in picked],
        gradients=[[_log(table, name, 0) for _, table in picked] for name in shown],
        weights=[[_log(table, name, 1) for _, table in picked] for name in shown],
        flags=flags,
        note="; ".join(filter(None, notes)),
    )


def _log(table: Mapping[str, tuple[float, float]], name: str, which: int) -> float | None:
    norm = table.get(name, (0.0, 0.0))[which]
    return math.log10(norm) if norm > 0 else None


def _flag(name: str, rows: Sequence[tuple[int, Mapping[str, tuple[float, float]]]]) -> str:
    """What is wrong with a layer's gradient for some epochs in a row; empty where nothing is.

    A norm that is missing while the epoch has others was not finite.
    """
    for word in ("vanishes", "explodes"):
        since, count = 0, 0
        for epoch, table in rows:
            norm = table[name][0] if name in table else None
            since, count = (since if count else epoch, count + 1) if _wrong(norm, word) else (0, 0)
            if count >= EPOCHS:
                return f"gradient {word} from epoch {since}"
    return ""


def _wrong(norm: float | None, word: str) -> bool:
    if word == "vanishes":
        return norm is not None and norm < VANISHING
    return norm is None or norm > EXPLODING


def figure(found: Data, *, narrow: bool = False) -> go.Figure:
    """Two heat maps, the gradients' and the weights'; a flagged layer has a mark and words at its name.

    Args:
        found: what to draw.
        narrow: for a phone, one below the other.
    """
    said = [f"{theme.safe(name)}: {flag}" for name, flag in list(found.flags.items())[:3]]
    said += [f"and {len(found.flags) - 3} more"] if len(found.flags) > 3 else []
    rule = f"flagged: gradient norm below {VANISHING:g} or above {EXPLODING:g} for {EPOCHS} epochs"
    words = "; ".join(said) if said else f"no layer vanishes or explodes ({rule})"
    drawn = make_subplots(
        rows=2 if narrow else 1, cols=1 if narrow else 2, shared_yaxes=True, horizontal_spacing=0.13,
        vertical_spacing=0.2, subplot_titles=["gradient (log10)", "weights (log10)"],
    )  # fmt: skip
    layout = theme.new(
        f"{TITLE} of {theme.safe(found.run)}",
        "; ".join(filter(None, [words, found.note])),
        height=250 + 26 * len(found.layers) * (2 if narrow else 1) + (120 if narrow else 0),
    ).layout.to_plotly_json()
    layout["margin"]["t"] = 110
    drawn.update_layout(layout)
    names = [("⚠ " if name in found.flags else "") + theme.safe(name, 28) for name in found.layers]
    bars = [{"y": 0.8, "len": 0.4}, {"y": 0.2, "len": 0.4}] if narrow else [{"x": 0.435}, {"x": 1.0}]
    for k, rows in enumerate((found.gradients, found.weights)):
        drawn.add_trace(
            go.Heatmap(
                x=list(found.epochs),
                y=names,
                z=[list(row) for row in rows],
                colorscale=theme.SCALE,
                colorbar={"thickness": 12, "len": 0.95, **bars[k]},
                hovertemplate="%{y}, epoch %{x}: 10^%{z:.2f}<extra></extra>",
            ),
            row=k + 1 if narrow else 1,
            col=1 if narrow else k + 1,
        )
    drawn.update_xaxes(**theme.axis("epoch", showgrid=False))
    drawn.update_yaxes(**theme.axis("", autorange="reversed", showgrid=False, type="category"))
    drawn.update_yaxes(title={"text": "layer"}, col=1)
    told = [
        [layer, epoch, gradient, weight]
        for layer, gradients, weights in zip(found.layers, found.gradients, found.weights, strict=True)
        for epoch, gradient, weight in zip(found.epochs, gradients, weights, strict=True)
    ]
    return theme.tabled(drawn, ["layer", "epoch", "gradient (log10)", "weights (log10)"], told)
