"""A race from its terms and its runs alone: who leaves, when it is over, what is recorded."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from hpsearch.errors import UsageError
from hpsearch.finals import Race, begin, latest, standing, terms_of
from hpsearch.further import CONFIRMED, DROP, RACE
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Run, RunKey, Stage, State, Trial

MIN = Direction.MINIMIZE


def searched(values, *, baseline=True):
    """Trials with one search run each; the first is the baseline."""
    return [
        Trial(
            number=n,
            params={"lr": 0.1 * (n + 1)},
            state=State.COMPLETE,
            value=value,
            baseline=baseline and n == 0,
            runs=(Run(key=RunKey(n, 0), state=State.COMPLETE, value=value),),
        )
        for n, value in enumerate(values)
    ]


def train(trials, runs, value_of):
    """The trials with these runs, ended."""
    by_trial = {}
    for run in runs:
        value = value_of(run.key)
        state = State.COMPLETE if math.isfinite(value) else State.DIVERGED
        ended = replace(run, state=state, value=value if math.isfinite(value) else None, seconds=1.0 + run.key.trial)
        by_trial.setdefault(run.key.trial, []).append(ended)
    return [replace(t, runs=(*t.runs, *by_trial.get(t.number, ()))) for t in trials]


def noisy(means, sd=0.01):
    """A value for each run: its trial's mean, a part that all trials of a seed share, and one of its own."""

    def value_of(key):
        shared = np.random.default_rng([1, key.seed]).normal()
        own = np.random.default_rng([2, key.seed, key.trial]).normal()
        return means[key.trial] + 0.1 * shared + sd * own

    return value_of


def run_race(trials, terms, value_of):
    """Play it to its end, forgetting everything but the record between two looks."""
    decisions = []
    for _ in range(len(terms.looks) + 1):
        answer = Race(terms, MIN, begun=bool(decisions))(trials)
        decisions += [as_stored(decision) for decision in answer.decisions]
        trials = train(trials, answer.runs, value_of)
        if answer.over:
            return trials, decisions
    raise AssertionError("it does not end")


def as_stored(decision: Decision) -> Decision:
    return Decision(**json.loads(json.dumps(asdict(decision))))


def test_the_terms_are_the_best_the_baseline_and_seeds_that_nobody_has_used():
    trials = searched([0.9, 0.5, 0.1, 0.3, 0.2])
    terms = begin(trials, MIN, top=2, first=4, max_seeds=9)
    assert terms.contenders == (2, 4, 0)
    assert terms.baselines == (0,)
    assert terms.seeds == tuple(range(1, 10))
    assert terms.looks == (4, 6, 8, 9)
    assert terms_of(as_stored(terms.decision)) == terms
    with pytest.raises(UsageError, match="no trial is complete"):
        begin([replace(trial, state=State.FAILED, value=None) for trial in trials], MIN)


def test_the_best_wins_and_who_is_worse_leaves_early():
    trials = searched([0.5, 0.1, 0.11, 0.12])
    terms = begin(trials, MIN, first=8, max_seeds=16)
    trials, decisions = run_race(trials, terms, noisy([0.5, 0.3, 0.1, 0.2]))
    assert [d.kind for d in decisions] == [RACE, *[DROP] * 3, CONFIRMED]
    assert decisions[-1].subject == "2"
    assert decisions[-1].details["winner"] == 2
    assert len(trials[2].values(Stage.CONFIRM)) == 8
    found, end = latest(decisions)
    assert (found, end) == (terms, decisions[-1])


def test_who_is_alike_ties_and_the_cheapest_is_named():
    trials = searched([0.5, 0.1, 0.11])
    terms = begin(trials, MIN, first=8, max_seeds=12)
    _, decisions = run_race(trials, terms, noisy([0.9, 0.1, 0.1]))
    end = decisions[-1]
    assert end.details["winner"] is None
    assert sorted(end.details["ties"]) == [1, 2]
    assert end.details["taken"] == 1  # whichever leads: 2 takes half as long again
    assert end.subject == "1"


EARLY = "no difference worth more seeds: #1 and #2 tie on 8"
LATE = "not shown on 12 fresh seeds which of #1 and #2 is better"


@pytest.mark.parametrize(
    ("gap", "seconds", "words"),
    [
        # A gap far below the noise is told early; one that four more seeds might have shown, at the last look.
        (1e-9, 1.0, f"{EARLY}; #1 has the best mean, and none is much cheaper"),
        (1e-9, 0.5, f"{EARLY}; #2 is the cheapest to train"),
        (0.013, 1.0, f"{LATE}; #1 has the best mean, and none is much cheaper"),
        (0.013, 0.5, f"{LATE}; #2 is the cheapest to train"),
    ],
)
def test_a_tie_says_which_to_take_and_why(gap, seconds, words):
    trials = searched([0.9, 0.1, 0.11], baseline=False)
    terms = begin(trials, MIN, top=2, first=8, max_seeds=12)

    def value_of(key):
        return 0.1 * key.seed + (gap + 0.02 * (-1) ** key.seed) * (key.trial == 2)

    def timed(trials):
        return [
            replace(t, runs=tuple(replace(r, seconds=seconds if t.number == 2 else 1.0) for r in t.runs))
            for t in trials
        ]

    decisions = []
    while not decisions or decisions[-1].kind != CONFIRMED:
        answer = Race(terms, MIN, begun=bool(decisions))(trials)
        decisions += answer.decisions
        trials = timed(train(trials, answer.runs, value_of))
    assert decisions[-1].reason == words
    assert decisions[-1].subject == words.rpartition("; #")[2][0]


def test_who_diverges_or_fails_leaves_whatever_its_mean():
    trials = searched([0.5, 0.1, 0.11], baseline=False)
    terms = begin(trials, MIN, first=6, max_seeds=6)
    values = noisy([0.5, 0.1, 0.3])
    trials, decisions = run_race(trials, terms, lambda key: math.inf if key == RunKey(1, 3) else values(key))
    left = {d.subject: d.reason for d in decisions if d.kind == DROP}
    assert left["1"] == "diverged on seed 3"
    assert decisions[-1].details["winner"] == 2


def test_when_all_diverge_nothing_is_chosen():
    trials = searched([0.5, 0.1])
    terms = begin(trials, MIN, first=6, max_seeds=6)
    _, decisions = run_race(trials, terms, lambda key: math.nan)
    assert decisions[-1].subject == ""
    assert "no contender is left" in decisions[-1].reason


def test_one_trial_alone_is_told_so():
    trials = searched([0.5], baseline=False)
    terms = begin(trials, MIN, first=6, max_seeds=12)
    _, decisions = run_race(trials, terms, noisy([0.5]))
    assert decisions[-1].details["winner"] is None
    assert decisions[-1].subject == "0"
    assert "only contender" in decisions[-1].reason


def test_the_direction_is_the_metrics():
    trials = searched([0.5, 0.9, 0.8])
    terms = begin(trials, Direction.MAXIMIZE, first=6, max_seeds=6)
    assert terms.contenders == (1, 2, 0)
    answer = Race(terms, Direction.MAXIMIZE, begun=False)(trials)
    trials = train(trials, answer.runs, noisy([0.1, 0.9, 0.2], 0.001))
    now = standing(terms, trials, Direction.MAXIMIZE)
    assert now.end is not None
    assert now.end.details["winner"] == 1


def test_nothing_is_asked_for_while_runs_are_under_way_and_no_run_twice():
    trials = searched([0.5, 0.1])
    terms = begin(trials, MIN, first=6, max_seeds=6)
    answer = Race(terms, MIN, begun=False)(trials)
    under_way = [replace(t, runs=(*t.runs, *(r for r in answer.runs if r.key.trial == t.number))) for t in trials]
    assert Race(terms, MIN, begun=True)(under_way).runs == []
    some = train(trials, answer.runs[:5], noisy([0.5, 0.1]))
    assert [run.key for run in Race(terms, MIN, begun=True)(some).runs] == [run.key for run in answer.runs[5:]]


def test_losers_checkpoints_are_forgotten_finalists_are_not():
    trials = searched([0.5, 0.1, 0.11])
    terms = begin(trials, MIN, first=8, max_seeds=8)
    answer = Race(terms, MIN, begun=False)(trials)
    trials = train(trials, answer.runs, noisy([0.5, 0.1, 0.3]))
    last = Race(terms, MIN, begun=True)(trials)
    assert {key.trial for key in last.forgotten} == {0, 2}
    assert len(last.forgotten) == 16


def test_a_later_race_with_the_seeds_that_were_left_over_changes_nothing_of_the_first():
    trials = searched([0.5, 0.1, 0.11])
    terms = begin(trials, MIN, first=8, max_seeds=16)
    trials, decisions = run_race(trials, terms, noisy([0.9, 0.1, 0.1]))
    end = decisions[-1]
    assert end.details["seeds"] < 16
    left_over = [seed for seed in terms.seeds if RunKey(1, seed) not in {run.key for run in trials[1].runs}]
    later = [Run(key=RunKey(n, seed), stage=Stage.CONFIRM) for n in (1, 2) for seed in left_over]
    slow = [
        replace(t, runs=tuple(replace(r, seconds=99.0) if r.key in {x.key for x in later[:2]} else r for r in t.runs))
        for t in train(trials, later, noisy([0.9, 0.1, 0.1]))
    ]
    again = standing(terms, slow, MIN).end
    assert again is not None
    assert as_stored(again) == end
