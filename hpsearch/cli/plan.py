"""``hpsearch plan``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hpsearch.cli.grouping import Grouping
from hpsearch.cli.settings import COMMON, Common, device, fusing, workers
from hpsearch.cli.terminal import duration, headed, out, out_json, params_text, print_table, say, setting_text
from hpsearch.errors import HpsearchError, UsageError

if TYPE_CHECKING:
    from hpsearch.plan import Measured, Plan, Pruning
    from hpsearch.pruner import Bracket, Pruner
    from hpsearch.study import Study


def plan(
    file: Path,
    /,
    *,
    show: int = 5,
    measure: bool = True,
    workers_: Annotated[int | None, Parameter(name="--workers")] = None,
    device_: Annotated[str | None, Parameter(name="--device")] = None,
    fuse: str = "auto",
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    common: Common = COMMON,
) -> None:
    """Check a study file and say what it will run: how many trials and runs, the first settings, what trains together
    and what alone, the time.

    The first runs are watched for some epochs in worker processes, for 20 s at most, on a CUDA device, where compiling
    takes some twenty seconds, for 90 s; nothing is recorded.

    Args:
        file: The study file.
        show: How many of the settings that the strategy chooses.
        measure: Try what trains together, and time an epoch. --no-measure starts no worker process.
        workers_: Worker processes that the estimate is for; default: one a CUDA device, or one a core.
        device_: auto, cpu, cuda, cuda:1 ...
        fuse: How many runs of a TrainingTask a worker trains together: a number, auto or off.
        set_: Change a field of the study file: --set search_space.lr.points=5; may be given again.
    """
    from hpsearch import plan as planning
    from hpsearch.launch import alone_because, lanes_of, workers_of
    from hpsearch.read import read_study

    if show < 0:
        raise UsageError(f"--show: {show} must be at least 0")
    where, fused = device(device_), fusing(fuse)
    study = read_study(file, overrides(set_))
    planned = planning.plan(study, show)
    count = workers_of(workers(workers_), where)
    how = {"device": where, "fuse": fused, "workers": count}
    measured, excuse = _measured(study, how, quiet=common.quiet or common.json) if measure else (None, "")
    seconds = planned.seconds(measured, count) if measured else None
    lanes = lanes_of(study, fused, where)[0]
    grouping = Grouping(
        study=study,
        runs=planned.runs,
        workers=count,
        measured=measured,
        alone=alone_because(study, fused) if measure and lanes == 1 else "",
        filling=planning.filling(study, measured, lanes, count) if measured else None,
    )
    if common.json:
        data = {**_json(study, planned, measured), **grouping.json(), "workers": count, "seconds": seconds}
        out_json({**data})
        return
    _print(study, planned)
    for line in grouping.lines():
        out(line)
    if measured is not None or excuse:
        out(headed("time", _time_text(measured, seconds, count) if measured else excuse))


def overrides(assignments: Sequence[str] | None) -> dict[str, object]:
    """``--set a.b=v`` as field and text.

    Raises:
        UsageError: no ``=`` in it.
    """
    found: dict[str, object] = {}
    for text in assignments or ():
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise UsageError(f"--set {text!r} is no assignment", hint="--set strategy=grid")
        found[field] = value
    return found


def _measured(study: Study, how: Mapping[str, Any], *, quiet: bool) -> tuple[Measured | None, str]:
    from hpsearch.attempt import measure_s
    from hpsearch.launch import measure

    if not quiet:
        say("trying the first runs ...", style="dim")
    try:
        measured = measure(study, **how)
    except HpsearchError as error:
        # A plan without a time is still a plan; `hpsearch try` shows the error in full.
        return None, f"unknown: {error}"
    why = f"unknown: no epoch within {measure_s(how['device']):g} s; hpsearch try {study.file} shows why"
    return measured, "" if measured else why


def _print(study: Study, planned: Plan) -> None:
    many = "until the budget ends" if planned.trials is None else f"{planned.trials:,}"
    baselines = f" ({len(planned.baselines)} baseline)" if planned.baselines else ""
    seeds = f"{len(study.seeds)} seed{'s' * (len(study.seeds) > 1)}"
    out(f"study     {study.name}")
    out(f"strategy  {study.strategy.name}, seed {study.seed}")
    out(f"metric    {study.metric}, {study.direction}")
    runs = "" if planned.runs is None else f" = {planned.runs:,} runs"
    out(f"trials    {many}{baselines} x {seeds}{runs}")
    if planned.pruning is not None and study.pruner is not None:
        # Asynchronously more may go on than the rule gives in the end.
        most = "about" if study.pruner.asynchronous else "at most"
        out(f"pruner    {study.pruner.name}, {_pruning_text(planned.pruning, most)}")
        for bracket, counts in zip(planned.pruning.brackets, planned.pruning.come, strict=True):
            out(f"          {_bracket_text(bracket, counts, most)}")
    if study.budget_s is not None:
        out(f"budget    {duration(study.budget_s)}")
    fixed = study.search_space.fixed
    if fixed:
        out(f"fixed     {params_text(fixed)}")
    names = list(study.search_space.searched)
    rows = [("baseline", setting) for setting in planned.baselines]
    rows += [(f"#{k}", setting) for k, setting in enumerate(planned.first, len(planned.baselines))]
    if rows:
        out()
        cells = [[head, *(setting_text(setting.get(name)) for name in names)] for head, setting in rows]
        print_table(["trial", *names], cells)
        out()
    for note in [*planned.notes, *(planned.pruning.notes if planned.pruning else ())]:
        say(f"note: {note}", style="yellow")


def _pruning_text(pruning: Pruning, most: str) -> str:
    """``3 cohorts of 27 trials: at most 891 epochs, 6,561 without it``."""
    count, trials = pruning.cohorts, f"{pruning.cohort:,} trial{'s' * (pruning.cohort > 1)}"
    text = f"cohorts of {trials}" if count is None else f"{count:,} cohort{'s' * (count > 1)} of {trials}"
    if pruning.epochs is None or pruning.full_epochs is None:
        return text
    each = " a cohort" * (count is None)
    return f"{text}: {most} {pruning.epochs:,} epochs{each}, {pruning.full_epochs:,} without it"


def _bracket_text(bracket: Bracket, counts: Sequence[int], most: str) -> str:
    """``81 trials, after epoch 1 at most 27, after 3 at most 9``."""
    trials = f"{bracket.trials:,} trial{'s' * (bracket.trials > 1)}"
    if not bracket.rungs:
        return f"{trials} to the end"
    if set(counts) == {bracket.trials}:
        return f"{trials}; some may stop after epoch {', '.join(map(str, bracket.rungs))}"
    first, *others = [f"{most} {n:,} after epoch {epoch:,}" for n, epoch in zip(counts[1:], bracket.rungs, strict=True)]
    return ", ".join([f"{trials}; {first}", *(text.removeprefix(f"{most} ").replace("epoch ", "") for text in others)])


def _time_text(measured: Measured, seconds: float | None, count: int) -> str:
    parts = [f"{measured.first_s:.1f} s to start a worker"]
    if measured.epoch_s is not None:
        epochs = f" x {measured.epochs}" if measured.epochs else ""
        lane = " and lane" * (measured.lanes > 1)
        parts.append(f"{measured.epoch_s:.3g} s an epoch{lane}{epochs}")
    elif measured.run_s is not None:
        parts.append(f"{measured.run_s:.3g} s a run")
    text = ", ".join(parts)
    return text if seconds is None else f"about {duration(seconds)} with {count} worker{'s' * (count > 1)} ({text})"


def _json(study: Study, planned: Plan, measured: Measured | None) -> dict[str, Any]:
    return {
        "study": study.name,
        "strategy": study.strategy.name,
        "metric": study.metric,
        "direction": study.direction,
        "seeds": study.seeds,
        "trials": planned.trials,
        "runs": planned.runs,
        "baselines": planned.baselines,
        "first": planned.first,
        "notes": planned.notes,
        "pruner": None
        if planned.pruning is None or study.pruner is None
        else _pruner_json(study.pruner, planned.pruning),
        "epoch_s": measured.epoch_s if measured else None,
        "run_s": measured.estimate_s if measured else None,
    }


def _pruner_json(pruner: Pruner | None, pruning: Pruning | None) -> dict[str, Any] | None:
    if pruner is None or pruning is None:
        return None
    brackets = [
        {"trials": bracket.trials, "rungs": bracket.rungs, "come": counts}
        for bracket, counts in zip(pruning.brackets, pruning.come, strict=True)
    ]
    sizes = {"cohort": pruning.cohort, "cohorts": pruning.cohorts}
    costs = {"epochs": pruning.epochs, "full_epochs": pruning.full_epochs}
    return {"name": pruner.name, **sizes, "brackets": brackets, **costs, "notes": pruning.notes}
