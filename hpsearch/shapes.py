"""The record's things as plain data: what ``--json`` prints and what the REST API answers. Pure, a function a noun.

A number that JSON does not know (NaN, an infinity) is null; trials and runs say ``diverged`` beside it. A time is text,
ISO 8601 in UTC; a length of time is a number of seconds. States are their words. Keys are added, never changed in
meaning: where that cannot be, ``SCHEMA`` grows.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hpsearch.errors import UsageError
from hpsearch.further import sealed
from hpsearch.trial import State
from hpsearch.written import without_secrets

if TYPE_CHECKING:
    from hpsearch.actions import Stopping
    from hpsearch.archive import Curve, StudySummary
    from hpsearch.compare import Difference, Search, StudyRow, TrialRow
    from hpsearch.confirm import Confirmation
    from hpsearch.extra import Request
    from hpsearch.gain import Gain
    from hpsearch.importance import Importances
    from hpsearch.profile import Edge, Profile
    from hpsearch.progress import Progress
    from hpsearch.repeat import Repeated
    from hpsearch.ship import Check, Look
    from hpsearch.strategy import Decision
    from hpsearch.trial import Run, Trial
    from hpsearch.verdict import Paired, Spread

Shape = dict[str, Any]
#: of all shapes; a reader may rely on the keys of its number
SCHEMA = 2


def numbered(shape: Mapping[str, Any]) -> Shape:
    """A whole answer, with the number of its shape, and without the secrets that runs may have told."""
    return {"schema": SCHEMA, **without_secrets(shape)}


def plain(value: Any) -> Any:
    """The same data without infinities and NaN, keys as strings, sequences as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def moment(seconds: float | None) -> str | None:
    """A time, given in seconds since 1970: ``2026-01-31T09:05:00.250000Z``, which sorts as text; None where none is."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


# Studies, trials, runs


def pruner_name(summary: StudySummary) -> str | None:
    """What stops a study's trials early; None where nothing does."""
    name = (summary.spec.get("pruner") or {}).get("name")
    return None if name is None else str(name)


def study(summary: StudySummary) -> Shape:
    """A study in short; ``best`` is null while no trial is complete."""
    best = summary.best
    return {
        "study": summary.name,
        "state": summary.state,
        "reason": summary.reason,
        "strategy": summary.spec["strategy"]["name"],
        "pruner": pruner_name(summary),
        "metric": summary.spec["metric"],
        "direction": summary.spec["direction"],
        "seeds": list(summary.spec["seeds"]),
        "n_trials": summary.spec.get("n_trials"),
        "trials": {str(state): count for state, count in summary.counts.items()},
        "best": {"trial": best[0], "value": best[1], "sd": best[2]} if best else None,
        "created": moment(summary.created),
        "updated": moment(summary.updated),
        "seconds": summary.seconds,
        "holder": summary.holder,
        "file": summary.file,
        "fenced": summary.fenced,
        "tags": list(summary.tags),
        "trial_tags": [said(*each) for each in summary.trial_tags],
        "notes": [said(*each) for each in summary.notes],
    }


def whole_study(summary: StudySummary, best: Trial | None) -> Shape:
    """A study by itself: also the interval of its best trial, if there is one, and what its study file says."""
    from hpsearch.verdict import spread as over

    interval = None if best is None else spread(over(list(best.values().values())))
    return study(summary) | {"interval": interval, "spec": plain(summary.spec)}


def said(address: str, text: str) -> Shape:
    """A note or a tag, with what it is about."""
    return {"address": address, "text": text}


def trial(found: Trial, curves: Sequence[Curve] | None = None, *, only: Run | None = None) -> Shape:
    """A trial with its runs, or the only one that is wanted; with those of these curves that are theirs, if any."""
    return {
        "state": str(found.state),
        "value": plain(found.value),
        "sd": plain(found.sd),
        "diverged": found.state is State.DIVERGED,
        "batch": found.batch,
        "trial": found.number,
        "baseline": found.baseline,
        "params": plain(found.params),
        "runs": [run(each, curves) for each in ([only] if only else found.runs)],
    }


def whole_trial(
    summary: StudySummary,
    found: Trial,
    told: Sequence[Curve],
    *,
    db: str,
    only: Run | None = None,
    curves: bool = False,
) -> Shape:
    """A trial by itself: also its metrics with their intervals, what was said of it, and how to train it again.

    Args:
        summary: of its study.
        found: it.
        told: the curves of all its runs.
        db: the database's address, without a password.
        only: the run that is wanted; None: all.
        curves: also those, in each run; long ones make an answer long.
    """
    address = f"{summary.name}/{found.number}"
    about = f"{summary.name}/{only.key}" if only else address

    def of(words: Sequence[tuple[str, str]]) -> list[Shape]:
        return [said(where, text) for where, text in words if where == about or where.startswith(f"{about}/")]

    return {
        "study": summary.name,
        **trial(found, told if curves else None, only=only),
        "metrics": _metrics(str(summary.spec["metric"]), found, told),
        "notes": of(summary.notes),
        "tags": of(summary.trial_tags),
        "commands": _commands(summary, found, only, db),
    }


def _metrics(own: str, found: Trial, told: Sequence[Curve]) -> dict[str, Shape]:
    """Every metric over the search's seeds; all but the study's own at each run's best epoch."""
    from hpsearch.compare import at_best_epoch
    from hpsearch.verdict import spread as over

    values = [math.nan if run.state is State.DIVERGED else run.value for run in found.search_runs]
    made = {own: spread(over([value for value in values if value is not None]))}
    by_metric: dict[str, list[Curve]] = {}
    for curve in told:
        by_metric.setdefault(curve.metric, []).append(curve)
    for name in sorted(by_metric.keys() - made.keys()):
        value = at_best_epoch(by_metric[name])
        made[name] = spread(over([x for run in found.search_runs if (x := value(run)) is not None]))
    return made


def _commands(summary: StudySummary, found: Trial, only: Run | None, db: str) -> Shape:
    """What to type to see a trial (or one run of it), and to train it again."""
    from hpsearch import reproduce

    trial = f"{summary.name}/{found.number}"
    try:
        again = reproduce.command(summary, found, only, db=db)
    except UsageError:  # it has not ended: there is nothing to compare with
        again = None
    return {
        "show": shlex.join(["hpsearch", "show", f"{summary.name}/{only.key}" if only else trial, "--db", db]),
        "study_file": shlex.join(["hpsearch", "show", trial, "--yaml", "--db", db]),
        "rerun": again,
        "ship": shlex.join(["hpsearch", "ship", trial, "--db", db]),
        "python": reproduce.snippet(summary, found, only),
    }


def run(found: Run, curves: Sequence[Curve] | None = None) -> Shape:
    """A run; with those of these curves that are its own, if any: metric -> epochs and values."""
    told = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "key"}
    told |= {"stage": str(found.stage), "state": str(found.state), "value": plain(found.value)}
    told |= {"diverged": found.state is State.DIVERGED, "seconds": plain(found.seconds)}
    told |= {"started": moment(found.started), "ended": moment(found.ended)}
    told["environment"] = None if found.environment is None else asdict(found.environment)
    told |= {"seed": found.key.seed, "repeat": found.key.repeat}
    if curves is not None:
        told["curves"] = {
            curve.metric: {"epochs": list(curve.epochs), "values": plain(curve.values)}
            for curve in curves
            if curve.run == found.key
        }
    return told


def decision(found: Decision) -> Shape:
    """What was decided and why; of a look at the test set not what was seen, which ``look`` tells."""
    return asdict(found) | {"details": plain(sealed(found).details)}


def outcome(name: str, state: str, reason: str, progress: Progress) -> Shape:
    """How a study ended."""
    best = progress.best[0] if progress.best else None
    mean = {"mean": best.value, "sd": best.sd, "n": len(progress.seeds)} if best else None
    return {
        "study": name,
        "state": state,
        "reason": reason,
        "trials": {str(state): progress.counts[state] for state in State if progress.counts.get(state)},
        "best": None
        if best is None
        else {"trial": best.number, progress.metric: plain(mean), "params": plain(best.params)},
        "failures": [{"run": str(key), "reason": why} for key, why in progress.failures],
        "seconds": progress.seconds,
    }


def stopping(found: Stopping) -> Shape:
    """What came of asking a study to stop."""
    return asdict(found)


def repeated(name: str, done: Repeated) -> Shape:
    """What came of extra runs: further seeds, failed runs once more."""
    return {
        "study": name,
        "over": done.over,
        "requests": [
            {
                "what": request.what,
                "seeds": list(request.seeds),
                "runs": [
                    {
                        "run": f"{name}/{each.key}",
                        "state": str(each.state),
                        "value": plain(each.value),
                        "diverged": each.state is State.DIVERGED,
                        "reason": each.reason,
                    }
                    for each in done.runs(request)
                ],
                "trials": _gained(done, request) if request.what == "seeds" else [],
            }
            for request in done.requests
        ],
    }


def _gained(done: Repeated, request: Request) -> list[Shape]:
    from hpsearch.extra import gained

    found = [gained(done.trials[number], request) for number in request.trials]
    return [
        {"trial": one.trial.number, **{name: spread(getattr(one, name)) for name in ("before", "new", "now")}}
        for one in found
    ]


# Verdicts


def spread(found: Spread) -> Shape:
    """A mean over runs with its interval."""
    return plain(asdict(found))  # type: ignore[no-any-return]


def pair(found: Paired) -> Shape:
    """One trial against another."""
    return plain(asdict(found))  # type: ignore[no-any-return]


def studies_compared(
    rows: Sequence[StudyRow],
    searches: Sequence[Search],
    ahead: Sequence[tuple[Search, Search, float | None]],
    best: Sequence[Paired],
) -> Shape:
    """Studies side by side: a row each, their searches at equal budget, who is ahead, their best trials in pairs."""
    found = {
        "studies": [_study_row(row) for row in rows],
        "searches": [asdict(search) for search in searches],
        "ahead": [{"a": a.studies, "b": b.studies, "n": a.n, "probability": p} for a, b, p in ahead],
        "best": [pair(each) for each in best],
    }
    return plain(found)  # type: ignore[no-any-return]


def _study_row(row: StudyRow) -> Shape:
    best = row.best
    found = None if best is None else {"trial": best.number, "value": best.value, "sd": best.sd, "params": best.params}
    more = None if row.more is None else _gain(row.more)
    return {field.name: getattr(row, field.name) for field in fields(row)} | {"best": found, "more": more}


def _gain(found: Gain) -> Shape:
    return asdict(found) | {"words": found.words}


def trials_compared(
    rows: Sequence[TrialRow], verdicts: Sequence[Paired], differences: Sequence[Difference], *, confirmed: bool
) -> Shape:
    """Trials side by side: a row each, the verdict on each pair, what differs between them."""
    found = {
        "trials": [
            {
                "trial": row.address,
                "state": str(row.trial.state),
                "value": row.trial.value,
                "sd": row.trial.sd,
                "diverged": row.trial.state is State.DIVERGED,
                "values": row.values,
                "seconds": row.seconds,
                "params": row.trial.params,
            }
            for row in rows
        ],
        "confirmed": confirmed,
        "verdicts": [pair(each) for each in verdicts],
        "differences": [asdict(row) for row in differences],
    }
    return plain(found)  # type: ignore[no-any-return]


def importance(
    name: str, found: Importances, profiles: Sequence[Profile], edges: Sequence[Edge], gain: Gain | None
) -> Shape:
    """What mattered in a study, where the best lies, and what more trials would bring."""
    told = {"study": name, **asdict(found), "profiles": [asdict(profile) for profile in profiles]}
    told["edges"] = [asdict(edge) | {"words": edge.words} for edge in edges]
    return plain(told | {"gain": None if gain is None else _gain(gain)})  # type: ignore[no-any-return]


def confirmation(name: str, found: Confirmation) -> Shape:
    """A race, and what came of it."""
    end = found.end
    told = {
        "study": name,
        "race": found.terms.number,
        "alpha": found.terms.alpha,
        "over": end is not None,
        "verdict": found.words,
        "winner": end.details["winner"] if end else None,
        "ties": end.details["ties"] if end else [],
        "chosen": found.chosen,
        "seeds_to_settle": found.seeds_needed,
        "optimism": found.optimism.by if found.optimism else None,
        "trials": [
            {
                "trial": one.trial.number,
                "baseline": one.trial.baseline,
                "params": one.trial.params,
                "search": spread(one.searched),
                "fresh": spread(one.fresh),
                "outcome": one.outcome,
            }
            for one in found.contenders
        ],
    }
    return plain(told)  # type: ignore[no-any-return]


def shipping(
    name: str, metric: str, of: Trial, checks: Sequence[Check], looks: Sequence[Look], revealed: Look | None
) -> Shape:
    """The checklist of a trial, how often its study's test set was looked at, and what was seen this time."""
    return {
        "trial": f"{name}/{of.number}",
        "params": plain(of.params),
        "checks": [{"name": check.name, "holds": check.holds, "words": check.words} for check in checks],
        "looks": len(looks),
        "revealed": None if revealed is None else look(name, metric, revealed),
    }


def look(name: str, metric: str, found: Look) -> Shape:
    """A look at the test set: its metrics, and beside them the study's ``metric`` on the validation part."""
    told = asdict(found) | {"when": moment(found.when)}
    return {"study": name, "metric": metric, **plain(told)}
