"""The record's things as plain data: what ``--json`` prints and what a web server answers. Pure, a function a noun.

A number that JSON does not know (NaN, an infinity) is null; trials and runs say ``diverged`` beside it. A time is text,
ISO 8601 in UTC; a length of time is a number of seconds. States are their words. Keys are added, never changed in
meaning: where that cannot be, ``SCHEMA`` grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hpsearch.trial import State

if TYPE_CHECKING:
    from hpsearch.archive import Curve, StudySummary
    from hpsearch.compare import Difference, Search, StudyRow, TrialRow
    from hpsearch.confirm import Confirmation
    from hpsearch.importance import Importances
    from hpsearch.profile import Edge, Gain, Profile
    from hpsearch.progress import Progress
    from hpsearch.ship import Check, Look
    from hpsearch.strategy import Decision
    from hpsearch.trial import Run, Trial
    from hpsearch.verdict import Paired, Spread

Shape = dict[str, Any]
#: of all shapes; a reader may rely on the keys of its number
SCHEMA = 2


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
        "trial_tags": [{"address": address, "tag": text} for address, text in summary.trial_tags],
        "notes": [{"address": address, "note": text} for address, text in summary.notes],
    }


def trial(found: Trial, curves: Sequence[Curve] = (), *, only: Run | None = None) -> Shape:
    """A trial with its runs, or the only one that is wanted, and those of these curves that are theirs."""
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


def run(found: Run, curves: Sequence[Curve] = ()) -> Shape:
    """A run, with those of these curves that are its own: metric -> epochs and values."""
    told = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "key"}
    told |= {"stage": str(found.stage), "state": str(found.state), "value": plain(found.value)}
    told |= {"diverged": found.state is State.DIVERGED, "seconds": plain(found.seconds)}
    told |= {"started": moment(found.started), "ended": moment(found.ended)}
    told["environment"] = None if found.environment is None else asdict(found.environment)
    told |= {"seed": found.key.seed, "repeat": found.key.repeat}
    told["curves"] = {
        curve.metric: {"epochs": list(curve.epochs), "values": plain(curve.values)}
        for curve in curves
        if curve.run == found.key
    }
    return told


def decision(found: Decision) -> Shape:
    """What was decided and why; ``details`` as they were recorded."""
    return asdict(found) | {"details": plain(found.details)}


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


# Verdicts


def spread(found: Spread) -> Shape:
    """A mean over runs with its interval."""
    ends = [found.low, found.high]
    return plain({"mean": found.mean, "sd": found.sd, "n": found.n, "ci95": ends, "method": found.method})  # type: ignore[no-any-return]


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
    return {field.name: getattr(row, field.name) for field in fields(row)} | {"best": found}


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
    """What mattered in a study, where the best lies, and what the last trials gained."""
    told = {"study": name, **asdict(found), "profiles": [asdict(profile) for profile in profiles]}
    told["edges"] = [asdict(edge) | {"words": edge.words} for edge in edges]
    return plain(told | {"gain": None if gain is None else asdict(gain)})  # type: ignore[no-any-return]


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


def shipping(name: str, of: Trial, checks: Sequence[Check], looks: Sequence[Look], revealed: Look | None) -> Shape:
    """The checklist of a trial, how often its study's test set was looked at, and what was seen this time."""
    return {
        "trial": f"{name}/{of.number}",
        "params": plain(of.params),
        "checks": [{"name": check.name, "holds": check.holds, "words": check.words} for check in checks],
        "looks": len(looks),
        "revealed": None if revealed is None else look(revealed),
    }


def look(found: Look) -> Shape:
    """A look at the test set."""
    metrics = {name: vars(each) for name, each in found.metrics.items()}
    told = {**vars(found), "when": moment(found.when), "metrics": metrics, "validation": vars(found.validation)}
    return plain(told)  # type: ignore[no-any-return]
