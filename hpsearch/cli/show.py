"""``hpsearch show``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.address import Address, parse, run_of, study_of, trial_of
from hpsearch.archive import Archive, Curve, StudySummary
from hpsearch.cli.list import counts_text, trials_text
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import (
    duration,
    number,
    out,
    out_json,
    params_text,
    print_table,
    setting_text,
    spark,
    spread_text,
)
from hpsearch.errors import UsageError
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Run, State, Trial, best_trials

#: best trials and failures of a study that are shown
TOP = 5


def show(
    address: str,
    /,
    *,
    yaml: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Show a study (its best trials, decisions, failures), a trial (its runs and curves), or a run (all there is).

    Args:
        address: study, study/trial or study/trial/seed.
        yaml: A study file instead: the study's own, or one that trains this trial's setting again.
    """
    from hpsearch.stores.sql import open_archive

    archive, wanted = open_archive(common.database), parse(address)
    study = study_of(archive, wanted.study)
    if wanted.trial is None:
        trials = archive.trials(study.name)
        if yaml:
            print(_own_text(study), end="")
        elif common.json:
            out_json(shapes.study(study) | {"decisions": [shapes.decision(d) for d in archive.decisions(study.name)]})
        else:
            _show_study(study, trials, archive.decisions(study.name))
        return
    trial = trial_of(archive, study.name, wanted.trial)
    if yaml:
        from hpsearch.cli.recipe import recipe

        print(recipe(study, trial), end="")
        return
    run = None if wanted.seed is None else run_of(study.name, trial, wanted)
    curves = [c for c in archive.curves(study.name, [trial.number]) if run is None or c.run == run.key]
    if common.json:
        out_json({"study": study.name, **shapes.trial(trial, curves, only=run)})
    elif run is None:
        _show_trial(study, trial, curves)
    else:
        _show_run(study, trial, run, curves, archive)


def _own_text(study: StudySummary) -> str:
    if not study.text:
        raise UsageError(
            f"{study.name} was not read from a study file", hint=f"hpsearch show {study.name} --json has its spec"
        )
    return study.text if study.text.endswith("\n") else f"{study.text}\n"


def _show_study(study: StudySummary, trials: list[Trial], decisions: list[Decision]) -> None:
    spec = study.spec
    _fields(
        {
            "study": study.name,
            "state": f"{study.state}, {study.reason}" if study.reason else study.state,
            "held by": study.holder,
            "file": study.file,
            "strategy": str(spec["strategy"]["name"]),
            "pruner": shapes.pruner_name(study) or "",
            "metric": f"{spec['metric']}, {spec['direction']}",
            "seeds": ", ".join(map(str, spec["seeds"])),
            "trials": f"{trials_text(study)}   {counts_text(dict(study.counts))}",
            "time": duration(study.seconds),
            "tags": " ".join(study.tags),
        }
    )
    best = best_trials(trials, Direction(spec["direction"]), TOP)
    if best:
        out()
        print_trials(best, spec["metric"])
    if decisions:
        out("\ndecisions", style="bold")
        for line in decision_lines(decisions):
            out(f"  {line}")
    failed = [run for trial in trials for run in trial.runs if run.state is State.FAILED]
    if failed:
        out("\nfailed", style="bold")
        for run in failed[-TOP:]:
            out(f"  {study.name}/{run.key}  {run.reason}  {_last_line(run.error)}".rstrip())
        if len(failed) > TOP:
            out(f"  {len(failed) - TOP} more")
    _show_said(study, Address(study=study.name))


def print_trials(trials: list[Trial], metric: str) -> None:
    """A ranked table: number, value, spread, seeds, and the params that differ (all of them for one trial)."""
    from hpsearch.compare import param_differences

    varied = [row.name for row in param_differences(trials)] if len(trials) > 1 else list(trials[0].params)
    heads = ["trial", metric, "± sd", "n", *varied]
    rows = [
        [
            f"#{trial.number}",
            number(trial.value),
            "" if trial.sd is None else number(trial.sd, 2),
            str(sum(run.value is not None for run in trial.search_runs)),
            *(setting_text(trial.params.get(name)) for name in varied),
        ]
        for trial in trials
    ]
    print_table(heads, rows, keep=2)


def _show_trial(study: StudySummary, trial: Trial, curves: list[Curve]) -> None:
    metric = study.spec["metric"]
    _fields(
        {
            "trial": f"{study.name}/{trial.number}" + (" (baseline)" if trial.baseline else ""),
            "state": str(trial.state),
            metric: spread_text(trial),
            "batch": str(trial.batch),
        }
    )
    _params(trial)
    _show_said(study, Address(study=study.name, trial=trial.number))
    lines = {curve.run: spark(curve.values) for curve in curves if curve.metric == metric}
    heads = ["seed", metric, "best epoch", "state", "time", "attempts", f"{metric} over epochs"]
    rows = [
        [
            str(run.key).partition("/")[2],
            number(run.value),
            "" if run.best_epoch is None else str(run.best_epoch),
            str(run.state),
            duration(run.seconds),
            str(run.attempt),
            lines.get(run.key, ""),
        ]
        for run in trial.runs
    ]
    out()
    print_table(heads, rows, keep=2)
    for run in trial.runs:
        if run.reason or run.error:
            out(f"\n{study.name}/{run.key} {run.state}: {run.reason}", style="bold")
            if run.error:
                out(run.error.rstrip())


def _show_run(study: StudySummary, trial: Trial, run: Run, curves: list[Curve], archive: Archive) -> None:
    machine = run.environment
    commit = f"{machine.git_commit[:12]}{' (changed)' * machine.git_dirty}" if machine and machine.git_commit else ""
    _fields(
        {
            "run": f"{study.name}/{run.key}",
            "state": f"{run.state}, {run.reason}" if run.reason else str(run.state),
            study.spec["metric"]: number(run.value, 6),
            "epochs": "" if run.last_epoch is None else f"best {run.best_epoch}, last {run.last_epoch}",
            "time": duration(run.seconds),
            "attempts": str(run.attempt),
            "worker": run.worker,
            "device": machine.device if machine else "",
            "machine": machine.machine if machine else "",
            "python": f"{machine.python}, torch {machine.torch}" if machine else "",
            "commit": commit,
        }
    )
    _params(trial)
    _show_said(study, Address(study=study.name, trial=trial.number, seed=run.key.seed, repeat=run.key.repeat))
    if curves:
        out()
        rows = [[c.metric, number(c.values[0]), number(c.values[-1]), spark(c.values, 32)] for c in curves if c.values]
        print_table(["metric", "first", "last", "over epochs"], rows, keep=3)
    layers = archive.layers(study.name, run.key)
    if layers:
        epoch, norms = layers[-1]
        out(f"\nnorms in epoch {epoch}", style="bold")
        rows = [[name, number(gradient), number(weight)] for name, (gradient, weight) in norms.items()]
        print_table(["layer", "gradient", "weight"], rows)
    if run.error:
        out(f"\n{run.error.rstrip()}")


def _params(trial: Trial) -> None:
    out(f"{'params':10}{params_text(trial.params, 6)}")


def _fields(lines: dict[str, str]) -> None:
    size = max(10, *(len(name) + 2 for name in lines))
    for name, text in lines.items():
        if text:
            out(f"{name:{size}}{text}")


def decision_lines(decisions: Sequence[Decision]) -> Iterator[str]:
    """A line each; those taken together for one reason (a rung's) share one."""
    alike = groupby(decisions, key=lambda decision: (decision.batch, decision.kind, decision.reason))
    for (batch, kind, reason), group in alike:
        subjects = [decision.subject for decision in group]
        many = f"{len(subjects)} trials" if kind == "prune" and len(subjects) > 1 else ", ".join(subjects)
        yield f"after batch {batch}  {kind} {many}: {reason}"


def _show_said(study: StudySummary, about: Address) -> None:
    """The tags of what is shown or a part of it (the study's own aside), then the notes."""
    for kind, words in (("tag", study.trial_tags), ("note", study.notes)):
        for address, text in words:
            if address == str(about) or address.startswith(f"{about}/"):
                out(f"{kind} {address}: {text}")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
