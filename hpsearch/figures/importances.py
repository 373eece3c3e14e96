"""What mattered: the shares by PED-ANOVA and fANOVA, each with its whisker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.importance import Importances, Share

TITLE = "What mattered"
MOST = 15


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """The shares, in the order of PED-ANOVA."""

    names: Sequence[str]
    ped_anova: Sequence[Share]
    fanova: Sequence[Share]
    note: str
    #: why there is nothing
    reason: str


def data(found: Importances) -> Data:
    """The first 15 parameters by PED-ANOVA, with fANOVA's shares in the same order."""
    first = list(found.ped_anova[:MOST])
    by_name = {share.name: share for share in found.fanova}
    of = f"{found.n:,} of {found.n_usable:,} trials" if found.n < found.n_usable else f"{found.n} trials"
    note = f"whiskers: 90 % over {found.resamples} resamples of {of}"
    if not found.fanova:
        note += "; fANOVA left out, it would take long: hpsearch importance has it"
    elif found.n_fanova < found.n:
        note += f"; fANOVA on {found.n_fanova} of them"
    if len(found.ped_anova) > MOST:
        note += f"; the first {MOST} of {len(found.ped_anova)}"
    return Data(
        names=[share.name for share in first],
        ped_anova=first,
        fanova=[by_name[share.name] for share in first] if by_name else [],
        note=note,
        reason=found.reason,
    )


def figure(found: Data) -> go.Figure:
    """Two bars a parameter, with whiskers."""
    if found.reason or not found.names:
        return theme.empty(TITLE, found.reason or "nothing was searched")
    drawn = theme.new(TITLE, found.note, height=200 + 52 * len(found.names))
    names = [theme.safe(name, 40) for name in found.names]
    for label, shares, colour, shape in (
        ("fANOVA: explains the whole range", found.fanova, theme.SKY, "/"),
        ("PED-ANOVA: sets the best tenth apart", found.ped_anova, theme.BLUE, ""),
    ):
        if not shares:
            continue
        drawn.add_trace(
            go.Bar(
                y=names,
                x=[share.share for share in shares],
                orientation="h",
                name=label,
                marker={
                    "color": colour,
                    "pattern": {"shape": shape, "fgcolor": "white", "fillmode": "overlay", "solidity": 0.2},
                },
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [share.high - share.share for share in shares],
                    "arrayminus": [share.share - share.low for share in shares],
                    "color": theme.INK,
                    "thickness": 1.5,
                },
                hovertemplate="%{y}: %{x:.2f}<extra></extra>",
            )
        )
    drawn.update_layout(barmode="group", legend={"traceorder": "reversed"})
    drawn.update_xaxes(**theme.axis("share of the importance", range=[0, 1.02]))
    drawn.update_yaxes(**theme.axis("", autorange="reversed", showgrid=False))
    return drawn
