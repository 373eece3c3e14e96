"""Whether a trial is one to ship: a checklist from the record, and the sealed test set, looked at on request.

Everything here reads, but ``reveal``: it evaluates the confirmed winner's weights on the test part, and writes down who
looked, when, why and how often before it says what was seen.
"""

from __future__ import annotations

import getpass
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from hpsearch.archive import Archive, StudySummary
from hpsearch.confirm import Confirmation, against, confirmation
from hpsearch.errors import ObjectiveError, UsageError
from hpsearch.finals import CHEAPER, fresh_values, seconds_a_run
from hpsearch.further import REVEAL
from hpsearch.objective import ObjectiveAddress, source_hash
from hpsearch.profile import edges_of
from hpsearch.space import SearchSpace
from hpsearch.store import Store, StudyRecord, Turn, clean, this_process
from hpsearch.strategy import Decision
from hpsearch.study import Study
from hpsearch.trial import Checkpoint, Direction, RunKey, Trial
from hpsearch.verdict import Spread, spread

#: norms of a layer's gradient outside of these, in the last epoch, are no healthy ones
VANISHED, EXPLODED = 1e-6, 1e2
#: seconds that a reveal holds the study, from each run that it has evaluated
LEASE_S = 60.0
_UNCONFIRMED = "not confirmed: no race on fresh seeds has shown it, and those that it was chosen by cannot"


@final
@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the checklist."""

    name: str
    #: None: it cannot be said
    holds: bool | None
    words: str


@final
@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the test set."""

    trial: int
    #: of the study, counted from 1
    number: int
    who: str
    #: seconds since 1970, UTC
    when: float
    reason: str
    #: test metric -> its spread over the trial's runs
    metrics: Mapping[str, Spread]
    #: the study's metric over the same runs, on the validation part
    validation: Spread


def looks(decisions: Sequence[Decision]) -> list[Look]:
    """All looks at a study's test set, oldest first."""
    return [_look(decision) for decision in decisions if decision.kind == REVEAL]


def checklist(
    study: Study, summary: StudySummary, archive: Archive, number: int, trials: Sequence[Trial] | None = None
) -> tuple[list[Check], Confirmation | None]:
    """What speaks for a trial, and what does not.

    Args:
        study: as it is stored.
        summary, archive: of the same study.
        number: of the trial.
        trials: all of the study's, in number order, where the caller has them.
    """
    trials = archive.trials(study.name) if trials is None else trials
    race = confirmation(trials, archive.decisions(study.name), study.direction)
    trial = trials[number]
    checks = [
        _beats_baseline(trials, trial, race, study.direction),
        _beats_runner_up(trials, trial, race, study.direction),
        _confirmed(trial, race),
        _not_at_an_edge(study.search_space, trials, trial, study.direction),
        _healthy(archive, study.name, trial),
        _same_code(study.objective, summary, trial),
        _same_data(trial, _compared(trials, trial, race, study.direction)),
    ]
    return checks, race


def reveal(
    study: Study,
    archive: Archive,
    record: StudyRecord,
    store: Callable[[], Store],
    number: int,
    *,
    reason: str,
    files: Path,
    sealed: Callable[[Sequence[RunKey]], Mapping[RunKey, Mapping[str, float]]],
    via: str = "",
) -> Look:
    """Look at the test set through the confirmed winner of a study, and write it down.

    Of a TrainingTask, the weights of the runs of the last race are evaluated on the test part; of a plain function, the
    ``test_*`` metrics that these runs have returned are opened.

    Args:
        study: as it is stored.
        archive, record: of the same study.
        store: opens the store.
        number: of the trial.
        reason: why, in the user's words.
        files: the folder of the study's files.
        sealed: gives the sealed metrics of runs.
        via: through what the user looks, recorded beside their name; empty: the command line.

    Raises:
        UsageError: the trial is not the one that a race, which is over, has chosen; nothing is there to look at.
        NotFoundError, ObjectiveError: its weights are gone or do not fit.
        StudyHeldError: a coordinator, or another look, has the study.
    """
    _confirmed_runs(study, archive, number)
    # Its code is what it was searched with, whatever lies there now: ``checklist`` compares the two.
    record = replace(record, code_hash=archive.study(study.name).code_hash)
    # From here on nobody else looks: what is counted is still so when it is written.
    door = store()
    left = door.open(record, this_process(), lease_s=LEASE_S).left
    try:
        trial, values = _confirmed_runs(study, archive, number)
        runs = [RunKey(number, seed) for seed in values]
        kept = {key: c for key, c in archive.checkpoints(study.name).items() if key in set(runs)}
        tables = _evaluated(study, trial, kept, files, door) if kept else {k: dict(v) for k, v in sealed(runs).items()}
        if not tables:
            raise UsageError(
                f"there is no test metric of {study.name}/{number}",
                hint="a plain function may return test_* metrics, sealed until here; keep: 0 keeps no weights",
            )
        look, decision = _seen(
            tables,
            Look(
                trial=number,
                number=len(looks(archive.decisions(study.name))) + 1,
                who=f"{_who()} via {clean(via)}" if via else _who(),
                when=time.time(),
                reason=clean(reason),
                metrics={},
                validation=spread(list(values.values())),
            ),
            list(values.values()),
        )
        door.write(Turn(decisions=[decision]))
    finally:
        door.close(*left)
    return look


def _confirmed_runs(study: Study, archive: Archive, number: int) -> tuple[Trial, dict[int, float]]:
    """The trial that the last race has chosen, and its values by fresh seed.

    Raises:
        UsageError: it has chosen another one, or none.
    """
    trials = archive.trials(study.name)
    race = confirmation(trials, archive.decisions(study.name), study.direction)
    address = f"{study.name}/{number}"
    if race is None or race.chosen is None:
        raise UsageError(
            f"{address} is not confirmed: the test set is for what a race on fresh seeds has chosen",
            hint=f"hpsearch confirm {study.name}",
        )
    if race.chosen != number:
        raise UsageError(
            f"the last race chose {study.name}/{race.chosen}, not {address}: the test set is for that one",
            hint=f"hpsearch ship {study.name}/{race.chosen} --reveal-test --reason ...",
        )
    return trials[number], fresh_values(trials[number], race.terms)


def _evaluated(
    study: Study, trial: Trial, kept: Mapping[RunKey, Checkpoint], files: Path, door: Store
) -> dict[RunKey, dict[str, float]]:
    """The metrics of each run's weights on the test part; the lease is renewed after each."""
    from hpsearch.training.saved import load_models, sealed_metrics

    tables = {}
    for key, checkpoint in kept.items():
        models = load_models(study.objective, trial.params, checkpoint, files)
        tables[key] = sealed_metrics(study.objective, models, trial.params, seed=study.seed, threads=study.threads)
        door.renew(0.0)
    return tables


def _seen(tables: Mapping[RunKey, Mapping[str, float]], look: Look, values: Sequence[float]) -> tuple[Look, Decision]:
    """The look with what it has seen in each run, and as it is recorded."""
    names = dict.fromkeys(name for table in tables.values() for name in table)
    seen = {name: [table.get(name) for table in tables.values()] for name in names}
    details = {"look": look.number, "who": look.who, "when": look.when, "test": seen, "validation": list(values)}
    decision = Decision(kind=REVEAL, subject=str(look.trial), reason=look.reason, details=details)
    metrics = {name: spread([number for number in numbers if number is not None]) for name, numbers in seen.items()}
    return replace(look, metrics=metrics), decision


def _look(decision: Decision) -> Look:
    said = decision.details
    numbers = {name: [v for v in values if v is not None] for name, values in said["test"].items()}
    return Look(
        trial=int(decision.subject),
        number=int(said["look"]),
        who=str(said["who"]),
        when=float(said["when"]),
        reason=decision.reason,
        metrics={name: spread(values) for name, values in numbers.items()},
        validation=spread(said["validation"]),
    )


def _who() -> str:
    try:
        return clean(getpass.getuser())
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


# The checks


def _beats_baseline(trials: Sequence[Trial], trial: Trial, race: Confirmation | None, direction: Direction) -> Check:
    name = "beats the baseline"
    if trial.baseline:
        return Check(name=name, holds=None, words="it is the baseline")
    baselines = _baselines(trials, race)
    if not baselines:
        hint = "baseline: textbook in the study file gives one"
        return Check(name=name, holds=None, words=f"there is no baseline to compare with; {hint}")
    if race is None or race.end is None or trial.number not in race.terms.contenders:
        return Check(name=name, holds=None, words=_UNCONFIRMED)
    found = [against(trial, one, race, direction) for one in baselines]
    return Check(name=name, holds=all(one.better for one in found), words="; ".join(one.words for one in found))


def _beats_runner_up(trials: Sequence[Trial], trial: Trial, race: Confirmation | None, direction: Direction) -> Check:
    name = "beats the runner-up, or is cheaper"
    second = _runner_up(trials, trial, race, direction)
    if second is None:
        return Check(name=name, holds=None, words="there is no other trial")
    if race is None or race.end is None or trial.number not in race.terms.contenders:
        return Check(name=name, holds=None, words=_UNCONFIRMED)
    found = against(trial, second, race, direction)
    if found.better:
        return Check(name=name, holds=True, words=found.words)
    made = race.terms.seeds[: race.end.details["seeds"]]
    ours, theirs = seconds_a_run(trial, made), seconds_a_run(second, made)
    told = f"#{trial.number} takes {ours:.3g} s a run, #{second.number} {theirs:.3g} s"
    standing = next(one.outcome for one in race.contenders if one.trial.number == trial.number)
    if found.better is False or standing not in ("winner", "ties"):
        return Check(name=name, holds=False, words=f"{found.words}; {told}")
    cheaper = True if CHEAPER * ours < theirs else False if CHEAPER * theirs < ours else None
    alike = ", about the same" if cheaper is None else ""
    return Check(name=name, holds=cheaper, words=f"{found.words}; {told}{alike}")


def _baselines(trials: Sequence[Trial], race: Confirmation | None) -> list[Trial]:
    """Those of the race; without one, all that have a value."""
    if race:
        return [trials[number] for number in race.terms.baselines]
    return [one for one in trials if one.baseline and one.values()]


def _runner_up(trials: Sequence[Trial], trial: Trial, race: Confirmation | None, direction: Direction) -> Trial | None:
    """The next best: of the race, who stands or fell next to it; without one, by the search's values."""
    if race:
        raced = (one.trial for one in race.contenders if one.fresh.n)
        return next((one for one in raced if one.number != trial.number), None)
    others = [one for one in trials if one.number != trial.number and one.values()]
    return min(others, key=lambda one: direction.sign * statistics.fmean(one.values().values()), default=None)


def _compared(trials: Sequence[Trial], trial: Trial, race: Confirmation | None, direction: Direction) -> list[Trial]:
    """The other trials that the checks hold it against."""
    second, baselines = _runner_up(trials, trial, race, direction), _baselines(trials, race)
    others = [one for one in trials if one is second or any(one is other for other in baselines)]
    return [one for one in others if one.number != trial.number]


def _confirmed(trial: Trial, race: Confirmation | None) -> Check:
    name = "confirmed on fresh seeds"
    if race is None:
        return Check(name=name, holds=False, words="not yet: hpsearch confirm races the best on seeds nobody has seen")
    if race.end is None:
        return Check(name=name, holds=False, words="its race is not over: hpsearch confirm goes on with it")
    if race.chosen != trial.number:
        chosen = "nothing" if race.chosen is None else f"#{race.chosen}"
        return Check(name=name, holds=False, words=f"race {race.terms.number} chose {chosen}: {race.words}")
    return Check(name=name, holds=True, words=race.optimism.words if race.optimism else race.words)


def _not_at_an_edge(space: SearchSpace, trials: Sequence[Trial], trial: Trial, direction: Direction) -> Check:
    name = "not at an edge of its range"
    if trial.baseline:
        return Check(name=name, holds=None, words="the baseline was not searched")
    found = edges_of(space, trials, direction, of=trial)
    edges = [f"{one.name} {one.value:.4g} at the {one.side} end; try {one.suggestion}" for one in found]
    return Check(name=name, holds=not edges, words="; ".join(edges) or "every hyperparameter lies inside of its range")


def _healthy(archive: Archive, study: str, trial: Trial) -> Check:
    name = "healthy layers"
    seen, sick = 0, []
    for run in trial.runs:
        course = archive.layers(study, run.key)
        if not course:
            continue
        seen += 1
        for layer, (gradient, _) in course[-1][1].items():
            kind = "vanishing" if gradient < VANISHED else "exploding" if not gradient <= EXPLODED else ""
            if kind:
                sick.append(f"{layer}: {kind} gradient ({gradient:.2g}) with seed {run.key.seed}")
    if not seen:
        return Check(name=name, holds=None, words="no norms of layers were recorded")
    more = f" and {len(sick) - 3} more" if len(sick) > 3 else ""
    return Check(name=name, holds=not sick, words="; ".join(sick[:3]) + more if sick else f"in all {seen} runs")


def _same_code(objective: ObjectiveAddress, summary: StudySummary, trial: Trial) -> Check:
    name = "same code and software"
    try:
        now = source_hash(objective)
    except ObjectiveError as error:
        return Check(name=name, holds=False, words=f"the training code is gone: {error}")
    changes = []
    if now != summary.code_hash:
        changes.append("the training code has changed since the study was stored")
    environments = [run.environment for run in trial.runs if run.environment is not None]
    for what in ("git_commit", "torch", "python", "device"):
        values = dict.fromkeys(str(getattr(one, what))[: 12 if what == "git_commit" else None] for one in environments)
        if len(values) > 1:
            changes.append(f"its runs had several of {what.replace('_', ' ')}: {', '.join(values)}")
    if any(one.git_dirty for one in environments):
        changes.append("there were uncommitted changes")
    return Check(name=name, holds=not changes, words="; ".join(changes) or "in all its runs, and now")


def _same_data(trial: Trial, others: Sequence[Trial]) -> Check:
    name = "same data"
    seen = {
        one.number: {run.environment.data for run in one.runs if run.environment is not None and run.environment.data}
        for one in (trial, *others)
    }
    every = set().union(*seen.values())
    if not every:
        return Check(name=name, holds=None, words="unknown: only the runs of a TrainingTask say what they were given")
    several = [f"#{number}'s runs saw {len(data)} data sets" for number, data in seen.items() if len(data) > 1]
    if several:
        return Check(name=name, holds=False, words="; ".join(several))
    if len(every) > 1:
        told = ", ".join(f"#{number} {next(iter(data))}" for number, data in seen.items() if data)
        why = "either data() reads a hyperparameter, or the data have changed"
        return Check(name=name, holds=None, words=f"{told}: {why}")
    silent = [f"#{number}" for number, data in seen.items() if not data]
    if silent:
        return Check(name=name, holds=None, words=f"unknown of {', '.join(silent)}")
    what = ", ".join(f"#{one.number}" for one in others)
    return Check(name=name, holds=True, words=f"{every.pop()}, as in {what}" if what else every.pop())
