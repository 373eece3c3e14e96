"""Check the record against everything that must hold of it. Reads only; nothing is trained.

Rows first: what each study, trial, run and attempt must look like. Then its choices, once more (``choices.py``).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from hpsearch.audit import Attempt, Breach, Facts, Told, Verdict, in_json, same, some
from hpsearch.choices import check_races, check_rungs, check_suggestions
from hpsearch.extra import requests
from hpsearch.losses import LOSS_BUDGET, LOSS_BUDGETS, TOGETHER
from hpsearch.study import Study
from hpsearch.trial import Environment, Run, RunKey, Stage, State, Trial, score

#: a mean of the same numbers may differ by so much between versions of Python
ROUNDING = 1e-12


def verify(
    facts: Facts, study: Study | None, *, environment: Callable[[], Environment], code_hash: str = ""
) -> Verdict:
    """Check one study.

    Args:
        facts: what is recorded.
        study: of its spec; None where it cannot be made (its strategy is not known here): nothing is recomputed.
        environment: of this process; called only where a suggestion differs.
        code_hash: sha256 of the training code as it is now; empty where it is gone.
    """
    runs = [run for trial in facts.trials for run in trial.runs]
    verdict = Verdict(study=facts.name, trials=len(facts.trials), runs=len(runs))
    verdict.attempts = sum(len(found) for found in facts.attempts.values())
    _check_numbers(facts, verdict)
    for trial in facts.trials:
        _check_trial(facts, trial, verdict)
    for run in runs:
        _check_attempts(run, facts.attempts.get(run.key, ()), verdict)
        _check_ending(run, verdict)
    _check_rows(facts, {run.key: run for run in runs}, verdict)
    _check_beyond(facts, verdict)
    _check_lease(facts, verdict)
    if not verdict.breaches:
        check_races(facts, verdict, environment)
    if study is None:
        verdict.skipped.append("suggestions and decisions: the stored study cannot be made here")
    elif not verdict.breaches:
        check_suggestions(facts, study, verdict, environment)
        if study.pruner is not None:
            check_rungs(facts, study, verdict, changed=code_hash != facts.code_hash)
    else:
        # They follow from the results: one wrong number would be named a hundred times.
        verdict.skipped.append("suggestions and decisions: what they follow from does not hold")
    return verdict


# Trials


def _check_numbers(facts: Facts, verdict: Verdict) -> None:
    numbers = [trial.number for trial in facts.trials]
    if numbers != list(range(len(numbers))):
        missing = sorted(set(range(max(numbers) + 1)) - set(numbers))
        verdict.wrong("", "trial numbers", f"0 to {max(numbers)} without a gap", f"no trial {some(missing)}")
    told = sorted(trial.tell_seq for trial in facts.trials if trial.tell_seq is not None)
    if told != list(range(1, len(told) + 1)):
        wrong = sorted(set(told) ^ set(range(1, len(told) + 1)))
        verdict.wrong("", "order of ended trials", f"places 1 to {len(told)} without a gap", f"not so: {some(wrong)}")
    elif facts.tell_seq != len(told):
        verdict.wrong("", "order of ended trials", f"{len(told)} counted", f"{facts.tell_seq}")
    limit, baselines = facts.spec.get("n_trials"), facts.spec.get("baselines", [])
    if limit is not None and len(numbers) > limit + len(baselines):
        verdict.wrong("", "number of trials", f"at most {limit + len(baselines)}", f"{len(numbers)}")
    for trial in facts.trials:
        if trial.baseline != (trial.number < len(baselines)):
            verdict.wrong(trial.number, "baseline", trial.number < len(baselines), trial.baseline)
        elif trial.baseline and not same(trial.params, baselines[trial.number]):
            verdict.wrong(trial.number, "baseline", in_json(baselines[trial.number]), in_json(trial.params))


def _check_trial(facts: Facts, trial: Trial, verdict: Verdict) -> None:
    """Its runs are there, and its state and value follow from theirs."""
    runs = trial.search_runs
    seeds, expected = [run.key.seed for run in runs], facts.spec["seeds"]
    if seeds != list(expected):
        verdict.wrong(trial.number, "runs", f"seeds {some(expected)}", f"seeds {some(seeds)}")
        return
    if not all(run.state.final for run in runs):
        if trial.state.final:
            left = next(run for run in runs if not run.state.final)
            verdict.wrong(trial.number, "state", f"open: run {left.key} is {left.state}", str(trial.state))
        return
    state, value, sd = score(runs)
    if trial.state is not state:
        verdict.wrong(trial.number, "state", f"{state}, as its runs are", str(trial.state))
    for name, ours, stored in (("value", value, trial.value), ("sd", sd, trial.sd)):
        if not _close(ours, stored):
            verdict.wrong(trial.number, name, f"{ours!r}, from its runs", repr(stored))


# Runs


def _check_attempts(run: Run, attempts: Sequence[Attempt], verdict: Verdict) -> None:
    """1 to the last without a gap; all but the last are lost; the last counts, where the run has ended or paused."""
    numbers = [attempt.number for attempt in attempts]
    if numbers != list(range(1, run.attempt + 1)):
        expected = f"1 to {run.attempt} without a gap" if run.attempt else "none"
        verdict.wrong(run.key, "attempts", expected, some(numbers) or "none")
        return
    for attempt in attempts[:-1]:
        if attempt.cause is None:
            verdict.wrong(
                run.key, "attempts", f"one that counts, {run.attempt}", f"attempt {attempt.number} counts too"
            )
    if attempts:
        last = attempts[-1].cause
        if run.state is State.QUEUED and last is None:
            verdict.wrong(run.key, "attempts", "a queued run has none in hand", f"attempt {run.attempt} is open")
        if run.state not in (State.QUEUED, State.CANCELLED) and last is not None:
            verdict.wrong(run.key, "attempts", f"attempt {run.attempt} counts", f"it was lost: {last}")
    elif run.state not in (State.QUEUED, State.CANCELLED):
        verdict.wrong(run.key, "attempts", f"one, as it is {run.state}", "none")
    for cause, times in Counter(attempt.cause for attempt in attempts if attempt.cause).items():
        budget = None if cause.startswith(TOGETHER) else LOSS_BUDGETS.get(cause, LOSS_BUDGET)
        if budget is not None and times > budget:
            verdict.wrong(run.key, "budget", f"at most {budget} attempts lost by {cause}", f"{times}")


def _check_ending(run: Run, verdict: Verdict) -> None:
    """What a run says of itself agrees with its state."""
    if run.state is State.COMPLETE and run.value is None:
        verdict.wrong(run.key, "value", "a number, as it is complete", "none")
    if run.value is not None and run.state not in (State.COMPLETE, State.PRUNED):
        verdict.wrong(run.key, "value", f"none, as it is {run.state}", repr(run.value))
    if run.state.final and run.ended is None:
        verdict.wrong(run.key, "end", f"a time, as it is {run.state}", "none")
    if not run.state.final and (run.ended is not None or run.reason):
        verdict.wrong(run.key, "end", f"none, as it is {run.state}", run.reason or "a time")
    if run.state in (State.PRUNED, State.DIVERGED, State.FAILED) and not run.reason:
        verdict.wrong(run.key, "reason", f"why it is {run.state}", "none")
    if run.state is State.COMPLETE and run.reason:
        verdict.wrong(run.key, "reason", "none, as it is complete", run.reason)
    numbers = {"value": run.value, "seconds": run.seconds, "started": run.started, "ended": run.ended}
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            verdict.wrong(run.key, name, "a finite number", repr(number))


def _check_rows(facts: Facts, runs: dict[RunKey, Run], verdict: Verdict) -> None:
    """Every metric belongs to an attempt of a run, and none lies beyond the end of the one that counts."""
    known = {(key, attempt.number) for key, attempts in facts.attempts.items() for attempt in attempts}
    for key in facts.attempts.keys() - runs.keys():
        verdict.wrong(key, "attempts", "a run that they are of", "none")
    for told in facts.told:
        run = runs.get(told.run)
        if run is None or (told.run, told.attempt) not in known:
            verdict.wrong(told.run, told.table, "rows of attempts that there are", f"rows of attempt {told.attempt}")
        elif told.attempt == run.attempt and run.state in (State.COMPLETE, State.PRUNED):
            end = -1 if run.last_epoch is None else run.last_epoch
            if told.last_epoch > end:
                verdict.wrong(told.run, told.table, f"none after its last epoch, {end}", f"epoch {told.last_epoch}")
        if told.first_epoch < (-1 if told.table == "sealed" else 0):
            verdict.wrong(told.run, told.table, "epochs from 0", f"epoch {told.first_epoch}")
    for words in facts.not_finite:
        verdict.wrong("", "numbers", "finite ones only", words)
    _check_courses(facts, runs, verdict)


def _check_courses(facts: Facts, runs: dict[RunKey, Run], verdict: Verdict) -> None:
    """A task's run, which reports each epoch, has told every one up to its last; where an attempt was lost, the next
    has gone on from what was known. A plain function reports the epochs that it likes."""
    told: defaultdict[RunKey, list[Told]] = defaultdict(list)
    for one in facts.told:
        if one.table == "metric" and one.run in runs:
            told[one.run].append(one)
    for key, run in runs.items():
        if run.environment is None or not run.environment.data:  # only a task's say what they were given
            continue
        known = -1
        for one in told[key]:
            if one.first_epoch > known + 1 or not one.gapless:
                verdict.wrong(key, "course", "every epoch", f"gaps in what attempt {one.attempt} has told")
                break
            known = one.last_epoch
        else:
            end = -1 if run.last_epoch is None else run.last_epoch
            if run.state in (State.COMPLETE, State.PRUNED) and known < end:
                verdict.wrong(key, "course", f"every epoch up to its last, {end}", f"up to {known}")


def _check_beyond(facts: Facts, verdict: Verdict) -> None:
    """Runs beyond the search are of trials that are final; extra ones were asked for: new seeds, or repetitions."""
    trials = {trial.number: trial for trial in facts.trials}
    runs = {run.key: run for trial in facts.trials for run in trial.runs}
    asked = {key for request in requests(facts.decisions) for key in request.runs}
    taken = {key.seed for key, run in runs.items() if run.stage is not Stage.EXTRA}
    for key in sorted(asked - runs.keys()):
        verdict.wrong(key, "extra run", "a run, as it was asked for", "none")
    for key, run in runs.items():
        if run.stage is not Stage.SEARCH and not trials[key.trial].state.final:
            verdict.wrong(key, "stage", f"search, as its trial is {trials[key.trial].state}", str(run.stage))
        if run.stage is not Stage.EXTRA:
            if key.repeat:
                verdict.wrong(key, "repeat", f"0, as its stage is {run.stage}", key.repeat)
            continue
        if key not in asked:
            verdict.wrong(key, "extra run", "a decision that asks for it", "none")
        if not key.repeat and key.seed in taken:
            verdict.wrong(key, "seed", "one that neither the search nor a race has used", key.seed)
        former = runs.get(key._replace(repeat=key.repeat - 1)) if key.repeat else None
        if key.repeat and (former is None or former.state is not State.FAILED):
            found = "there is none" if former is None else f"it is {former.state}"
            verdict.wrong(key, "repeat", f"{key._replace(repeat=key.repeat - 1)} has failed", found)


def _check_lease(facts: Facts, verdict: Verdict) -> None:
    if facts.state == "running":
        if not facts.held:
            verdict.wrong("", "lease", "a holder, as it is running", "none")
        return
    if facts.held or facts.lease_until > 0:
        verdict.wrong("", "lease", f"none, as it is {facts.state}", "one that nobody gave back")
    for run in (run for trial in facts.trials for run in trial.runs):
        if run.state is State.RUNNING:
            verdict.wrong(run.key, "state", f"not running, as the study is {facts.state}", "running")
    left = sum(not trial.state.final for trial in facts.trials)
    if facts.state == "complete" and not facts.reason and left:
        verdict.wrong("", "state", "complete: every trial has ended", f"{left} have not")


def all_of(verdicts: Iterable[Verdict], damage: Sequence[str]) -> Iterator[Breach]:
    """Every breach, the database's own first."""
    for words in damage:
        yield Breach(address="", rule="database", expected="sound pages, indices and references", found=words)
    for verdict in verdicts:
        yield from verdict.breaches


def _close(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else math.isclose(a, b, rel_tol=ROUNDING)
