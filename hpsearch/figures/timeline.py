"""What each worker did when: lanes for its runs, gaps where it was idle."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import plotly.graph_objects as go

from hpsearch.figures import theme
from hpsearch.figures.subject import Subject
from hpsearch.trial import Run

TITLE = "Workers over time"
BARS = 1500
CELLS = 120
UNITS = (("days", 2 * 86400, 86400), ("hours", 2 * 3600, 3600), ("minutes", 180, 60), ("seconds", 0, 1))


@final
@dataclass(frozen=True, kw_only=True)
class Bar:
    """One run of one worker, in one of its lanes."""

    worker: str
    lane: int
    #: in ``Data.unit`` since the first run began
    start: float
    end: float
    state: str
    run: str


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """Bars of runs; or, where there are too many, how many runs each worker had in hand over time."""

    unit: str
    workers: Sequence[str]
    #: lanes a worker used at once, by worker
    lanes: Sequence[int]
    bars: Sequence[Bar]
    #: [worker][cell]: mean number of runs in hand; () where there are bars
    load: Sequence[Sequence[float]]
    #: ends of the cells
    cells: Sequence[float]
    #: share of the time between its first and last run that a worker had one, by worker
    busy: Sequence[float]
    note: str


def data(subject: Subject) -> Data | None:
    """The runs that began and ended, by worker; None where nobody said when."""
    runs = [run for trial in subject.trials for run in trial.runs if run.state.final]
    runs = [run for run in runs if run.started is not None and run.ended is not None]
    if not runs:
        return None
    first, last = min(_start(run) for run in runs), max(_end(run) for run in runs)
    unit, _, size = next(u for u in UNITS if last - first >= u[1])
    of: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (_start(run), run.key)):
        of.setdefault(run.worker, []).append(run)
    workers = list(of)[:40]  # in the order in which they began
    bars: list[Bar] = []
    lanes, busy, load = [], [], []
    edges = [first + (last - first) * k / CELLS for k in range(CELLS + 1)]
    for worker in workers:
        own = of[worker]
        packed = _pack(own)
        lanes.append(1 + max(lane for lane, _ in packed))
        busy.append(_busy(own))
        load.append(_load(own, edges))
        bars += [
            Bar(worker=worker or "unknown", lane=lane, start=(_start(run) - first) / size,
                end=(_end(run) - first) / size, state=str(run.state), run=str(run.key))
            for lane, run in packed
        ]  # fmt: skip
    many = len(bars) > BARS or sum(lanes) > 300
    note = f"{len(bars):,} runs: shown is how many each worker had in hand" if many else ""
    return Data(
        unit=unit, workers=[worker or "unknown" for worker in workers], lanes=lanes, bars=[] if many else bars,
        load=load if many else (), cells=[(edge - first) / size for edge in edges], busy=busy, note=note,
    )  # fmt: skip


def _start(run: Run) -> float:
    assert run.started is not None
    return run.started


def _end(run: Run) -> float:
    assert run.ended is not None
    return max(run.ended, _start(run))


def _pack(runs: Sequence[Run]) -> list[tuple[int, Run]]:
    """A lane for each run (in the order they began), the lowest that is free."""
    free: list[int] = []
    taken: list[tuple[float, int]] = []
    packed = []
    for run in runs:
        while taken and taken[0][0] <= _start(run):
            heapq.heappush(free, heapq.heappop(taken)[1])
        lane = heapq.heappop(free) if free else len(taken)
        heapq.heappush(taken, (_end(run), lane))
        packed.append((lane, run))
    return packed


def busy(runs: Sequence[Run]) -> float | None:
    """The share of the time between the first start and the last end of these runs in which one was in hand, 0 to 1.

    Args:
        runs: that began and ended, in any order; None without one.
    """
    return _busy(sorted(runs, key=_start)) if runs else None


def _busy(runs: Sequence[Run]) -> float:
    covered, until = 0.0, _start(runs[0])
    for run in runs:
        covered += max(0.0, _end(run) - max(until, _start(run)))
        until = max(until, _end(run))
    whole = until - _start(runs[0])
    return covered / whole if whole > 0 else 1.0


def _load(runs: Sequence[Run], edges: Sequence[float]) -> list[float]:
    """The mean number of runs in hand between one edge and the next."""
    ends = np.array(edges)
    width = np.diff(ends)
    if not (width > 0).all():
        return [0.0] * len(width)

    def since(times: Sequence[float]) -> Any:
        """The seconds that have passed since these times, of all of them together, at each edge."""
        at = np.sort(np.array(times))
        sums = np.concatenate([[0.0], np.cumsum(at - ends[0])])
        before = np.searchsorted(at, ends)
        return before * (ends - ends[0]) - sums[before]

    taken = since([_start(run) for run in runs]) - since([_end(run) for run in runs])
    return [max(0.0, float(part)) for part in np.diff(taken) / width]


def figure(found: Data) -> go.Figure:
    """A band a worker, a bar a run in the colour and pattern of its state."""
    busy = f"{100 * sum(found.busy) / len(found.busy):.0f} %"
    said = f"busy {busy} of the time between a worker's first and last run; a run that paused is drawn through"
    title = theme.new(TITLE, "; ".join(filter(None, [said, found.note])), height=200)
    rows = len(found.workers) if found.load else sum(found.lanes)
    title.update_layout(height=min(700, 210 + max(26 * len(found.workers), 8 * rows)))
    title.update_xaxes(**theme.axis(f"{found.unit} since the first run began"))
    if found.load:
        title.add_trace(
            go.Heatmap(
                x=list(found.cells), y=[theme.safe(w, 30) for w in found.workers], z=[list(row) for row in found.load],
                colorscale=theme.SCALE, colorbar={"title": {"text": "runs"}},
            )
        )  # fmt: skip
        title.update_yaxes(**theme.axis("worker", autorange="reversed", showgrid=False))
        return title
    starts, total = {}, 0
    for worker, lanes in zip(found.workers, found.lanes, strict=True):
        starts[worker], total = total, total + lanes + 1
    for state, pattern in (("complete", ""), ("pruned", "."), ("diverged", "x"), ("failed", "/"), ("cancelled", "-")):
        here = [bar for bar in found.bars if bar.state == state]
        if here:
            title.add_trace(_bars(here, starts, state, pattern))
    middles = [starts[w] + (n - 1) / 2 for w, n in zip(found.workers, found.lanes, strict=True)]
    words = [f"{theme.safe(w, 24)}<br>{n} lane{'s' * (n > 1)}" for w, n in zip(found.workers, found.lanes, strict=True)]
    title.update_yaxes(
        **theme.axis("worker", tickvals=middles, ticktext=words, range=[total - 0.5, -1], showgrid=False)
    )
    title.update_layout(barmode="overlay", bargap=0)
    return title


def _bars(bars: Sequence[Bar], starts: dict[str, int], state: str, pattern: str) -> Any:
    colour = theme.STATE_COLOURS[state]
    return go.Bar(
        y=[starts[bar.worker] + bar.lane for bar in bars],
        x=[bar.end - bar.start for bar in bars],
        base=[bar.start for bar in bars],
        width=0.85,
        orientation="h",
        marker={"color": colour, "line": {"color": "white", "width": 0.5}, "pattern": {"shape": pattern}},
        name=state,
        text=[f"run {bar.run} {bar.state}: {bar.end - bar.start:.3g}" for bar in bars],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )
