"""``hpsearch list``."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from hpsearch.archive import StudySummary
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import ago, number, out_json, print_table, say
from hpsearch.trial import State

StudyState = Literal["running", "complete", "stopped", "interrupted", "failed"]


def list_(
    *,
    state: Annotated[list[StudyState] | None, Parameter(negative="")] = None,
    tag: Annotated[list[str] | None, Parameter(negative="")] = None,
    common: Common = COMMON,
) -> None:
    """List the studies, the latest changed first.

    Args:
        state: Only studies in this state; may be given again.
        tag: Only studies with this tag; may be given again.
    """
    from hpsearch.stores.sql import open_archive

    studies = [
        study
        for study in open_archive(common.database).studies()
        if (not state or study.state in state) and (not tag or set(tag) & set(study.tags))
    ]
    if common.json:
        out_json({"schema": 1, "studies": [summary_json(study) for study in studies]})
        return
    if not studies:
        if not common.quiet:
            say("no study fits" if state or tag else "no study yet; hpsearch init makes one")
        return
    heads = ["study", "state", "best", "± sd", "metric", "trials", "strategy", "changed", "tags"]
    print_table(heads, [_row(study) for study in studies])


def pruner_name(study: StudySummary) -> str:
    """What stops its trials early; empty where nothing does."""
    return str((study.spec.get("pruner") or {}).get("name", ""))


def _row(study: StudySummary) -> list[str]:
    best = study.best
    return [
        study.name,
        study.state,
        number(best[1] if best else None),
        number(best[2], 2) if best and best[2] is not None else "",
        str(study.spec["metric"]),
        trials_text(study),
        " + ".join(filter(None, [study.spec["strategy"]["name"], pruner_name(study)])),
        ago(time.time() - study.updated),
        " ".join(study.tags),
    ]


def trials_text(study: StudySummary) -> str:
    """``40/64``: final trials, of all that are planned where that is known."""
    done = sum(count for state, count in study.counts.items() if state.final)
    planned = study.spec.get("n_trials")
    if planned is None:
        return str(done)
    return f"{done}/{planned + len(study.spec.get('baselines', ()))}"


def counts_text(counts: dict[State, int]) -> str:
    """``running 2 · complete 40 · failed 1``: the states that there are, in the order of a run's life."""
    return " · ".join(f"{state} {counts[state]}" for state in State if counts.get(state))


def summary_json(study: StudySummary) -> dict[str, Any]:
    """A study as ``--json`` gives it."""
    best = study.best
    return {
        "study": study.name,
        "state": study.state,
        "reason": study.reason,
        "strategy": study.spec["strategy"]["name"],
        "pruner": pruner_name(study) or None,
        "metric": study.spec["metric"],
        "direction": study.spec["direction"],
        "seeds": study.spec["seeds"],
        "n_trials": study.spec.get("n_trials"),
        "trials": {str(state): count for state, count in study.counts.items()},
        "best": {"trial": best[0], "value": best[1], "sd": best[2]} if best else None,
        "created": study.created,
        "updated": study.updated,
        "seconds": study.seconds,
        "holder": study.holder,
        "file": study.file,
        "fenced": study.fenced,
        "tags": list(study.tags),
    }
