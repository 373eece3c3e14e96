"""Studies, trials and comparisons as plain data: what ``hpsearch list``, ``show`` and ``compare`` print with
``--json``, with times as ISO 8601.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from hpsearch.archive import Curve, StudySummary
from hpsearch.compare import StudyRow, TrialRow, at_best_epoch
from hpsearch.dashboard.record import View
from hpsearch.trial import State, Trial
from hpsearch.verdict import Spread, spread


def moment(seconds: float | None) -> datetime | None:
    """A time of the record (seconds since 1970) as UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def study(summary: StudySummary) -> dict[str, Any]:
    """A study in a list."""
    best = summary.best
    return {
        "study": summary.name,
        "state": summary.state,
        "reason": summary.reason,
        "strategy": summary.spec["strategy"]["name"],
        "pruner": (summary.spec.get("pruner") or {}).get("name") or None,
        "metric": summary.spec["metric"],
        "direction": summary.spec["direction"],
        "seeds": summary.spec["seeds"],
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
    }


def whole_study(view: View) -> dict[str, Any]:
    """A study by itself: its best trial with the interval, its notes and its spec too."""
    top = view.results.top(1)
    return study(view.summary) | {
        "revision": view.revision,
        "interval": asdict(spread(list(top[0].values().values()))) if top else None,
        "notes": [{"address": address, "text": text} for address, text in view.summary.notes],
        "spec": view.summary.spec,
    }


def trial(view: View, found: Trial, curves: Sequence[Curve]) -> dict[str, Any]:
    """A trial with its runs; curves have a route of their own."""
    environments = list(dict.fromkeys(map(_key, filter(None, (run.environment for run in found.runs)))))
    address = f"{view.name}/{found.number}"
    return {
        "study": view.name,
        "trial": found.number,
        "state": found.state,
        "value": found.value,
        "sd": found.sd,
        "diverged": found.state is State.DIVERGED,
        "batch": found.batch,
        "baseline": found.baseline,
        "params": dict(found.params),
        "metrics": {name: asdict(one) for name, one in metrics(view, found, curves).items()},
        "runs": [
            {key: value for key, value in asdict(run).items() if key not in ("key", "environment")}
            | {
                "seed": run.key.seed,
                "repeat": run.key.repeat,
                "started": moment(run.started),
                "ended": moment(run.ended),
                "diverged": run.state is State.DIVERGED,
                "environment": environments.index(_key(run.environment)) if run.environment else None,
            }
            for run in found.runs
        ],
        "environments": [dict(one) | {"packages": dict(one[-1][1])} for one in environments],
        "notes": [text for where, text in view.summary.notes if where == address],
        "commands": commands(address),
    }


def _key(environment: Any) -> tuple[tuple[str, Any], ...]:
    """An environment as something that can be compared."""
    plain = asdict(environment)
    packages = tuple(plain.pop("packages").items())
    return (*plain.items(), ("packages", packages))


def metrics(view: View, found: Trial, curves: Sequence[Curve]) -> dict[str, Spread]:
    """Every metric over the search's seeds, with its interval; all but the study's own at each run's best epoch."""
    values = [float("nan") if r.state is State.DIVERGED else r.value for r in found.search_runs]
    told = {view.subject.metric: spread([value for value in values if value is not None])}
    by_metric: dict[str, list[Curve]] = {}
    for curve in curves:
        by_metric.setdefault(curve.metric, []).append(curve)
    for name in sorted(by_metric.keys() - told.keys()):
        value = at_best_epoch(by_metric[name])
        told[name] = spread([x for run in found.search_runs if (x := value(run)) is not None])
    return told


def commands(address: str) -> Mapping[str, str]:
    """What to type to see a trial, and to train it again."""
    study, _, number = address.partition("/")
    quoted = shlex.quote(address)
    return {
        "show": f"hpsearch show {quoted}",
        "study_file": f"hpsearch show {quoted} --yaml",
        "rerun": f"hpsearch rerun {quoted}",
        "ship": f"hpsearch ship {quoted}",
        "python": f"import hpsearch as hp; trial = hp.load({study!r}).trial({number})",
    }


def compared_trial(row: TrialRow) -> dict[str, Any]:
    """A trial in a comparison."""
    found = row.trial
    return {
        "trial": row.address,
        "state": found.state,
        "value": found.value,
        "sd": found.sd,
        "values": row.values,
        "seconds": row.seconds,
        "params": found.params,
    }


def compared_study(row: StudyRow) -> dict[str, Any]:
    """A study in a comparison."""
    best = row.best
    found = None if best is None else {"trial": best.number, "value": best.value, "sd": best.sd, "params": best.params}
    return {field.name: getattr(row, field.name) for field in fields(row)} | {"best": found}
