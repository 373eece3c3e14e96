"""Repeat stored runs, each alone, and compare their fresh curves with the stored ones. Nothing is recorded.

A run is trained as it was: by the solo loop, or as a lane, now the only one. On a CPU both give the same bits on the
same machine with the same software. A lane on a GPU is promised within a tolerance only: kernels differ in the last
bits with the number of lanes, and what they give feeds the next batch. Two numbers are equal within a tolerance t
(1e-4 by default, 1e-2 for runs in mixed precision) where they differ by at most

    t * max(|stored|, |now|, 0.01)       losses (names with "loss") and "lr": relative, for a float32 loss is made of
                                         numbers of size 1, so that below 0.01 its last bits are absolute
    100 * t * max(|stored|, |now|, 1)    every other metric: those that count examples move in steps of 1/n, and an
                                         example at the border may fall on either side (one of a hundred, by default;
                                         at most one of ten, unless losses may differ by more)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, final

from hpsearch.archive import Archive, Curve
from hpsearch.attempt import watch
from hpsearch.errors import StudyChangedError, UsageError
from hpsearch.executor import Assignment
from hpsearch.objective import source_hash
from hpsearch.space import Params
from hpsearch.store import clean
from hpsearch.study import Study
from hpsearch.trial import Environment, EpochReport, Finished, Lost, PausedReport, Report, Run, RunKey, State

if TYPE_CHECKING:
    from hpsearch.executors.ray import ClusterOptions

TOLERANCE = 1e-4
#: of runs whose forward computes in bfloat16, where one rounding is 4e-3
MIXED_TOLERANCE = 1e-2
#: a loss below this is compared as if it were as large
SMALL_LOSS = 0.01
#: how much more than a loss a metric that may count examples may differ
COUNTS = 100.0
#: the most that such a metric may differ where a loss may differ less
MOST_COUNTED = 0.1

#: (epoch, metric) -> number; epoch None: the run's value
Points = Mapping[tuple[int | None, str], float]


class Sameness(StrEnum):
    """What a repetition has shown."""

    BIT_EQUAL = "bit-equal"
    CLOSE = "equal within tolerance"
    DIFFERS = "differs"
    #: it failed now, or its worker was lost: nothing is known
    NOT_REPEATED = "could not be repeated"


@final
@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A run as the record has it."""

    run: Run
    params: Params
    curves: Sequence[Curve]


@final
@dataclass(frozen=True, kw_only=True)
class Difference:
    """A number that is not the same to the bit."""

    #: None: the run's value, where the curve does not tell
    epoch: int | None
    metric: str
    #: None: there is none
    stored: float | None
    now: float | None
    #: the difference as a part of what the tolerance allows; infinite where a number is missing
    share: float

    @property
    def relative(self) -> float | None:
        """|stored - now| / max(|stored|, |now|); None where a number is missing."""
        if self.stored is None or self.now is None:
            return None
        return abs(self.stored - self.now) / max(abs(self.stored), abs(self.now))


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A stored run and its repetition."""

    run: RunKey
    sameness: Sameness
    #: it was compared with
    tolerance: float = TOLERANCE
    #: the largest (as a part of what is allowed) where equal within tolerance, the first beyond it where it differs
    difference: Difference | None = None
    #: how it ended now and then, where that is not the same; why it could not be repeated
    ending: str = ""
    #: what the repetition raised
    error: str = ""
    #: how many epochs of the stored curve there are
    epochs: int = 0
    #: how it was trained; empty where the record does not say
    engine: str = ""
    engine_now: str = ""
    #: what is not as it was, in words: ``torch 2.12.0 stored, 2.13.0 now``; not looked for where bit-equal
    changed: Sequence[str] = field(default=())
    #: seconds of training, now
    seconds: float = 0.0

    @property
    def bits_promised(self) -> bool:
        """True where it was trained as it is now, no lane on a GPU, and nothing around it is known to have changed."""
        kind, place = rung(self.engine)
        return not self.changed and (kind, place) == rung(self.engine_now) and (kind == "solo" or place == "cpu")


def rung(engine: str) -> tuple[str, str]:
    """``vmap, cpu, 64 lanes`` -> ("vmap", "cpu"); ("", "") where nobody said."""
    kind, _, rest = engine.partition(", ")
    return kind, rest.partition(", ")[0]


def tolerance_of(engine: str) -> float:
    """What a run that was trained so is compared with by default."""
    return MIXED_TOLERANCE if engine.endswith(", bfloat16") else TOLERANCE


def stored_runs(archive: Archive, study: str, keys: Sequence[RunKey]) -> list[StoredRun]:
    """These runs of a study, in this order, each once.

    Raises:
        UsageError: one of them has not ended, failed or was cancelled; names all of them.
    """
    numbers = sorted({key.trial for key in keys})
    trials = {trial.number: trial for trial in archive.trials(study, numbers)}
    runs = {run.key: run for trial in trials.values() for run in trial.runs}
    wanted = [runs[key] for key in dict.fromkeys(keys)]
    refused = [f"{study}/{run.key} {why}" for run in wanted if (why := unrepeatable(run))]
    if refused:
        raise UsageError("\n".join(["there is nothing to compare with:", *refused]), hint="name the other runs alone")
    curves: dict[RunKey, list[Curve]] = {}
    for curve in archive.curves(study, numbers):
        curves.setdefault(curve.run, []).append(curve)
    return [StoredRun(run=r, params=trials[r.key.trial].params, curves=curves.get(r.key, ())) for r in wanted]


def unrepeatable(run: Run) -> str:
    """Why a run cannot be repeated, in words; empty where it can."""
    if run.state in (State.COMPLETE, State.PRUNED, State.DIVERGED):
        return ""
    if not run.state.final:
        return f"has not ended ({run.state})"
    return "was cancelled" if run.state is State.CANCELLED else f"failed ({run.reason})"


def rerun(
    study: Study,
    runs: Sequence[StoredRun],
    *,
    code_hash: str,
    allow_changed_code: bool = False,
    workers: int | None = None,
    device: str | None = None,
    on: str = "local",
    cluster: ClusterOptions | None = None,
    files: Path | None = None,
    tolerance: float | None = None,
    on_done: Callable[[Comparison], None] = lambda comparison: None,
) -> list[Comparison]:
    """Train these runs again, each alone in a process of its own, and compare; a pruned one to its last epoch only.

    Args:
        study: whose they are, as it is stored.
        runs: from ``stored_runs``.
        code_hash: the stored one, of the training code.
        allow_changed_code: go on though the training code has changed, and say so of every run.
        workers: how many at once; None: one a CUDA device, or one a core.
        device: ``auto``, ``cpu``, ``cuda`` ...; None: the CPU where all of them were trained on it, else ``auto``.
        on, cluster, files: where, as ``attempt.watch`` takes them; ``inline`` is no process of their own.
        tolerance: at least 0; this file's head says of what. None: by the precision that a run was trained in.
        on_done: is told of each run as it ends.

    Returns:
        The comparisons, in the order of ``runs``.

    Raises:
        StudyChangedError: the training code has changed.
        ObjectiveError: the training code is gone.
        ExecutorError: no worker can be started.
    """
    now = source_hash(study.objective)
    if now != code_hash and not allow_changed_code:
        raise StudyChangedError(
            f"the training code of {study.name} has changed since it was stored "
            f"(sha256 {code_hash[:12]} -> {now[:12]})",
            hint="--allow-changed-code repeats the runs with the code as it is now",
        )
    if device is None:
        places = [stored.run.environment for stored in runs]
        device = "cpu" if all(place and place.device == "cpu" for place in places) else "auto"
    code = f"training code {code_hash[:12]} stored, {now[:12]} now" if now != code_hash else ""
    listener = _Listener(study, runs, tolerance, on_done, code)
    for lanes in (1, 2):  # two: the only run of a process is a lane there
        again = [_again(stored) for stored in runs if _was_a_lane(stored) == (lanes == 2)]
        if again:
            watch(
                study, again, device=device, workers=workers, lanes=lanes, isolated=True, on=on, cluster=cluster,
                files=files, hear=listener.hear,
            )  # fmt: skip
    return [listener.done[stored.run.key] for stored in runs]


def _was_a_lane(stored: StoredRun) -> bool:
    return rung(stored.run.engine)[0] not in ("", "solo")


def _again(stored: StoredRun) -> Assignment:
    until = None
    if stored.run.state is State.PRUNED:
        epochs = [epoch for curve in stored.curves for epoch in curve.epochs]
        last = max(epochs, default=stored.run.last_epoch)
        until = None if last is None else last + 1
    return Assignment(run=stored.run.key, params=stored.params, attempt=1, until_epoch=until)


@final
class _Listener:
    """Collects the reports of repetitions; compares each when it has ended."""

    def __init__(
        self,
        study: Study,
        stored: Sequence[StoredRun],
        tolerance: float | None,
        on_done: Callable[[Comparison], None],
        code: str,
    ) -> None:
        self._metric, self._tolerance = study.metric, tolerance
        self._stored = {each.run.key: each for each in stored}
        self._points: dict[RunKey, dict[tuple[int | None, str], float]] = {key: {} for key in self._stored}
        #: how the training code has changed; empty where it has not
        self._code = [code] if code else []
        self._on_done = on_done
        self.done: dict[RunKey, Comparison] = {}

    def hear(self, report: Report) -> bool:
        """Take a report; never enough."""
        if isinstance(report, EpochReport):
            self._points[report.run].update(_finite({(report.epoch, n): v for n, v in report.metrics.items()}))
        elif isinstance(report, Finished | PausedReport | Lost):
            self.done[report.run] = done = self._compare(self._stored[report.run], report)
            self._on_done(done)
        return False

    def _compare(self, stored: StoredRun, last: Finished | PausedReport | Lost) -> Comparison:
        run, ended = stored.run, last if isinstance(last, Finished) else None
        before = _stored_points(stored, self._metric)
        tolerance = tolerance_of(run.engine) if self._tolerance is None else self._tolerance
        found, worst = compare(before, self._points_now(stored, last), tolerance, self._metric)
        ending = _ending(run, last)
        if isinstance(last, Lost) or (ended and ended.state in (State.FAILED, State.CANCELLED)):
            found, worst = Sameness.NOT_REPEATED, None
        elif ending:
            found = Sameness.DIFFERS
            worst = worst if worst and worst.share > 1 else None
        return Comparison(
            run=run.key,
            sameness=found,
            tolerance=tolerance,
            difference=worst,
            ending=ending,
            error=ended.error if ended else "",
            epochs=len({epoch for epoch, _ in before if epoch is not None}),
            engine=run.engine,
            engine_now=ended.engine if ended else "",
            changed=[] if found is Sameness.BIT_EQUAL else [*self._code, *self._changed(run.environment, last)],
            seconds=0.0 if isinstance(last, PausedReport) else last.seconds,
        )

    def _changed(self, stored: Environment | None, last: Finished | PausedReport | Lost) -> list[str]:
        """What is not as it was around a run, in words."""
        now = None if isinstance(last, Lost) else last.environment
        return _differences(stored, now) if stored and now else []

    def _points_now(self, stored: StoredRun, last: Finished | PausedReport | Lost) -> Points:
        """The fresh curve, with what was returned where an archive shows it."""
        points = self._points[stored.run.key]
        if isinstance(last, Finished):
            reported = {name for _, name in points}
            returned = _finite({(last.last_epoch or 0, name): value for name, value in last.metrics.items()})
            points.update({key: value for key, value in returned.items() if key[1] not in reported})
            if last.value is not None and stored.run.state is State.COMPLETE:
                points[None, self._metric] = last.value
        return points


def compare(stored: Points, now: Points, tolerance: float, metric: str = "") -> tuple[Sameness, Difference | None]:
    """Two curves: how far they are the same, and the difference that says most.

    Where they differ, it is in the first epoch that goes beyond the tolerance, and of its metrics the one that is
    furthest beyond it (``metric`` where several are equally far); else the one that is nearest to the tolerance.
    """
    order = sorted(stored.keys() | now.keys(), key=lambda key: (key[0] is None, key[0] or 0, key[1]))
    found = [
        Difference(epoch=key[0], metric=key[1], stored=a, now=b, share=_share(key[1], a, b, tolerance))
        for key in order
        if (a := stored.get(key)) != (b := now.get(key))
    ]
    if not found:
        return Sameness.BIT_EQUAL, None
    beyond = [each for each in found if each.share > 1]
    there = [each for each in found if each.epoch == beyond[0].epoch] if beyond else found
    worst = max(there, key=lambda each: (each.share, each.metric == metric))
    return (Sameness.DIFFERS if beyond else Sameness.CLOSE), worst


def is_loss(metric: str) -> bool:
    """True for a number that is a mean of smooth ones, by its name; any other may count examples."""
    return metric == "lr" or "loss" in metric.lower()


def _share(metric: str, a: float | None, b: float | None, tolerance: float) -> float:
    if a is None or b is None:
        return math.inf
    counted = max(tolerance, min(COUNTS * tolerance, MOST_COUNTED))
    part, small = (tolerance, SMALL_LOSS) if is_loss(metric) else (counted, 1.0)
    allowed = part * max(abs(a), abs(b), small)
    return abs(a - b) / allowed if allowed else math.inf


def _stored_points(stored: StoredRun, metric: str) -> Points:
    points: dict[tuple[int | None, str], float] = {}
    for curve in stored.curves:
        points.update({(epoch, curve.metric): v for epoch, v in zip(curve.epochs, curve.values, strict=True)})
    if stored.run.value is not None and stored.run.state is State.COMPLETE:
        points[None, metric] = stored.run.value
    return points


def _finite(points: Points) -> Points:
    """As a store keeps them."""
    return {(epoch, clean(name)): float(value) for (epoch, name), value in points.items() if math.isfinite(value)}


def _ending(run: Run, last: Finished | PausedReport | Lost) -> str:
    """How the endings differ, in words; empty where they do not. A pruned run is stopped by its curve's end."""
    if isinstance(last, Lost):
        return f"its worker is gone: {last.cause}"
    if isinstance(last, PausedReport):
        return ""
    if last.state in (State.FAILED, State.CANCELLED):
        return f"{last.state} now: {last.reason}"
    if run.state is State.DIVERGED and last.state is State.DIVERGED:
        same = (run.reason, run.last_epoch) == (clean(last.reason), last.last_epoch)
        return "" if same else f"diverged then and now: {_when(run)} stored, {_when(last)} now"
    if last.state is run.state or (run.state is State.PRUNED and last.state is State.COMPLETE):
        return ""
    return f"{_with_reason(run)} stored, {_with_reason(last)} now"


def _with_reason(ended: Run | Finished) -> str:
    return f"{ended.state} ({_when(ended)})" if ended.state is State.DIVERGED else str(ended.state)


def _when(ended: Run | Finished) -> str:
    if "epoch" in ended.reason or ended.last_epoch is None:
        return ended.reason
    return f"{ended.reason} after epoch {ended.last_epoch}"


def _differences(stored: Environment, now: Environment) -> list[str]:
    names = [name for name in dict.fromkeys(chain(stored.packages, now.packages)) if name != "torch"]
    pairs = {name: (getattr(stored, name), getattr(now, name)) for name in ("torch", "device", "machine", "python")}
    pairs |= {name: (stored.packages.get(name, "none"), now.packages.get(name, "none")) for name in names}
    pairs["commit"] = _commit(stored), _commit(now)
    if stored.data and now.data:
        pairs["data"] = stored.data, now.data
    return [f"{name} {a} stored, {b} now" for name, (a, b) in pairs.items() if a != b]


def _commit(environment: Environment) -> str:
    dirty = " with changes" if environment.git_dirty else ""
    return f"{environment.git_commit[:12]}{dirty}" if environment.git_commit else "none"
