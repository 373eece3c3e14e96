"""How a trial's runs went: learning curves with their band, norms of layers, what they have printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response

from hpsearch.archive import Curve
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.api.answer import UNCHANGED, answer, told
from hpsearch.dashboard.api.courses import RunLog
from hpsearch.dashboard.api.models import Band, LayerNorms, RunCurve, TrialCurves
from hpsearch.dashboard.logs import tail
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheNumber, TheView
from hpsearch.errors import NotFoundError, shown
from hpsearch.figures import layers as norms
from hpsearch.trial import LARGEST, LONGEST_NAME, Run, RunKey, Stage, State, Trial
from hpsearch.verdict import spread

T = TypeVar("T")
BandKind = Literal["interval", "range", "none"]
BAND = "over the seeds: the 95 % interval of the mean, or from the lowest to the highest"
POINTS = "in all curves of the answer; of longer ones, epochs are left out evenly"
router = APIRouter(prefix="/api/v1/studies/{study}/trials/{number}", tags=["trials"], responses=UNCHANGED)


@router.get("/curves", response_model=TrialCurves)
@role(Role.READ)
def curves(
    request: Request,
    view: TheView,
    number: TheNumber,
    metric: Annotated[str | None, Query(description="the study's, if none is named", max_length=LONGEST_NAME)] = None,
    band: Annotated[BandKind, Query(description=BAND)] = "interval",
    max_points: Annotated[int, Query(description=POINTS, ge=2, le=2000)] = 2000,
) -> Response:
    """One metric of a trial's runs over their epochs."""
    trial = view.trial(number)
    wanted = metric or view.subject.metric
    return answer(request, view, lambda: curves_of(view, trial, wanted, band, max_points))


def curves_of(view: View, trial: Trial, metric: str, band: BandKind, most: int) -> TrialCurves:
    """The curves of a metric, thinned to ``most`` points in all.

    Raises:
        NotFoundError: no run of the trial has reported this metric.
    """
    stored = view.archive.curves(view.name, [trial.number])
    names = sorted({curve.metric for curve in stored})
    if metric not in names and metric != view.subject.metric:
        hint = f"it has {', '.join(names[:8])}" if names else "it has none"
        raise NotFoundError(f"{view.name}/{trial.number} has no metric {shown(metric)}", hint=hint)
    own = {curve.run: curve for curve in stored if curve.metric == metric}
    runs = [run for run in trial.runs if run.key in own]
    share = most // max(1, len(runs))
    return TrialCurves(
        study=view.name,
        trial=trial.number,
        metric=metric,
        metrics=names,
        runs=[_run_curve(run, own[run.key], share) for run in runs],
        band=None if band == "none" else _band(runs, own, band, share),
        shown=sum(min(share, len(own[run.key].epochs)) for run in runs),
        total=sum(len(own[run.key].epochs) for run in runs),
    )


def _run_curve(run: Run, curve: Curve, most: int) -> RunCurve:
    return RunCurve(
        seed=run.key.seed,
        repeat=run.key.repeat,
        stage=run.stage,
        state=run.state,
        diverged=run.state is State.DIVERGED,
        epochs=thinned(curve.epochs, most),
        values=thinned(curve.values, most),
    )


def _band(
    runs: Sequence[Run], curves: Mapping[RunKey, Curve], kind: Literal["interval", "range"], most: int
) -> Band | None:
    """Over the search's seeds, where there are two at least, at the epochs that all have reached."""
    tables = [
        dict(zip(curves[run.key].epochs, curves[run.key].values, strict=True))
        for run in runs
        if run.stage is Stage.SEARCH and run.key.repeat == 0
    ]
    if len(tables) < 2:
        return None
    epochs = thinned(sorted(set(tables[0]).intersection(*tables[1:])), most)
    columns = [[table[epoch] for table in tables] for epoch in epochs]
    means = [math.fsum(column) / len(column) for column in columns]
    if kind == "range":
        ends = [(min(column), max(column)) for column in columns]
    else:
        ends = [(found.low or 0.0, found.high or 0.0) for found in map(spread, columns)]
    return Band(
        kind=kind,
        n=len(tables),
        epochs=epochs,
        mean=means,
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
    )


def thinned(values: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly, the first and the last kept."""
    if len(values) <= most:
        return list(values)
    if most < 2:
        return list(values[-most:]) if most else []
    return [values[k * (len(values) - 1) // (most - 1)] for k in range(most)]


@router.get("/layers", response_model=LayerNorms)
@role(Role.READ)
def layers(
    request: Request,
    view: TheView,
    number: TheNumber,
    seed: Annotated[int | None, Query(description="of the run; the trial's first", ge=0, le=LARGEST)] = None,
    repeat: Annotated[int, Query(description="of the run, where it was repeated", ge=0, le=LARGEST)] = 0,
) -> Response:
    """Gradient and weight norms of each layer of one run, and which vanish or explode."""
    run = run_of(view, view.trial(number), seed, repeat)

    def make() -> LayerNorms:
        key = run.key
        found = norms.data(f"{view.name}/{key}", view.archive.layers(view.name, key))
        norm = {} if found is None else asdict(found)
        norm.pop("run", None)
        if found is None:
            note = "no norms were recorded; run.watch(model) or a TrainingTask records them"
            norm = {"layers": [], "epochs": [], "gradients": [], "weights": [], "flags": {}, "note": note}
        return LayerNorms(study=view.name, trial=key.trial, seed=key.seed, repeat=key.repeat, **norm)

    return answer(request, view, make)


@router.get("/log", response_model=RunLog)
@role(Role.READ)
def log(
    view: TheView,
    number: TheNumber,
    seed: Annotated[int | None, Query(description="of the run; the trial's first", ge=0, le=LARGEST)] = None,
    repeat: Annotated[int, Query(description="of the run, where it was repeated", ge=0, le=LARGEST)] = 0,
) -> Response:
    """The last lines that one run has printed, at most 200. They may change while the revision stays: no ETag."""
    key = run_of(view, view.trial(number), seed, repeat).key
    found = tail(view.results.files, key)
    none = f"there is none in {view.results.files}: it has not begun, was trained inline, or with --files elsewhere"
    return told(
        RunLog(
            study=view.name,
            trial=key.trial,
            seed=key.seed,
            repeat=key.repeat,
            lines=found.lines if found else [],
            files=found.files if found else [],
            cut=bool(found and found.cut),
            note="" if found else none,
        )
    )


def run_of(view: View, trial: Trial, seed: int | None, repeat: int = 0) -> Run:
    """A run of a trial; without a seed its first.

    Raises:
        NotFoundError: the trial has no such run.
    """
    for run in trial.runs:
        if (seed is None or run.key.seed == seed) and run.key.repeat == repeat:
            return run
    seeds = ", ".join(str(run.key).partition("/")[2] for run in trial.runs)
    raise NotFoundError(
        f"{view.name}/{trial.number} has no run with seed {seed}", hint=f"its seeds: {seeds or 'none yet'}"
    )
