"""Extra runs of trials that are final: further seeds, and failed runs once more. No strategy, pruner or race sees them.

Pure: what is asked for goes into the record as one decision, in one turn with all its runs. So it is under way for as
long as one of these runs is open, the same command then goes on with it, and once they have ended it is over.

**What counts.** A trial's state and value are those of its search, for ever; a trial that has failed stays failed, for
the strategy went on without it. What looks at single seeds (``compare``, ``show``, ``export``) sees extra runs: a
seed's run is the first that has not failed (``Trial.seed_runs``). A race counts its own runs only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal, final

from hpsearch.errors import UsageError
from hpsearch.finals import latest
from hpsearch.further import EXTRA, Chooser, Further
from hpsearch.strategy import Decision
from hpsearch.trial import Run, RunKey, Stage, State, Trial
from hpsearch.verdict import Spread, spread

#: seeds that one command may add
MOST_SEEDS = 10_000


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """Extra runs that were asked for together."""

    what: Literal["seeds", "failed"]
    #: in the order in which they begin
    runs: tuple[RunKey, ...]

    @property
    def trials(self) -> tuple[int, ...]:
        """Whose they are."""
        return tuple(sorted({run.trial for run in self.runs}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """With which."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def words(self) -> str:
        """``2 new seeds, 3 and 4, for #1``; ``3 failed runs once more``."""
        n = len(self.seeds)
        if self.what == "failed":
            return f"{len(self.runs)} failed run{'s' * (len(self.runs) > 1)} once more"
        ends = f"{self.seeds[0]} to {self.seeds[-1]}" if n > 2 else _listed(map(str, self.seeds))
        return f"{n} new seed{'s' * (n > 1)}, {ends}, for {_listed(f'#{trial}' for trial in self.trials)}"

    @property
    def decision(self) -> Decision:
        """As it is recorded."""
        details = {"what": self.what, "runs": [str(run) for run in self.runs]}
        subject = ", ".join(map(str, self.trials[:8])) + ", ..." * (len(self.trials) > 8)
        return Decision(kind=EXTRA, subject=subject, reason=self.words, details=details)


def requests(decisions: Sequence[Decision]) -> list[Request]:
    """Those of a record, oldest first."""
    said = [decision.details for decision in decisions if decision.kind == EXTRA]
    return [Request(what=one["what"], runs=tuple(map(RunKey.of, one["runs"]))) for one in said]


def under_way(trials: Sequence[Trial], decisions: Sequence[Decision]) -> Request | None:
    """The request of which a run is open: the last one, if any, as the next begins when its runs have ended."""
    ended = {run.key for trial in trials for run in trial.runs if run.state.final}
    return next((one for one in requests(decisions)[-1:] if not ended.issuperset(one.runs)), None)


def reserved(decisions: Sequence[Decision]) -> frozenset[int]:
    """Seeds that a race which is not over may still use."""
    terms, end = latest(decisions)
    return frozenset() if terms is None or end else frozenset(terms.seeds)


@final
@dataclass(frozen=True, kw_only=True)
class NewSeeds:
    """``n`` further seeds, the same for all of these trials."""

    trials: tuple[int, ...]
    n: int
    #: not to be used (``reserved``)
    apart: Collection[int] = ()

    def request(self, trials: Sequence[Trial], last: Request | None) -> Request | None:
        """The first seeds that no run has; None where ``last``, which was under way, is this very wish."""
        if last and last.what == "seeds" and last.trials == self.trials and len(last.seeds) == self.n:
            return None
        used = {run.key.seed for trial in trials for run in trial.runs}.union(self.apart)
        seeds = list(islice((seed for seed in count() if seed not in used), self.n))
        return Request(what="seeds", runs=tuple(RunKey(trial, seed) for trial in self.trials for seed in seeds))


@final
@dataclass(frozen=True, kw_only=True)
class Repetitions:
    """Once more each run that has failed, of these (trial, seed)."""

    of: frozenset[tuple[int, int]]

    def request(self, trials: Sequence[Trial], last: Request | None) -> Request | None:
        """Those whose last repetition has failed; not those that ``last``, which was under way, has repeated."""
        repeated = {run[:2] for run in last.runs} if last and last.what == "failed" else set()
        runs = [
            RunKey(*key[:2], key.repeat + 1)
            for key in failed_runs(trials)
            if key[:2] in self.of and key[:2] not in repeated
        ]
        return Request(what="failed", runs=tuple(runs)) if runs else None


def failed_runs(trials: Iterable[Trial]) -> list[RunKey]:
    """Runs of trials that are final: the last repetition of each (trial, seed), where that has failed."""
    last: dict[tuple[int, int], Run] = {}
    for trial in trials:
        for run in sorted(trial.runs, key=lambda run: run.key) if trial.state.final else ():
            last[run.key[:2]] = run
    return [run.key for run in last.values() if run.state is State.FAILED]


@final
class ExtraRuns(Chooser):
    """What ``search`` asks for further runs: what is under way, then the wish, then no more.

    Args:
        wish: what is to be made.
        last: the request that is under way (``under_way``).
    """

    stage = Stage.EXTRA

    def __init__(self, wish: NewSeeds | Repetitions, last: Request | None) -> None:
        self._wish, self._last, self._asked = wish, last, False
        #: what was asked for, once it was
        self.made: Request | None = None

    def __call__(self, trials: Sequence[Trial]) -> Further:
        done = self.made if self._asked else self._last
        # Their weights are nobody's: no ranking looks at extra runs.
        forgotten = done.runs if done else ()
        if not self._asked:
            self._asked, self.made = True, self._wish.request(trials, self._last)
            if self.made:
                runs = [Run(key=key, stage=Stage.EXTRA) for key in self.made.runs]
                return Further(runs=runs, decisions=[self.made.decision], forgotten=forgotten)
        return Further(forgotten=forgotten, over=True)


@final
@dataclass(frozen=True, kw_only=True)
class Gained:
    """A trial before and after further seeds. A diverged run has no value: then there is no mean."""

    trial: Trial
    before: Spread
    #: the further seeds alone, by which nobody has chosen the trial
    new: Spread
    now: Spread


def gained(trial: Trial, request: Request) -> Gained:
    """What a request's seeds have told of a trial.

    Raises:
        UsageError: the request is not about further seeds, or not about this trial.
    """
    if request.what != "seeds" or trial.number not in request.trials:
        raise UsageError(f"no seeds were added to trial {trial.number} by that")
    values = _values(trial)
    new = {seed: value for seed, value in values.items() if seed in request.seeds}
    before = {seed: value for seed, value in values.items() if seed not in new}
    return Gained(
        trial=trial,
        before=spread(list(before.values())),
        new=spread(list(new.values())),
        now=spread(list(values.values())),
    )


def _values(trial: Trial) -> dict[int, float]:
    """Seed -> value, NaN where the run diverged."""
    found = {run.key.seed: run for run in trial.seed_runs if run.state in (State.COMPLETE, State.DIVERGED)}
    return {seed: float("nan") if run.value is None else run.value for seed, run in found.items()}


def _listed(names: Iterable[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last
