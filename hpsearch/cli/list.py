"""``hpsearch list``."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.archive import StudySummary
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import INTERVAL, ago, interval_text, number, out_json, print_table, say
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
        out_json({"studies": [shapes.study(study) for study in studies]})
        return
    if not studies:
        if not common.quiet:
            say("no study fits" if state or tag else "no study yet; hpsearch init makes one")
        return
    heads = ["study", "state", "best", "± sd", "n", "metric", "trials", "strategy", "changed", INTERVAL, "tags"]
    print_table(heads, [_row(study) for study in studies])


def _row(study: StudySummary) -> list[str]:
    from hpsearch.verdict import by_moments

    best = study.best
    n = len(study.spec["seeds"])
    return [
        study.name,
        study.state,
        number(best[1] if best else None),
        number(best[2], 2) if best and best[2] is not None else "",
        str(n) if best else "",
        str(study.spec["metric"]),
        trials_text(study),
        " + ".join(filter(None, [study.spec["strategy"]["name"], shapes.pruner_name(study)])),
        ago(time.time() - study.updated),
        interval_text(by_moments(best[1], best[2], n)) if best else "",
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
