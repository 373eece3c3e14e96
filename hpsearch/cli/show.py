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
    INTERVAL,
    duration,
    interval_text,
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
from hpsearch.trial import Direction, Run, Stage, State, Trial, best_trials
from hpsearch.written import redacted

#: best trials and failures of a study that are shown
TOP = 5


def show(
    address: str,
    /,
    *,
    yaml: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    command: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    python: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Show a study (its best trials, decisions, failures), a trial (its runs and curves), or a run (all there is).

    Args:
        address: study, study/trial or study/trial/seed.
        yaml: A study file instead: the study's own, or one that trains this trial's setting again.
        command: Of a trial or a run, the command instead that trains it again and compares it with the record.
        python: Of a trial or a run, Python instead that trains it again without the record, and prints its values.
    """
    from hpsearch.stores.sql import open_archive

    archive, wanted = open_archive(common.database), parse(address)
    study = study_of(archive, wanted.study)
    forms = [f"--{name}" for name, given in [("yaml", yaml), ("command", command), ("python", python)] if given]
    if len(forms) > 1:
        raise UsageError(f"{' and '.join(forms)}: one at a time", hint=f"hpsearch show {address} {forms[0]}")
    if wanted.trial is None and (command or python):
        raise UsageError(
            f"{forms[0]} is of a trial or a run, and {study.name} is a study",
            hint=f"hpsearch show {study.name}/0 {forms[0]}; hpsearch best {study.name} names the best",
        )
    if wanted.trial is None:
        trials = archive.trials(study.name)
        if yaml:
            print(_own_text(study), end="")
        elif common.json:
            best = next(iter(best_trials(trials, Direction(study.spec["direction"]), 1)), None)
            decisions = [shapes.decision(decision) for decision in archive.decisions(study.name)]
            out_json(shapes.whole_study(study, best) | {"decisions": decisions})
        else:
            _show_study(study, trials, archive.decisions(study.name))
        return
    trial = trial_of(archive, study.name, wanted.trial)
    if yaml:
        from hpsearch.reproduce import recipe

        print(recipe(study, trial), end="")
        return
    run = None if wanted.seed is None else run_of(study.name, trial, wanted)
    if command or python:
        _print_again(study, trial, run, common, forms[0].removeprefix("--"))
        return
    curves = archive.curves(study.name, [trial.number])
    if common.json:
        db = _shown_db(common)
        out_json(shapes.whole_trial(study, trial, curves, db=db, only=run, curves=True))
    elif run is None:
        _show_trial(study, trial, curves)
    else:
        _show_run(study, trial, run, [curve for curve in curves if curve.run == run.key], archive)


def _print_again(study: StudySummary, trial: Trial, run: Run | None, common: Common, form: str) -> None:
    """How it is trained again: as a command, or as Python."""
    from hpsearch import reproduce

    if form == "python":
        text = reproduce.snippet(study, trial, run)
    else:
        text = reproduce.command(study, trial, run, db=_shown_db(common))
    if common.json:
        out_json({"study": study.name, "trial": trial.number, form: text})
    else:
        print(text, end="")


def _shown_db(common: Common) -> str:
    """The database's address for a command that is typed again: without a password, from any folder."""
    from hpsearch.stores.sql.engine import parse as database
    from hpsearch.stores.sql.engine import portable

    return portable(database(common.database))


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
            out(redacted(f"  {study.name}/{run.key}  {run.reason}  {_last_line(run.error)}".rstrip()))
        if len(failed) > TOP:
            out(f"  {len(failed) - TOP} more")
    _show_said(study, Address(study=study.name))


def print_trials(trials: list[Trial], metric: str) -> None:
    """A ranked table: number, value, spread, seeds, interval, the params that differ (all of them for one trial)."""
    from hpsearch.compare import param_differences
    from hpsearch.verdict import spread

    varied = [row.name for row in param_differences(trials)] if len(trials) > 1 else list(trials[0].params)
    spreads = [spread(list(trial.values().values())) for trial in trials]
    known = any(found.low is not None for found in spreads)
    heads = ["trial", metric, "± sd", "n", *[INTERVAL] * known, *varied]
    rows = [
        [
            f"#{trial.number}",
            number(trial.value),
            "" if trial.sd is None else number(trial.sd, 2),
            str(sum(run.value is not None for run in trial.search_runs)),
            *[interval_text(found)] * known,
            *(setting_text(trial.params.get(name)) for name in varied),
        ]
        for trial, found in zip(trials, spreads, strict=True)
    ]
    print_table(heads, rows, keep=2)


def _show_trial(study: StudySummary, trial: Trial, curves: list[Curve]) -> None:
    from hpsearch.verdict import spread

    metric = study.spec["metric"]
    ends = interval_text(spread(list(trial.values().values()))) if trial.state is State.COMPLETE else ""
    _fields(
        {
            "trial": f"{study.name}/{trial.number}" + (" (baseline)" if trial.baseline else ""),
            "state": str(trial.state),
            metric: spread_text(trial) + (f"   {INTERVAL} {ends}" if ends else ""),
            "batch": str(trial.batch),
        }
    )
    _params(trial)
    _show_said(study, Address(study=study.name, trial=trial.number))
    lines = {curve.run: spark(curve.values) for curve in curves if curve.metric == metric}
    # A seed that is not of the search says so: the trial's value is not about it.
    staged = any(run.stage is not Stage.SEARCH for run in trial.runs)
    heads = ["seed", *["stage"] * staged, metric, "best epoch", "state", "time", "attempts", f"{metric} over epochs"]
    rows = [
        [
            str(run.key).partition("/")[2],
            *[str(run.stage)] * staged,
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
    print_table(heads, rows, keep=3)
    for run in trial.runs:
        if run.reason or run.error:
            out(redacted(f"\n{study.name}/{run.key} {run.state}: {run.reason}"), style="bold")
            if run.error:
                out(redacted(run.error.rstrip()))


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
            "data": machine.data if machine else "",
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
        out(f"\n{redacted(run.error.rstrip())}")


def _params(trial: Trial) -> None:
    out(f"{'params':10}{params_text(trial.params, 6)}")


def _fields(lines: dict[str, str]) -> None:
    size = max(10, *(len(name) + 2 for name in lines))
    for name, text in lines.items():
        if text:
            out(redacted(f"{name:{size}}{text}"))


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
                out(f"{kind} {address}: {redacted(text)}")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
