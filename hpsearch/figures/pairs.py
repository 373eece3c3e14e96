"""Two trials seed by seed: what pairing shows and two means hide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject
from hpsearch.trial import Stage, Trial

TITLE = "Seed by seed"
SEEDS = 200


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """Two trials on their common seeds."""

    metric: str
    direction: str
    a: int
    b: int
    #: (seed, value of a, value of b), by seed
    pairs: Sequence[tuple[int, float, float]]
    #: seeds on which a is better
    wins: int
    ties: int
    #: seeds that only one of them has a value for
    unpaired: Sequence[int]
    note: str


def data(subject: Subject, a: Trial, b: Trial, *, confirmed: bool = False) -> Data:
    """The values of two trials on the seeds that both have a value for.

    Args:
        subject: their study.
        a, b: the trials.
        confirmed: take the fresh seeds of their confirmation alone, by which they were not chosen; else all seeds.
    """
    first, second = _values(a, confirmed), _values(b, confirmed)
    shared = sorted(first.keys() & second.keys())
    pairs = [(seed, first[seed], second[seed]) for seed in shared[:SEEDS]]
    return Data(
        metric=subject.metric,
        direction=str(subject.direction),
        a=a.number,
        b=b.number,
        pairs=pairs,
        wins=sum(subject.direction.better(first[seed], second[seed]) for seed in shared),
        ties=sum(first[seed] == second[seed] for seed in shared),
        unpaired=sorted(first.keys() ^ second.keys()),
        note=f"the first {SEEDS} of {len(shared)} seeds" if len(shared) > SEEDS else "",
    )


def _values(trial: Trial, confirmed: bool) -> dict[int, float]:
    runs = (run for run in trial.seed_runs if run.stage is not Stage.SEARCH or not confirmed)
    return {run.key.seed: run.value for run in runs if run.value is not None}


def figure(found: Data) -> go.Figure:
    """A line a seed from one trial to the other: solid where the first is better, dashed where the second is."""
    title = f"{TITLE}: #{found.a} and #{found.b}"
    if not found.pairs:
        return theme.empty(title, "they have no seed in common")
    n = len(found.pairs)
    said = [f"#{found.a} is better on {found.wins} of {n} seeds" + (f", {found.ties} equal" if found.ties else "")]
    said += [f"without a partner: seeds {', '.join(map(str, found.unpaired[:10]))}"] if found.unpaired else []
    drawn = theme.new(title, "; ".join(filter(None, [*said, found.note])))
    down = found.direction == "minimize"
    for label, colour, dash, wanted in (
        (f"#{found.a} better", theme.BLUE, "solid", 1),
        (f"#{found.b} better", theme.ORANGE, "dash", -1),
        ("equal", theme.GREY, "dot", 0),
    ):
        here = [pair for pair in found.pairs if _sign(pair[1], pair[2], down=down) == wanted]
        if here:
            drawn.add_trace(
                go.Scatter(
                    x=[x for _ in here for x in (0, 1, None)],
                    y=[y for _, p, q in here for y in (p, q, None)],
                    mode="lines+markers",
                    line={"color": colour, "dash": dash},
                    marker={"size": 8, "color": colour},
                    name=label,
                    text=[f"seed {seed}" for seed, _, _ in here for _ in range(3)],
                    hovertemplate="%{text}: %{y:.4g}<extra></extra>",
                )
            )
    means = [sum(pair[k] for pair in found.pairs) / n for k in (1, 2)]
    mark = {"symbol": "diamond", "size": 15, "color": theme.INK}
    drawn.add_trace(go.Scatter(x=[0, 1], y=means, mode="markers", marker=mark, name=f"mean of {n} seed{'s' * (n > 1)}",
                               hovertemplate="mean %{y:.4g}<extra></extra>"))  # fmt: skip
    names = [f"#{found.a}", f"#{found.b}"]
    drawn.update_xaxes(**theme.axis("trial", tickvals=[0, 1], ticktext=names, range=[-0.4, 1.4]))
    drawn.update_yaxes(**theme.value_axis(found.metric, [v for pair in found.pairs for v in pair[1:]]))
    return drawn


def _sign(a: float, b: float, *, down: bool) -> int:
    """1 where a is better, -1 where b is, 0 for a tie."""
    return 0 if a == b else 1 if (a < b) == down else -1
