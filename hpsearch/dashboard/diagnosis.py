"""What went wrong: failures by message, divergence, layers that vanish or explode."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, final

from hpsearch.dashboard.query import Filter
from hpsearch.dashboard.record import View
from hpsearch.figures import layers, lr_curve
from hpsearch.figures.subject import Subject
from hpsearch.parameter import Categorical
from hpsearch.pictures import Source
from hpsearch.profile import profile_of
from hpsearch.trial import Run, RunKey, State, Trial, best_trials
from hpsearch.written import redacted

#: characters of a traceback, its end
LONGEST = 6000
#: the best trials whose layers are looked at, the first run of each
LOOKED = 50
#: what differs between two messages of one failure: addresses, numbers
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+(\.\d+)?(e[-+]?\d+)?")


@final
@dataclass(frozen=True, kw_only=True)
class Failure:
    """Runs that failed with one message, numbers in it aside."""

    #: the first one's last line
    message: str
    reason: str
    runs: int
    trials: int
    example: RunKey
    #: of the example; its last part where it is long
    error: str


@final
@dataclass(frozen=True, kw_only=True)
class Flagged:
    """A run whose layers vanish or explode."""

    run: RunKey
    #: (layer, what is wrong)
    flags: Sequence[tuple[str, str]]


@final
@dataclass(frozen=True, kw_only=True)
class Diverged:
    """Where in the range, and when, runs diverged."""

    runs: int
    trials: int
    #: (epoch, runs), epochs from 0; None: nobody said
    epochs: Sequence[tuple[int | None, int]]
    #: the parameter that the shares are over; empty where none is numeric
    name: str
    #: (from, to, trials, those of them that diverged)
    shares: Sequence[tuple[float, float, int, int]]


@final
@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What went wrong in a study."""

    #: the most frequent first
    failures: Sequence[Failure]
    diverged: Diverged
    flagged: Sequence[Flagged]
    #: runs whose layers were looked at: the first ones of the best trials that have norms
    looked: int

    @property
    def failed(self) -> int:
        """Runs that failed."""
        return sum(one.runs for one in self.failures)


def diagnosis_of(view: View, source: Source, wanted: Filter) -> Diagnosis:
    """What went wrong in the trials that a filter leaves, by kind.

    Args:
        view: of the study.
        source: what the filter leaves of it.
        wanted: the filter.
    """

    def make() -> Diagnosis:
        flagged, looked = flagged_of(source)
        subject = source.subject
        return Diagnosis(
            failures=failures_of(subject.trials), diverged=diverged_of(subject), flagged=flagged, looked=looked
        )

    return view.once(("diagnosis", wanted), make)


def failures_of(trials: Sequence[Trial]) -> list[Failure]:
    """The failed runs by message, the most frequent first."""
    groups: dict[str, list[Run]] = {}
    for trial in trials:
        for run in trial.runs:
            if run.state is State.FAILED:
                groups.setdefault(_VARYING.sub("#", f"{run.reason}\n{_last_line(run.error)}"), []).append(run)
    return [
        Failure(
            message=_last_line(runs[0].error) or runs[0].reason or "no message",
            reason=runs[0].reason,
            runs=len(runs),
            trials=len({run.key.trial for run in runs}),
            example=runs[0].key,
            error=redacted(runs[0].error)[-LONGEST:],
        )
        for runs in sorted(groups.values(), key=len, reverse=True)
    ]


def _last_line(text: str) -> str:
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return redacted(last)[:300]


def diverged_of(seen: Subject) -> Diverged:
    """The diverged runs by epoch, and the trials over the learning rate: by half decade, or twelfth of its range."""
    runs = [run for trial in seen.trials for run in trial.runs if run.state is State.DIVERGED]
    epochs = Counter(run.last_epoch for run in runs)
    name = lr_curve.parameter_of(seen)
    return Diverged(
        runs=len(runs),
        trials=sum(trial.state is State.DIVERGED for trial in seen.trials),
        epochs=sorted(epochs.items(), key=lambda item: (item[0] is None, item[0] or 0)),
        name=name or "",
        shares=_shares(seen, name) if name and runs else [],
    )


def _shares(seen: Subject, name: str) -> list[tuple[float, float, int, int]]:
    parameter = seen.space.parameters[name].hard()
    if isinstance(parameter, Categorical):
        return []
    cells = 12
    if parameter.log:
        cells = max(1, min(40, round(2 * math.log10(parameter.high / parameter.low))))
    found = profile_of(name, parameter, seen.ended, seen.direction, cells).bins
    return [(cast(float, b.low), cast(float, b.high), b.n, b.diverged) for b in found if b.n]


def flagged_of(source: Source) -> tuple[list[Flagged], int]:
    """Of the best trials' first runs, those with a layer that vanishes or explodes; and how many had norms at all."""
    found, seen, subject = [], 0, source.subject
    for trial in best_trials(subject.trials, subject.direction, LOOKED):
        if not trial.runs:
            continue
        key = trial.runs[0].key
        told = layers.data(str(key), source.archive.layers(subject.study, key))
        if told is None:
            continue
        seen += 1
        if told.flags:
            found.append(Flagged(run=key, flags=list(told.flags.items())))
    return found, seen
