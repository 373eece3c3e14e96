"""``hpsearch status``."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.address import study_of
from hpsearch.archive import Archive, StudySummary
from hpsearch.cli.list import counts_text, list_, trials_text
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import ago, clip, duration, number, out, out_json, say, width
from hpsearch.cohort import unheard
from hpsearch.trial import Run, State

#: seconds between two looks
WATCH_S = 1.0
#: so many running runs are named
NAMED = 8


def status(
    study: str | None = None,
    /,
    *,
    watch: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Say how far a study is; without a name, the studies that are running.

    Args:
        study: A study's name, or its beginning.
        watch: Look again every second until nothing runs; a line for each change.
    """
    from hpsearch.stores.sql import open_archive

    archive = open_archive(common.database)
    if study is None and not any(s.state == "running" for s in archive.studies()) and not common.json:
        say("nothing is running; hpsearch list has all studies")
        return
    if study is None and not watch:
        list_(state=["running"], common=common)
        return
    names = [study_of(archive, study).name] if study is not None else None
    seen: dict[str, int] = {}
    while True:
        studies = [archive.study(name) for name in names] if names else archive.studies()
        studies = [s for s in studies if names or s.state == "running" or s.name in seen]
        for summary in studies:
            if seen.get(summary.name) != summary.rev:
                _print(archive, summary, json=common.json, short=watch)
            seen[summary.name] = summary.rev
        if not watch or not any(s.state == "running" for s in studies):
            return
        time.sleep(WATCH_S)


def _print(archive: Archive, study: StudySummary, *, json: bool, short: bool) -> None:
    best = "" if study.best is None else f"#{study.best[0]} {study.spec['metric']} {number(study.best[1])}"
    counts = counts_text(dict(study.counts))
    if json:
        out_json(shapes.study(study))
        return
    if short:
        line = "   ".join(
            word for word in (study.name, study.state, trials_text(study), counts, best and f"best {best}") if word
        )
        out(clip(line, width()))
        return
    trials = archive.trials(study.name)
    running = [run for trial in trials for run in trial.runs if run.state is State.RUNNING]
    lines = {
        "study": study.name,
        "state": f"{study.state}, {study.reason}" if study.reason else study.state,
        "held by": study.holder,
        "trials": f"{trials_text(study)}   {counts}",
        "best": best,
        "time": f"{duration(study.seconds)}, changed {ago(time.time() - study.updated)}",
        "running": _running(running),
        "note": unheard(trials, study.spec),
        "refused": f"{study.fenced} late reports" if study.fenced else "",
    }
    for name, text in lines.items():
        if text:
            out(f"{name:9}{text}")


def _running(runs: list[Run]) -> str:
    now = time.time()
    longest = sorted(runs, key=lambda run: run.started or now)
    texts = [f"{run.key} since {duration(now - (run.started or now))}" for run in longest[:NAMED]]
    return ", ".join(texts) + (f", {len(runs) - NAMED} more" if len(runs) > NAMED else "")
