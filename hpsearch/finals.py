"""The finals: the best trials of a study race on seeds that no run of it has used; who is shown to be worse leaves.

Pure: what a race does next follows from its terms, which are a decision in the record, and from the runs that have
ended. So a race that was killed goes on as it would have, and the rule (``race.judge``) sees the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, final

from hpsearch.errors import UsageError
from hpsearch.further import CONFIRMED, DROP, RACE, Chooser, Further
from hpsearch.race import Judgement, judge, schedule
from hpsearch.race import Standing as Behind
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Run, RunKey, Stage, State, Trial, best_trials

#: a trial that trains in less than another's time over this is cheaper; nearer ones cost the same: seconds are noisy.
#: Of trials that tie the best mean is taken, unless another is cheaper
CHEAPER = 1.1


@final
@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a race is, before its first run."""

    #: races of a study are counted from 1
    number: int
    #: trials, best of the search first
    contenders: tuple[int, ...]
    #: of the contenders, those that are baselines
    baselines: tuple[int, ...]
    #: as many as there may be, in the order in which they are used
    seeds: tuple[int, ...]
    #: after how many seeds the values are looked at, rising
    looks: tuple[int, ...]
    alpha: float

    @property
    def decision(self) -> Decision:
        """As it is recorded."""
        words = f"{len(self.contenders)} trials on up to {len(self.seeds)} fresh seeds, alpha {self.alpha:g}"
        return Decision(kind=RACE, subject=str(self.number), reason=words, details=vars(self))


def terms_of(decision: Decision) -> Terms:
    """The terms that were recorded."""
    said = decision.details
    return Terms(
        number=int(said["number"]),
        contenders=tuple(said["contenders"]),
        baselines=tuple(said["baselines"]),
        seeds=tuple(said["seeds"]),
        looks=tuple(said["looks"]),
        alpha=float(said["alpha"]),
    )


@final
@dataclass(frozen=True, kw_only=True)
class Left:
    """A trial that has left a race."""

    trial: int
    #: seeds it had trained with
    seeds: int
    #: in words: ``worse than #12 by 0.004 to 0.011``, ``diverged on seed 12``
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> bool:
        """It was shown to be worse; else it diverged or failed."""
        return "p" in self.details


@final
@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a race stands."""

    terms: Terms
    #: trials that are in it, best first by their fresh values once there are any
    active: tuple[int, ...]
    left: tuple[Left, ...]
    #: seeds that all active trials have trained with, at the last look
    seeds: int
    #: runs to make before the next look; () where it is over, or they are under way
    missing: tuple[RunKey, ...]
    #: None while it is not over
    end: Decision | None
    #: taken at the last look
    decisions: tuple[Decision, ...]
    #: all that were taken since it began, at all looks
    taken: tuple[Decision, ...]
    #: fresh runs of trials that left at the last look
    forgotten: tuple[RunKey, ...] = ()


def begin(
    trials: Sequence[Trial],
    direction: Direction,
    *,
    number: int = 1,
    top: int = 8,
    first: int = 8,
    max_seeds: int = 16,
    alpha: float = 0.05,
) -> Terms:
    """The terms of a race between the best trials and the best baseline.

    Args:
        trials: all of the study, with their runs.
        direction: which way the metric gets better.
        number: of the race.
        top: so many trials; a baseline that is not among them races too.
        first: fresh seeds before the first look; the later ones as ``race.schedule`` has them.
        max_seeds: fresh seeds at most.
        alpha: how often, at most, "A beats B" may be said of trials that are alike, in the whole race.

    Raises:
        UsageError: no trial is complete.
    """
    best = best_trials(trials, direction, max(top, 1))
    if not best:
        raise UsageError("no trial is complete, so there is nothing to confirm", hint="hpsearch status tells why")
    baselines = best_trials([trial for trial in trials if trial.baseline], direction, 1)
    contenders = [trial.number for trial in best]
    contenders += [trial.number for trial in baselines if trial.number not in contenders]
    used = {run.key.seed for trial in trials for run in trial.runs}
    return Terms(
        number=number,
        contenders=tuple(contenders),
        baselines=tuple(n for n in contenders if trials[n].baseline),
        seeds=tuple(islice((seed for seed in count() if seed not in used), max_seeds)),
        looks=schedule(first, max_seeds),
        alpha=alpha,
    )


def standing(terms: Terms, trials: Sequence[Trial], direction: Direction) -> Standing:
    """Walk a race through its looks, as far as its runs have come.

    Args:
        terms: of the race.
        trials: all of the study, with their runs.
        direction: which way the metric gets better.
    """
    active, left = list(terms.contenders), list[Left]()
    decisions, taken, forgotten, before = [terms.decision], list[Decision](), list[RunKey](), 0
    for look, seeds in enumerate(terms.looks):
        keys = [RunKey(trial, seed) for trial in active for seed in terms.seeds[:seeds]]
        runs = {run.key: run for trial in active for run in trials[trial].runs}
        missing = tuple(key for key in keys if key not in runs)
        end = None
        if not missing and all(runs[key].state.final for key in keys):
            gone = _unusable(active, terms.seeds[:seeds], runs)
            usable = [trial for trial in active if trial not in {one.trial for one in gone}]
            judgement = (
                judge(
                    {f"#{trial}": _values(trial, terms.seeds[:seeds], runs) for trial in usable},
                    direction,
                    contenders=len(terms.contenders),
                    look=look + 1,
                    looks=len(terms.looks),
                    alpha=terms.alpha,
                    max_seeds=terms.looks[-1],
                )
                if usable
                else None
            )
            dropped = [trial for trial in usable if judgement and f"#{trial}" in judgement.drop]
            gone += [_left(trial, judgement.standings[f"#{trial}"], seeds) for trial in dropped if judgement]
            left += gone
            active, before = [trial for trial in usable if trial not in dropped], seeds
            forgotten = [RunKey(one.trial, seed) for one in gone for seed in terms.seeds[:seeds]]
            over = judgement is None or judgement.over
            end = _end(terms, judgement, active, left, seeds, trials) if over else None
            decisions = [*(_drop(terms, one) for one in gone), *([end] if end else [])]
            taken += decisions
            if end is None:
                continue
        return Standing(
            terms=terms, active=tuple(active), left=tuple(left), seeds=before, missing=missing, end=end,
            decisions=tuple(decisions), taken=tuple(taken), forgotten=tuple(forgotten),
        )  # fmt: skip
    raise AssertionError("the last look ends a race")


@final
class Race(Chooser):
    """What ``search`` asks for further runs: a race's, until it is over.

    Args:
        terms: of the race.
        direction: which way the metric gets better.
        begun: it is in the record.
    """

    stage = Stage.CONFIRM

    def __init__(self, terms: Terms, direction: Direction, *, begun: bool) -> None:
        self._terms, self._direction, self._begun = terms, direction, begun

    def __call__(self, trials: Sequence[Trial]) -> Further:
        now = standing(self._terms, trials, self._direction)
        decisions = [d for d in now.decisions if not (d.kind == RACE and self._begun)]
        self._begun = True
        runs = [Run(key=key, stage=Stage.CONFIRM) for key in now.missing]
        return Further(runs=runs, decisions=decisions, forgotten=now.forgotten, over=now.end is not None)


def latest(decisions: Sequence[Decision]) -> tuple[Terms | None, Decision | None]:
    """The last race of a record, and how it ended; None while it has not, or where there is none."""
    races = [decision for decision in decisions if decision.kind == RACE]
    if not races:
        return None, None
    terms = terms_of(races[-1])
    ends = [d for d in decisions if d.kind == CONFIRMED and d.batch == terms.number]
    return terms, ends[-1] if ends else None


def fresh_values(trial: Trial, terms: Terms) -> dict[int, float]:
    """Seed -> value of a trial's complete runs with the seeds of a race."""
    return {seed: value for seed, value in trial.values(Stage.CONFIRM).items() if seed in terms.seeds}


def judged_values(trial: Trial, terms: Terms) -> dict[int, float]:
    """The same, and NaN for each run that diverged: what a comparison takes."""
    runs = (run for run in trial.runs if run.stage is Stage.CONFIRM and run.key.repeat == 0)
    lost = {run.key.seed: math.nan for run in runs if run.state is State.DIVERGED and run.key.seed in terms.seeds}
    return fresh_values(trial, terms) | lost


def seconds_a_run(trial: Trial, seeds: Sequence[int]) -> float:
    """Mean seconds of training of its runs with these seeds (a later race may have used what this one left over)."""
    seconds = [run.seconds for run in trial.runs if run.stage is Stage.CONFIRM and run.key.seed in seeds]
    return sum(seconds) / len(seconds) if seconds else 0.0


def _unusable(active: Sequence[int], seeds: Sequence[int], runs: Mapping[RunKey, Run]) -> list[Left]:
    """Trials of which a run has failed or diverged on a fresh seed: they have no value there."""
    gone = []
    for trial in active:
        for seed in seeds:
            run = runs[RunKey(trial, seed)]
            if run.state is not State.COMPLETE or run.value is None or not math.isfinite(run.value):
                why = f" ({run.reason})" if run.reason else ""
                gone.append(Left(trial=trial, seeds=len(seeds), reason=f"{run.state} on seed {seed}{why}"))
                break
    return gone


def _values(trial: int, seeds: Sequence[int], runs: Mapping[RunKey, Run]) -> dict[int, float]:
    values = {seed: runs[RunKey(trial, seed)].value for seed in seeds}
    return {seed: value for seed, value in values.items() if value is not None}


def _drop(terms: Terms, left: Left) -> Decision:
    details = {"seeds": left.seeds, **left.details}
    return Decision(kind=DROP, subject=str(left.trial), reason=left.reason, details=details, batch=terms.number)


def _left(trial: int, standing: Behind, seeds: int) -> Left:
    """A trial that the rule has dropped."""
    numbers = {name: getattr(standing, name) for name in ("behind", "low", "high", "p", "threshold")}
    return Left(trial=trial, seeds=seeds, reason=f"{standing.words} on {seeds} seeds", details=numbers)


def _end(
    terms: Terms,
    judgement: Judgement | None,
    active: Sequence[int],
    left: Sequence[Left],
    seeds: int,
    trials: Sequence[Trial],
) -> Decision:
    cost = {trial: seconds_a_run(trials[trial], terms.seeds[:seeds]) for trial in active}
    leader = next((trial for trial in active if judgement and f"#{trial}" == judgement.leader), None)
    cheapest = min(active, key=lambda trial: (cost[trial], trial), default=None)
    taken = leader if leader is not None and cost[leader] <= CHEAPER * min(cost.values()) else cheapest
    winner = active[0] if len(active) == 1 and len(terms.contenders) > 1 else None
    if judgement is None or not active:
        words = "no contender is left: every one failed or diverged on a fresh seed"
    elif winner is not None:
        words = f"#{winner} wins on {seeds} fresh seeds: {_how_left(left)}"
    elif len(active) > 1:
        named = ", ".join(f"#{trial}" for trial in active[:-1]) + f" and #{active[-1]}"
        why = "has the best mean, and none is much cheaper" if taken == leader else "is the cheapest to train"
        said = f"not shown on {seeds} fresh seeds which of {named} is better"
        if seeds < terms.looks[-1]:
            said = f"no difference worth more seeds: {named} tie on {seeds}"
        words = f"{said}; #{taken} {why}"
    else:
        words = f"#{active[0]} is the only contender: there is nothing to compare it with"
    details = {"winner": winner, "ties": list(active), "taken": taken, "seconds": cost, "seeds": seeds}
    subject = str(winner if winner is not None else taken) if active else ""
    return Decision(kind=CONFIRMED, subject=subject, reason=words, details=details, batch=terms.number)


def _how_left(left: Sequence[Left]) -> str:
    """``7 others are shown to be worse, #3 diverged on seed 4``."""
    worse = sum(one.shown for one in left)
    rest = [f"#{one.trial} {one.reason}" for one in left if not one.shown]
    said = [f"{worse} other{'s are' if worse > 1 else ' is'} shown to be worse"] if worse else []
    return ", ".join([*said, *rest])
