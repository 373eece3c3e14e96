"""``hpsearch run``."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

from cyclopts import Group, Parameter

from hpsearch import shapes
from hpsearch.cli.plan import overrides
from hpsearch.cli.settings import COMMON, Common, device, fusing, workers
from hpsearch.cli.terminal import ask, duration, interactive, number, out, out_json, params_text, say
from hpsearch.errors import ExecutorError, UsageError
from hpsearch.trial import State

if TYPE_CHECKING:
    from hpsearch.executors.ray import ClusterOptions
    from hpsearch.launch import Outcome
    from hpsearch.study import Study

CHANGES = Group("Changes to the study file", sort_key=1)
HOW = Group("How it runs", sort_key=2)
RAY_CLUSTER = Group("On a Ray cluster", sort_key=3)


@Parameter(name="*", group=RAY_CLUSTER)
@final
@dataclass(frozen=True, kw_only=True)
class RayFlags:
    """With ``--on ray``: which cluster, and how much of it a worker has."""

    ray_address: Annotated[
        str | None,
        Parameter(help="auto (the one that runs here), HOST:PORT or ray://...; else RAY_ADDRESS, else start one here."),
    ] = None
    gpus_per_worker: Annotated[
        float | None, Parameter(help="1, 0.25 ...; default: one GPU where the cluster has any.")
    ] = None
    cpus_per_worker: Annotated[float | None, Parameter(help="CPUs that a worker takes; default: 1.")] = None
    py_modules: Annotated[
        list[Path] | None,
        Parameter(negative="", help="A package's folder that travels with the study's; may be given again."),
    ] = None

    def options(self, on: str) -> ClusterOptions | None:
        """As ``launch.run`` takes them.

        Raises:
            UsageError: they are given without ``--on ray``, or cannot be.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        if on != "ray":
            if given:
                flag = "--" + next(iter(given)).replace("_", "-")
                raise UsageError(f"{flag} is of Ray's workers, and they are {on}", hint=f"--on ray {flag} ...")
            return None
        from hpsearch.executors.ray import ClusterOptions

        try:
            return ClusterOptions(
                address=self.ray_address,
                gpus_per_worker=self.gpus_per_worker,
                cpus_per_worker=1.0 if self.cpus_per_worker is None else self.cpus_per_worker,
                py_modules=tuple(self.py_modules or ()),
            )
        except ExecutorError as error:
            raise UsageError(str(error)) from None


RAY = RayFlags()


@Parameter(name="*", group=HOW)
@final
@dataclass(frozen=True, kw_only=True)
class How:
    """What ``run`` and ``resume`` can be told about where and how, which changes no trial."""

    workers: Annotated[
        str | None, Parameter(help="Workers; auto: one a GPU, or one a core; on Ray as many as the cluster holds.")
    ] = None
    on: Annotated[
        Literal["local", "ray", "inline"],
        Parameter(help="local: worker processes; ray: a Ray cluster; inline: this process, for debugging."),
    ] = "local"
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1 ...")] = None
    ray: RayFlags = RAY
    fuse: Annotated[
        str, Parameter(help="How many runs of a TrainingTask a worker trains together: a number, auto or off.")
    ] = "auto"
    files: Annotated[
        Path | None,
        Parameter(help="The folder of STUDY/, its logs and checkpoints; else HPSEARCH_FILES, else hpsearch-files."),
    ] = None
    grace: Annotated[str, Parameter(help="How long the first Ctrl-C lets runs in flight finish.")] = "30s"
    allow_changed_code: Annotated[
        bool, Parameter(negative="", show_default=False, help="Go on though the training code has changed.")
    ] = False
    progress: Annotated[
        Literal["auto", "live", "log", "none"],
        Parameter(help="live: redrawn; log: lines; auto: live on a terminal."),
    ] = "auto"

    def options(self) -> dict[str, Any]:
        """As ``launch.run`` takes them.

        Raises:
            UsageError: workers, fuse or grace cannot be.
        """
        return {
            "workers": workers(self.workers),
            "on": self.on,
            "device": device(self.device),
            "cluster": self.ray.options(self.on),
            "fuse": fusing(self.fuse),
            "files": self.files,
            "grace_s": seconds("--grace", self.grace),
            "allow_changed_code": self.allow_changed_code,
        }


HERE = How()


def run(
    file: Path,
    /,
    *,
    n_trials: Annotated[str | None, Parameter(name=["--n-trials", "-n"], group=CHANGES)] = None,
    budget: Annotated[str | None, Parameter(group=CHANGES)] = None,
    seeds: Annotated[str | None, Parameter(group=CHANGES)] = None,
    seed: Annotated[str | None, Parameter(group=CHANGES)] = None,
    name: Annotated[str | None, Parameter(group=CHANGES)] = None,
    tag: Annotated[list[str] | None, Parameter(negative="", group=CHANGES)] = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="", group=CHANGES)] = None,
    extend: Annotated[bool, Parameter(negative="", show_default=False, group=CHANGES)] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="", show_default=False, group=HOW)] = False,
    dashboard: Annotated[bool, Parameter(negative="", show_default=False, group=HOW)] = False,
    how: How = HERE,
    common: Common = COMMON,
) -> int:
    """Run a study to its end. The same command again goes on where it stopped.

    Ctrl-C once finishes the runs in flight and stops, twice stops now. Where stdout is no terminal, the study's name
    is printed to it.

    Args:
        file: The study file.
        n_trials: So many trials.
        budget: So much time: 2h, 90m, 1h30m.
        seeds: Seeds of every trial: a number, or a list [0, 1, 2].
        seed: Seed of the search and of the data split.
        name: Another name.
        tag: A further tag; may be given again.
        set_: Any field: --set search_space.lr.points=5; may be given again.
        extend: The study may have a larger budget than it was stored with.
        yes: Ask nothing.
        dashboard: Show it in a browser meanwhile; the address is printed.
    """
    from hpsearch.read import read_study

    given = {"n_trials": n_trials, "budget": budget, "seeds": seeds, "seed": seed}
    changes = {field: value for field, value in given.items() if value is not None} | overrides(set_)
    study = read_study(file, changes)
    study = _renamed(study, name, tag)
    return start(study, common, how, confirm=not yes, extend=extend, dashboard=dashboard)


def _renamed(study: Study, name: str | None, tags: list[str] | None) -> Study:
    return replace(study, name=name or study.name, tags=tuple(dict.fromkeys([*study.tags, *(tags or [])])))


def seconds(option: str, text: str) -> float:
    """``30s``, ``5m``, ``2h`` or a number of seconds.

    Raises:
        UsageError: it is none.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    digits, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        value = float(digits) * unit
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{option}: {text!r} is no time", hint=f"{option} 30s")
    return value


def start(
    study: Study, common: Common, how: How, *, confirm: bool, extend: bool = False, dashboard: bool = False
) -> int:
    """Run a study, show its progress and its end, and return the exit code."""
    from hpsearch import launch
    from hpsearch.cli.live import display
    from hpsearch.plan import plan

    options = how.options()
    planned, url = plan(study, 0), common.database
    for note in planned.notes:
        say(f"note: {note}", style="yellow")
    if planned.notes and confirm and interactive() and not ask("Run it all the same?"):
        say("nothing was run")
        return 2
    if not common.quiet:
        trials = "trials until the budget ends" if planned.trials is None else f"{planned.trials:,} trials"
        count = len(study.seeds)
        chosen = study.strategy.name + (f" + {study.pruner.name}" if study.pruner else "")
        say(f"study {study.name}   {chosen}, {trials} x {count} seed{'s' * (count > 1)}, seed {study.seed}")
        say(f"db {_redacted(url)}   metric {study.metric}, {study.direction}", style="dim")
        if note := _no_fusing(study, options["fuse"]):
            say(f"note: {note}", style="yellow")
    # What training code prints in this process (--on inline) is no result of ours.
    quiet = "none" if common.quiet else how.progress
    with _beside(url, dashboard), redirect_stdout(sys.stderr), display(quiet) as watcher:
        outcome = launch.run(study, db=url, observer=watcher, tell=watcher.tell, signals=True, extend=extend, **options)
    if not common.quiet:
        _summary(outcome, _unheard(study, url, outcome))
    if common.json:
        out_json(shapes.outcome(outcome.study, outcome.state, outcome.reason, outcome.progress))
    else:
        _name(outcome.study)
    return outcome.exit_code


@contextmanager
def _beside(url: str, wanted: bool) -> Iterator[None]:
    """A dashboard as long as the study runs, where one is wanted."""
    if not wanted:
        yield
        return
    from hpsearch.cli.dashboard import beside

    with beside(url) as address:
        say(f"dashboard {address}")
        yield


def _no_fusing(study: Study, fuse: int | str) -> str:
    """Why a number of runs that was asked for does not train together; empty where it does."""
    from hpsearch.declaration import is_function

    if fuse in ("auto", "off", 1):
        return ""
    if study.isolate:
        return f"--fuse {fuse} does nothing: isolate gives each run a process of its own"
    if is_function(study.objective):
        return f"--fuse {fuse} does nothing: {study.objective.name} is a function, only a TrainingTask can be fused"
    return ""


def _name(study: str) -> None:
    if not sys.stdout.isatty():
        out(study)


def _redacted(url: str) -> str:
    from hpsearch.stores.sql.engine import parse, redacted

    return redacted(parse(url))


def _unheard(study: Study, url: str, outcome: Outcome) -> str:
    """Why its pruner has left nothing, where that is known."""
    from hpsearch.cohort import unheard
    from hpsearch.stores.sql import open_archive
    from hpsearch.study import spec_of

    counts = outcome.progress.counts
    if not counts.get(State.PRUNED) or sum(counts.values()) - counts[State.PRUNED] > len(study.baselines):
        return ""
    return unheard(open_archive(url).trials(study.name), spec_of(study))


def _summary(outcome: Outcome, note: str) -> None:
    progress = outcome.progress
    counts = ", ".join(f"{count} {state}" for state, count in progress.counts.items())
    mark = "✓" if outcome.state == "complete" and progress.best else "✗"
    reason = f" ({outcome.reason})" if outcome.reason else ""
    ending = f"{mark} {outcome.state}{reason}: {counts or 'no trial'} in {duration(progress.seconds)}"
    for line in ending.splitlines():
        say(textwrap.fill(line, 80, subsequent_indent="  "))
    if progress.best:
        best = progress.best[0]
        spread = "" if best.sd is None else f" ± {number(best.sd, 2)}"
        n = len(progress.seeds)
        baseline = ", the baseline" if best.baseline else ""
        say(f"best #{best.number}  {progress.metric} {number(best.value)}{spread} ({n} seed{'s' * (n > 1)}){baseline}")
        say(f"  {params_text(best.params)}")
    if note:
        say(textwrap.fill(f"note: {note}", 80, subsequent_indent="  "), style="yellow")
    if outcome.state == "complete":
        if not progress.best and progress.failures:
            say(f"next: hpsearch show {outcome.study}/{progress.failures[-1][0]}   says how it failed")
        else:
            say(f"next: hpsearch {'show' if progress.best else 'status'} {outcome.study}")
    else:
        say(f"next: hpsearch resume {outcome.study}")
