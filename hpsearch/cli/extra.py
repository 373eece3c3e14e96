"""``hpsearch rerun`` with ``--add-seeds`` or ``--failed``: extra runs, which are recorded."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from hpsearch import shapes
from hpsearch.address import Address, run_of, study_of, trial_of
from hpsearch.archive import Archive, StudySummary
from hpsearch.cli.resume import stored_study_of
from hpsearch.cli.run import How
from hpsearch.cli.settings import Common
from hpsearch.cli.terminal import INTERVAL, interval_text, number, out_json, print_table, say
from hpsearch.errors import UsageError
from hpsearch.trial import Direction, Run, RunKey, State, Trial, best_trials

if TYPE_CHECKING:
    from hpsearch.extra import Gained
    from hpsearch.launch import Place
    from hpsearch.repeat import Repeated
    from hpsearch.study import Study
    from hpsearch.verdict import Spread

    Make = Callable[[Study, Place], Repeated]

#: runs without a value that are named
NAMED = 8
#: what of an extra run counts, and where
COUNTS = (
    "a trial's state and value stay those of its search, for its strategy went on with them; compare, show and export "
    "see these runs"
)


def add_seeds(archive: Archive, addresses: Sequence[Address], n: int, how: How, common: Common) -> int:
    """Train the trials with ``n`` further seeds and say what they are worth before and after; the exit code.

    Raises:
        UsageError: a run is named, or a study without a complete trial.
    """
    from hpsearch.repeat import add_seeds as add

    wanted = []
    for summary, named in _by_study(archive, addresses):
        trials = [_trial(archive, summary, address, n) for address in named]
        wanted.append((summary, lambda study, place, trials=trials: add(study, archive, place, trials, n)))
    return _make(archive, wanted, how, common)


def repeat_failed(archive: Archive, addresses: Sequence[Address], how: How, common: Common) -> int:
    """Train the failed runs once more and say how they ended; the exit code.

    Raises:
        UsageError: a run is named that has not failed, or whose trial has not ended.
    """
    from hpsearch.repeat import repeat_failed as repeat

    wanted = []
    for summary, named in _by_study(archive, addresses):
        runs = [key for address in named for key in _runs(archive, summary, address, quiet=common.quiet)]
        wanted.append((summary, lambda study, place, runs=runs: repeat(study, archive, place, runs)))
    return _make(archive, wanted, how, common)


def _by_study(archive: Archive, addresses: Sequence[Address]) -> list[tuple[StudySummary, list[Address]]]:
    found: dict[str, tuple[StudySummary, list[Address]]] = {}
    for address in addresses:
        study = study_of(archive, address.study)
        found.setdefault(study.name, (study, []))[1].append(address)
    return list(found.values())


def _trial(archive: Archive, summary: StudySummary, address: Address, n: int) -> int:
    """The trial that is meant; of a study its best one."""
    name = summary.name
    if address.seed is not None:
        hint = f"hpsearch rerun {name}/{address.trial} --add-seeds {n}"
        raise UsageError(f"{name}/{address.trial}/{address.seed} is a run; seeds are added to a trial", hint=hint)
    if address.trial is not None:
        return trial_of(archive, name, address.trial).number
    best = best_trials(archive.trials(name), Direction(summary.spec["direction"]), 1)
    if not best:
        hint = f"name one: hpsearch rerun {name}/0 --add-seeds {n}"
        raise UsageError(f"no trial of {name} is complete, so there is no best one", hint=hint)
    return best[0].number


def _runs(archive: Archive, summary: StudySummary, address: Address, *, quiet: bool) -> list[RunKey]:
    """All runs that are meant, whether they have failed or not."""
    name = summary.name
    trials = archive.trials(name) if address.trial is None else [trial_of(archive, name, address.trial)]
    left = [trial for trial in trials if not trial.state.final]
    if left and address.trial is not None:
        hint = f"hpsearch resume {name} ends it"
        raise UsageError(f"{name}/{address.trial} has not ended ({left[0].state})", hint=hint)
    if left and not quiet:
        say(f"{name}: {len(left)} of {len(trials)} trials left out: not ended")
    if address.seed is None:
        return [run.key for trial in trials for run in trial.runs]
    run = run_of(name, trials[0], address)
    if run.state is not State.FAILED:
        raise UsageError(f"{name}/{run.key} has not failed ({run.state})", hint=f"hpsearch rerun {name} --failed")
    return [run.key]


def _make(archive: Archive, wanted: Sequence[tuple[StudySummary, Make]], how: How, common: Common) -> int:
    """Make the runs study by study, until one is interrupted."""
    from hpsearch.cli.live import display
    from hpsearch.launch import Place

    options, found = how.options(), list[tuple[StudySummary, "Repeated"]]()
    for summary, make in wanted:
        study = stored_study_of(summary, quiet=common.quiet)
        if not common.quiet:
            _say_under_way(archive, summary)
        with redirect_stdout(sys.stderr), display("none" if common.quiet else how.progress) as watcher:
            place = Place(db=common.database, observer=watcher, tell=watcher.tell, signals=True, **options)
            done = make(study, place)
        found.append((summary, done))
        if not common.json:
            _show(summary, done, quiet=common.quiet)
        if not done.over:
            break
    if common.json:
        out_json({"studies": [shapes.repeated(summary.name, done) for summary, done in found]})
    last = found[-1][1]
    if not last.over and last.outcome:
        if not common.quiet:
            say("next: the same command goes on")
        return last.outcome.exit_code or 4
    runs = [run for _, done in found for request in done.requests for run in done.runs(request)]
    return 0 if not runs or any(run.state in (State.COMPLETE, State.DIVERGED) for run in runs) else 4


def _say_under_way(archive: Archive, summary: StudySummary) -> None:
    from hpsearch.extra import under_way

    last = under_way(archive.trials(summary.name), archive.decisions(summary.name))
    if last:
        words = f"{summary.name}: goes on with what was interrupted: {last.words}"
        say(textwrap.fill(words, 80, subsequent_indent="  ", break_on_hyphens=False))


def _show(summary: StudySummary, done: Repeated, *, quiet: bool) -> None:
    from hpsearch.extra import gained

    metric = summary.spec["metric"]
    if not done.requests and not quiet:
        say(f"{summary.name}: no failed run is left to repeat")
    for request in done.requests:
        if not quiet:
            words = f"{summary.name}: {request.words}"
            say(textwrap.fill(words, 80, subsequent_indent="  ", break_on_hyphens=False), style="dim")
        runs = done.runs(request)
        if request.what == "failed":
            print_table(["run", "state", metric, "it was"], [_row(summary, run, done.trials) for run in runs], keep=3)
        else:
            rows = [row for n in request.trials for row in _rows(gained(done.trials[n], request))]
            print_table(["trial", "seeds", metric, INTERVAL, "n"], rows, keep=5)
        bad = [run for run in runs if run.state is not State.COMPLETE]
        for run in bad[:NAMED]:
            words = f"{summary.name}/{run.key} {run.state}: {run.reason}" if run.reason else f"{run.key} {run.state}"
            say(textwrap.fill(words, 80, subsequent_indent="  ", break_on_hyphens=False))
        if len(bad) > NAMED:
            say(f"{len(bad) - NAMED} more without a value: hpsearch show {summary.name}/{bad[NAMED].key.trial}")
    if done.requests and done.over and not quiet:
        say(textwrap.fill(f"note: {COUNTS}", 80, subsequent_indent="  "), style="dim")


def _row(summary: StudySummary, run: Run, trials: Sequence[Trial]) -> list[str]:
    former = next(one for one in trials[run.key.trial].runs if one.key == run.key._replace(repeat=run.key.repeat - 1))
    return [f"{summary.name}/{run.key}", str(run.state), number(run.value), f"{former.state}: {former.reason}"]


def _rows(found: Gained) -> list[list[str]]:
    """Three lines: before, the further seeds alone, all of them now."""
    spreads = {"before": found.before, "new": found.new, "now": found.now}
    return [
        [f"#{found.trial.number}" if name == "before" else "", name, _mean(s), interval_text(s), str(s.n)]
        for name, s in spreads.items()
    ]


def _mean(found: Spread) -> str:
    if found.diverged:
        return f"{found.diverged} diverged"
    return number(found.mean) if found.sd is None else f"{number(found.mean)} ± {number(found.sd, 2)}"
