"""What a study chose and decided, against what it would choose and decide now, from the results that are recorded.

Where the record comes from other library versions or another CPU, a difference proves nothing: "not compared".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpsearch.audit import Facts, Verdict, in_json, same, some
from hpsearch.cohort import BAD, come, ruled_out
from hpsearch.finals import standing, terms_of
from hpsearch.further import CONFIRMED, DROP, EXTRA, RACE, REVEAL
from hpsearch.replay import Batch, Rungs, Stop, batches, reached, rungs
from hpsearch.store import EXTENDED, GROUPED
from hpsearch.strategy import Decision
from hpsearch.study import Study, cohort_of
from hpsearch.trial import Direction, Environment, Run, RunKey, Stage, State, Trial

#: kinds of decisions that no batch of a strategy takes
ELSEWHERE = frozenset(["prune", GROUPED, EXTENDED, RACE, DROP, CONFIRMED, REVEAL, EXTRA])
#: packages whose version may change a suggestion's last digits
PACKAGES = ("hpsearch", "numpy", "scipy", "optuna")
#: of the numbers of a race
DIGITS = 1e-9


def check_suggestions(facts: Facts, study: Study, verdict: Verdict, environment: Callable[[], Environment]) -> None:
    different: list[tuple[Trial, str]] = []
    decided = [_plain(d) for d in facts.decisions if d.kind not in ELSEWHERE]
    expected: list[dict[str, Any]] = []
    for batch in batches(study, facts.trials):
        _check_place(batch, facts, verdict)
        if batch.params is None:
            first = batch.trials[0].number
            verdict.wrong(first, "suggestion", f"trials 0 to {batch.history_seq - 1} had ended", "they have not")
            continue
        expected += [_plain(decision) for decision in batch.decisions]
        for trial, params in zip(batch.trials, [*batch.params, *[{}] * len(batch.trials)], strict=False):
            if same(trial.params, params):
                verdict.suggestions += 1
            else:
                different.append((trial, in_json(params) if params else "no such trial"))
    why = _changed(facts, environment) if different or expected != decided else ""
    if why:
        verdict.skipped.append(f"{len(different)} suggestions that differ: {why}")
        return
    for trial, params_now in different:
        verdict.wrong(trial.number, "suggestion", params_now, in_json(trial.params))
    if not different and expected != decided:
        odd = next(k for k in range(len(expected) + 1) if expected[k : k + 1] != decided[k : k + 1])
        ours, stored = (in_json(found[odd]) if odd < len(found) else "no more" for found in (expected, decided))
        verdict.wrong("", f"decision {odd}", ours, stored)


def _check_place(batch: Batch, facts: Facts, verdict: Verdict) -> None:
    for trial in batch.trials:
        place, stored = (batch.batch, batch.history_seq), (trial.batch, trial.history_seq)
        if place != stored:
            verdict.wrong(trial.number, "batch", "batch {}, after {} trials".format(*place), "{}, {}".format(*stored))
    for trial in facts.trials[: batch.history_seq] if batch.batch else ():
        if trial.tell_seq is not None and trial.tell_seq > batch.history_seq:
            what = f"ended before batch {batch.batch} was chosen, among the first {batch.history_seq}"
            verdict.wrong(trial.number, "order of ended trials", what, f"place {trial.tell_seq}")


def _changed(facts: Facts, environment: Callable[[], Environment]) -> str:
    """Why a suggestion may differ though nothing is wrong; empty where there is no reason."""
    runs = [run for trial in facts.trials for run in trial.runs]
    # Rows share them, and a packed mapping has no hash.
    stored = {id(run.environment): run.environment for run in runs if run.environment is not None}.values()
    if not stored:
        return "the record does not say where it was made"
    now = environment()
    for then in stored:
        pairs = {name: (getattr(then, name), getattr(now, name)) for name in ("python", "machine")}
        pairs |= {name: (then.packages.get(name, "none"), now.packages.get(name, "none")) for name in PACKAGES}
        for name, (old, new) in pairs.items():
            if old != new:
                return f"{name} was {old}, here it is {new}"
    return ""


def check_rungs(facts: Facts, study: Study, verdict: Verdict, *, changed: bool) -> None:
    assert study.pruner is not None
    if study.pruner.asynchronous:
        verdict.skipped.append("decisions at rungs: an asynchronous pruner decides by who came first")
        return
    if changed and "epochs" not in study.search_space.parameters:
        verdict.skipped.append(
            "decisions at rungs: the training code, which says how many epochs, has changed or is gone"
        )
        return
    chosen = len(facts.trials) - len(study.baselines)
    over = chosen == study.n_trials or (facts.state == "complete" and not facts.reason)
    trials = [replace(trial, runs=trial.search_runs) for trial in facts.trials]
    found = rungs(study, trials, facts.curves, over=over)
    ours = Verdict(study=facts.name)
    _compare_rungs(facts, trials, found, ours)
    verdict.rulings = ours.rulings
    grown = [decision.reason for decision in facts.decisions if decision.kind == EXTENDED]
    if ours.breaches and grown and _may_have_grown(study, chosen):
        verdict.skipped.append(f"decisions at rungs that differ: n_trials became {'; then '.join(grown)}")
        return
    verdict.breaches += ours.breaches


def _may_have_grown(study: Study, chosen: int) -> bool:
    """True where only ``n_trials``, which ``--extend`` raises, says how large a cohort is."""
    size = cohort_of(study)
    bounded = study.pruner is not None and study.pruner.cohort is None and study.strategy.batch_size is None
    return bounded or size is None or chosen % size != 0


def _compare_rungs(facts: Facts, trials: Sequence[Trial], found: Rungs, verdict: Verdict) -> None:
    decided: dict[int, list[dict[str, Any]]] = {}
    for decision in facts.decisions:
        if decision.kind == "prune":
            decided.setdefault(int(decision.subject), []).append(_plain(decision))
    furthest: dict[RunKey, int] = {}
    for one in facts.told:
        furthest[one.run] = max(one.last_epoch, furthest.get(one.run, -1))
    for trial in trials:
        number, stop = trial.number, found.stops.get(trial.number)
        rows = decided.pop(number, [])
        expected = [] if stop is None or not stop.ruling.details else [stop.ruling]
        if [(r["reason"], r["details"]) for r in rows] != [(r.reason, _round(dict(r.details))) for r in expected]:
            told = "; ".join(r.reason for r in expected) or "none to stop it"
            verdict.wrong(number, "decision", told, "; ".join(str(r["reason"]) for r in rows) or "none")
        elif stop is not None:
            _check_stop(trial, stop, verdict)
            for key in (key for key, pause in stop.pauses.items() if furthest.get(key, -1) >= pause):
                what = f"no attempt, also none that was lost, beyond the rung at epoch {stop.epoch}"
                verdict.wrong(key, "rung", what, f"epoch {furthest[key]}")
        for run in trial.runs:
            _check_course(run, found.waiting.get(number), stop, facts.curves.get(run.key, {}), verdict)
    for number in decided:
        verdict.wrong(number, "decision", "a trial that it is about", "none")


def _check_stop(trial: Trial, stop: Stop, verdict: Verdict) -> None:
    verdict.rulings += 1
    for run in trial.runs:
        if run.key not in stop.ends:
            continue
        value, best = stop.ends[run.key] or (None, None)
        expected = (State.PRUNED, stop.pauses[run.key], value, best, stop.ruling.reason)
        stored = (run.state, come(run), run.value, run.best_epoch, run.reason)
        if stored != expected:
            verdict.wrong(run.key, "pruning", _ending(*expected), _ending(*stored))


def _ending(state: State, epochs: int, value: float | None, best: int | None, reason: str) -> str:
    where = "" if best is None else f", value {value!r} at epoch {best}"
    return f"{state} after {epochs} epochs{where}{f' ({reason})' if reason else ''}"


def _check_course(run: Run, waits: int | None, stop: Stop | None, curve: Mapping[int, float], verdict: Verdict) -> None:
    """It has not gone on from a rung where it was not let go on, and nobody has stopped it where it was."""
    if waits is not None and come(run) >= waits and run.state is not State.PAUSED:
        gone = run.state is not State.QUEUED or come(run) > waits
        # One that has failed or diverged at the very end of the epoch has not gone on.
        if gone and reached(run, waits, curve) and not (run.state in BAD and come(run) == waits):
            verdict.wrong(run.key, "rung", f"waits at epoch {waits} for its cohort", f"{run.state}, {come(run)} epochs")
    elif ruled_out(run) and (stop is None or run.key not in stop.ends):
        verdict.wrong(run.key, "pruning", "let go on at every rung", f"pruned: {run.reason}")


def check_races(facts: Facts, verdict: Verdict, environment: Callable[[], Environment]) -> None:
    """What each race has decided follows from its terms and its runs; looks at the test set follow from races."""
    ours = Verdict(study=facts.name)
    races = [decision for decision in facts.decisions if decision.kind == RACE]
    numbers = [decision.subject for decision in races]
    if numbers != [str(k + 1) for k in range(len(races))]:
        ours.wrong("", "races", f"1 to {len(races)} in order", some(numbers))
    for decision in facts.decisions:
        if decision.kind in (DROP, CONFIRMED) and str(decision.batch) not in numbers:
            ours.wrong("", "races", f"one that has decided {_move(decision)}", f"no race {decision.batch}")
    for race in races:
        try:
            _check_race(facts, race, last=race is races[-1], verdict=ours)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            ours.wrong("", f"race {race.subject}", "terms that can be raced under", f"{type(error).__name__}: {error}")
    if ours.breaches and (why := _changed(facts, environment)):
        verdict.skipped.append(f"races that differ, and looks at the test set: {why}")
        return
    verdict.breaches += ours.breaches
    if not ours.breaches:
        _check_looks(facts, verdict)


def _check_race(facts: Facts, race: Decision, *, last: bool, verdict: Verdict) -> None:
    terms = terms_of(race)
    now = standing(terms, facts.trials, Direction(facts.spec["direction"]))
    stored = [d for d in facts.decisions if d.kind in (DROP, CONFIRMED) and d.batch == terms.number]
    ours = list(now.taken)
    if last and len(stored) == len(ours) - len(now.decisions):
        ours = ours[: len(stored)]  # the last look may not have been written down yet
    rule = f"race {race.subject}"
    if list(map(_move, stored)) != list(map(_move, ours)):
        verdict.wrong("", rule, some(map(_move, ours)) or "nothing", some(map(_move, stored)) or "nothing")
        return
    for expected, found in zip([terms.decision, *ours], [race, *stored], strict=True):
        if expected.reason != found.reason:
            verdict.wrong("", rule, expected.reason, found.reason)
        expects, finds = (_untimed(decision.details) for decision in (expected, found))
        for name in expects.keys() | finds.keys():
            if not _alike(expects.get(name), finds.get(name)):
                verdict.wrong(
                    "", rule, f"{_move(found)}: {name} {in_json(expects.get(name))}", in_json(finds.get(name))
                )


def _check_looks(facts: Facts, verdict: Verdict) -> None:
    """Numbered 1 to the last, each through the trial that the last race before it had chosen, on that race's runs."""
    number, seeds, chosen = 0, tuple[int, ...](), ""
    for decision in facts.decisions:
        if decision.kind == RACE:
            seeds, chosen = terms_of(decision).seeds, ""
        if decision.kind == CONFIRMED:
            # A later race may have used what this one left over.
            seeds, chosen = seeds[: decision.details["seeds"]], decision.subject
        if decision.kind != REVEAL:
            continue
        number += 1
        if decision.details.get("look") != number:
            verdict.wrong("", f"look {number}", f"number {number}", f"number {decision.details.get('look')}")
        if decision.subject != chosen or not chosen:
            what = f"through trial {chosen}, which the race chose" if chosen else "none, as no race had chosen a trial"
            verdict.wrong("", f"look {number}", what, f"through trial {decision.subject}")
            continue
        fresh = facts.trials[int(chosen)].values(Stage.CONFIRM)
        values = [value for seed, value in fresh.items() if seed in seeds]
        if not same(decision.details.get("validation"), values):
            verdict.wrong("", f"look {number}", f"validation {in_json(values)}", decision.details.get("validation"))
        for name, seen in dict(decision.details.get("test") or {}).items():
            if not 0 < len(seen) <= len(values):
                verdict.wrong("", f"look {number}", f"{name} of up to {len(values)} runs", f"of {len(seen)}")


def _move(decision: Decision) -> str:
    return f"{decision.kind} {decision.subject}".strip()


def _untimed(details: Any) -> dict[str, Any]:
    """What decisions say beside how long something took."""
    return {name: said for name, said in _round(dict(details)).items() if name != "seconds"}


def _alike(a: Any, b: Any) -> bool:
    """The same, numbers but for their last digits."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=DIGITS)
    return same(a, b)


def _plain(decision: Any) -> dict[str, Any]:
    names = ("kind", "subject", "reason", "details", "batch")
    return {name: _round(getattr(decision, name)) for name in names}


def _round(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))
