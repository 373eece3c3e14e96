"""What went wrong: failures by message, divergence, layers that vanish or explode, lost attempts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.wanted import TheFilter, TheSource, TheView
from hpsearch.figures import layers, lr_curve
from hpsearch.figures.subject import Subject
from hpsearch.parameter import Categorical
from hpsearch.pictures import Source
from hpsearch.profile import profile_of
from hpsearch.trial import Lost, Run, RunKey, State, Trial, best_trials
from hpsearch.written import setting_text

router = APIRouter(include_in_schema=False)
#: rows of a table; characters of a traceback
MOST, LONGEST = 30, 6000
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
    shares: Sequence[tuple[str, str, int, int]]


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
            error=runs[0].error[-LONGEST:],
        )
        for runs in sorted(groups.values(), key=len, reverse=True)
    ]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:300]


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


def _shares(seen: Subject, name: str) -> list[tuple[str, str, int, int]]:
    parameter = seen.space.parameters[name].hard()
    if isinstance(parameter, Categorical):
        return []
    cells = 12
    if parameter.log:
        cells = max(1, min(40, round(2 * math.log10(parameter.high / parameter.low))))
    found = profile_of(name, parameter, seen.ended, seen.direction, cells).bins
    return [(setting_text(b.low, 2), setting_text(b.high, 2), b.n, b.diverged) for b in found if b.n]


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


@router.get("/s/{study}/diagnostics", response_class=HTMLResponse)
@role(Role.READ)
def diagnostics(request: Request, view: TheView, source: TheSource, wanted: TheFilter) -> HTMLResponse:
    """What went wrong, grouped."""
    subject = source.subject
    failures: Sequence[Failure] = view.once(("failures", wanted), lambda: failures_of(subject.trials))
    diverged = view.once(("diverged", wanted), lambda: diverged_of(subject))
    flagged, seen = view.once(("flagged", wanted), lambda: flagged_of(source))
    every: Sequence[Lost] = view.once("losses", lambda: view.archive.losses(view.name))
    fitting = {trial.number for trial in subject.trials}
    lost = [one for one in every if one.run.trial in fitting]
    return study_page(
        request,
        "diagnostics.html",
        view,
        "diagnostics",
        wanted,
        names=list(subject.space.searched),
        shown=len(subject.trials),
        failures=failures[:MOST],
        failed=sum(one.runs for one in failures),
        kinds=len(failures),
        diverged=diverged,
        curve=card("lr_curve", f"{view.summary.spec['metric']} over {diverged.name}", wide=True, x=diverged.name)
        if diverged.name
        else None,
        flagged=flagged[:MOST],
        unhealthy=len(flagged),
        seen=seen,
        layers=card("layers", f"Layers of {flagged[0].run}", wide=True, run=str(flagged[0].run)) if flagged else None,
        lost=list(reversed(lost))[:MOST],
        lost_total=len(lost),
        causes=Counter(one.cause for one in lost).most_common(),
    )
