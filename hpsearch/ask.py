"""Ask the strategy: whether a batch is due, what it may know, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.space import Categorical, Value
from hpsearch.strategy import Decision, History, Observation
from hpsearch.study import Study
from hpsearch.trial import Trial

#: a strategy that learns nothing is asked for so many trials at a time, whenever fewer runs than that are waiting
AHEAD = 256


@final
@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the strategy has chosen."""

    trials: Sequence[Trial]
    #: what it decided when the batch began
    decisions: Sequence[Decision]
    #: it has no more, or the budget has
    over: bool


def baselines_of(study: Study) -> list[Trial]:
    """The trials that come first, outside the budget."""
    return [Trial(number=k, params=dict(params), baseline=True) for k, params in enumerate(study.baselines)]


def ask(study: Study, trials: Sequence[Trial], *, waiting: int, unfinished: int) -> Answer | None:
    """What the strategy chooses next; None where no batch is due.

    Args:
        study: itself.
        trials: all that there are, baselines first.
        waiting: how many runs wait for a worker.
        unfinished: how many trials are not final.
    """
    strategy, space = study.strategy, study.search_space
    size, start = strategy.batch_size, len(trials)
    chosen = start - len(study.baselines)
    if size is None and waiting >= AHEAD:
        return None
    if size is not None and chosen and chosen % size == 0 and unfinished:
        return None
    due = AHEAD if size is None else size - chosen % size
    if study.n_trials is not None:
        due = min(due, study.n_trials - chosen)
    history = history_of(study, trials)
    params = strategy.ask(history, due) if due > 0 else []
    for setting in params:
        # A breach here is a strategy's bug: its conformance suite promises it.
        assert space.hard().contains(setting), f"{strategy.name} chose {setting}, outside the search space"
    seq = 0 if size is None else len(study.baselines) + history.batch * size
    return Answer(
        trials=[
            Trial(number=start + k, params=setting, batch=history.batch, history_seq=seq)
            for k, setting in enumerate(params)
        ],
        decisions=strategy.decisions(history) if params and history.index == 0 else [],
        over=len(params) < max(due, 1),
    )


def total_of(study: Study) -> int | None:
    """How many trials there will be at most, baselines included; None where nobody knows."""
    ends = [n for n in (study.n_trials, study.strategy.size(study.search_space)) if n is not None]
    return min(ends) + len(study.baselines) if ends else None


def history_of(study: Study, trials: Sequence[Trial]) -> History:
    """What the strategy may know of these trials when it chooses the next."""
    strategy, baselines = study.strategy, len(study.baselines)
    chosen = len(trials) - baselines
    size = strategy.batch_size
    batch, index = (0, chosen) if size is None else divmod(chosen, size)
    start = baselines + batch * (size or 0)
    # The first batch is chosen before anything has ended, also when it is completed after a resume.
    known = trials[:start] if batch else []
    return History(
        search_space=study.search_space,
        direction=study.direction,
        seed=study.seed,
        batch=batch,
        index=index,
        finished=[Observation(params=t.params, state=t.state, value=t.value, baseline=t.baseline) for t in known],
        pending=[] if size is None else [t.params for t in trials[start:]],
    )


def window_of(study: Study, trials: Sequence[Trial]) -> dict[str, tuple[Value, Value]]:
    """The part of the space that the current batch is drawn from, in the parameters' own units; {}: all of it."""
    window = study.strategy.window(history_of(study, trials))
    space = study.search_space.hard().parameters
    numeric = {n: p for n, p in space.items() if n in window and not isinstance(p, Categorical)}
    return {name: (p.from_unit(window[name][0]), p.from_unit(window[name][1])) for name, p in numeric.items()}
