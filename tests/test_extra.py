"""Extra runs from the record alone: which seeds, which repetitions, and what goes on after a kill."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from hpsearch.errors import UsageError
from hpsearch.extra import (
    ExtraRuns,
    NewSeeds,
    Repetitions,
    Request,
    failed_runs,
    gained,
    requests,
    reserved,
    under_way,
)
from hpsearch.finals import begin
from hpsearch.further import CONFIRMED, EXTRA
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Run, RunKey, Stage, State, Trial

DONE, FAILED = State.COMPLETE, State.FAILED


def trials(*states: State) -> list[Trial]:
    """A trial for each state, with two search runs; of a failed one the second has failed."""
    return [
        Trial(
            number=n,
            params={"x": n},
            state=state,
            value=1.0 + n if state is DONE else None,
            runs=tuple(
                Run(key=RunKey(n, seed), state=state if seed or state is not FAILED else DONE, value=1.0 + n + seed)
                for seed in (0, 1)
            ),
        )
        for n, state in enumerate(states)
    ]


def end(before: list[Trial], runs, state: State = DONE) -> list[Trial]:
    """The trials with these runs, of this state."""
    value = 5.0 if state is DONE else None
    ended = [replace(run, state=state, value=value) for run in runs]
    keys = {run.key for run in ended}
    return [
        replace(
            t,
            runs=(*(r for r in t.runs if r.key not in keys), *(r for r in ended if r.key.trial == t.number)),
        )
        for t in before
    ]


def test_new_seeds_are_the_first_that_no_run_has_and_no_open_race_may_use():
    record = trials(DONE, DONE, DONE)
    record = end(record, [Run(key=RunKey(0, 3), stage=Stage.CONFIRM)])
    terms = begin(record, Direction.MINIMIZE, max_seeds=2)
    assert terms.seeds == (2, 4)
    race = [terms.decision]
    assert reserved(race) == {2, 4}
    wish = NewSeeds(trials=(0, 2), n=3, apart=reserved(race))
    answer = ExtraRuns(wish, None)(record)
    assert [run.key for run in answer.runs] == [RunKey(n, seed) for n in (0, 2) for seed in (5, 6, 7)]
    assert {run.stage for run in answer.runs} == {Stage.EXTRA}
    assert not answer.over
    over = Decision(kind=CONFIRMED, subject="0", reason="", batch=1)
    assert reserved([*race, over]) == frozenset()
    # A race that begins later leaves them alone.
    assert set(begin(end(record, answer.runs), Direction.MINIMIZE, max_seeds=4).seeds) & {5, 6, 7} == set()


def test_the_same_record_gives_the_same_answer_and_it_is_asked_once():
    record = trials(DONE, DONE)
    chooser = ExtraRuns(NewSeeds(trials=(1,), n=2), None)
    first = chooser(record)
    assert ExtraRuns(NewSeeds(trials=(1,), n=2), None)(record) == first
    assert chooser.made == Request(what="seeds", runs=(RunKey(1, 2), RunKey(1, 3)))
    last = chooser(end(record, first.runs))
    assert (last.over, list(last.runs), list(last.decisions)) == (True, [], [])
    assert last.forgotten == chooser.made.runs


def test_a_request_is_one_decision_that_survives_json():
    answer = ExtraRuns(NewSeeds(trials=(0, 1), n=3), None)(trials(DONE, DONE))
    (decision,) = answer.decisions
    assert (decision.kind, decision.subject) == (EXTRA, "0, 1")
    assert decision.reason == "3 new seeds, 2 to 4, for #0 and #1"
    again = Decision(**json.loads(json.dumps(asdict(decision))))
    assert requests([again])[0].runs == tuple(run.key for run in answer.runs)
    assert Request(what="seeds", runs=(RunKey(1, 2),)).words == "1 new seed, 2, for #1"
    assert Request(what="failed", runs=(RunKey(1, 2, 1),)).words == "1 failed run once more"


def killed_after(k: int, wish: NewSeeds) -> tuple[list[Trial], list[Decision], ExtraRuns]:
    """The record when k runs of a wish have ended, and the chooser of the next command."""
    record = trials(DONE, DONE)
    answer = ExtraRuns(wish, None)(record)
    record = end(end(record, answer.runs, State.QUEUED), answer.runs[:k])
    return record, list(answer.decisions), ExtraRuns(wish, under_way(record, answer.decisions))


@pytest.mark.parametrize("k", range(4))
def test_the_same_command_goes_on_and_adds_nothing(k):
    record, decisions, chooser = killed_after(k, NewSeeds(trials=(0, 1), n=2))
    (request,) = requests(decisions)
    assert under_way(record, decisions) == request
    answer = chooser(end(record, [run for t in record for run in t.runs if not run.state.final]))
    assert (list(answer.runs), list(answer.decisions), answer.over) == ([], [], True)
    assert answer.forgotten == request.runs


def test_after_its_end_it_adds_again_and_another_command_adds_after_what_is_under_way():
    record, decisions, chooser = killed_after(4, NewSeeds(trials=(0, 1), n=2))
    assert under_way(record, decisions) is None
    assert {run.key.seed for run in chooser(record).runs} == {4, 5}
    record, decisions, _ = killed_after(1, NewSeeds(trials=(0, 1), n=2))
    other = ExtraRuns(NewSeeds(trials=(1,), n=1), under_way(record, decisions))
    ended = end(record, [run for t in record for run in t.runs if not run.state.final])
    assert [run.key for run in other(ended).runs] == [RunKey(1, 4)]


def test_failed_runs_are_repeated_with_their_seed_until_they_do_not_fail():
    record = trials(FAILED, DONE, FAILED, State.RUNNING)
    record[3] = replace(record[3], runs=(Run(key=RunKey(3, 0), state=FAILED), Run(key=RunKey(3, 1))))
    everything = Repetitions(of=frozenset((n, seed) for n in range(4) for seed in (0, 1)))
    assert failed_runs(record) == [RunKey(0, 1), RunKey(2, 1)]  # a trial that has not ended waits for its end
    answer = ExtraRuns(everything, None)(record)
    assert [run.key for run in answer.runs] == [RunKey(0, 1, 1), RunKey(2, 1, 1)]
    record = end(end(record, answer.runs[:1]), answer.runs[1:], FAILED)
    assert [run.key for run in ExtraRuns(everything, None)(record).runs] == [RunKey(2, 1, 2)]
    assert [run.key for run in ExtraRuns(Repetitions(of=frozenset([(2, 0)])), None)(record).runs] == []


def test_an_interrupted_repetition_goes_on_and_what_failed_again_waits_for_the_next_command():
    record = trials(FAILED, FAILED, FAILED)
    first = ExtraRuns(Repetitions(of=frozenset([(0, 1), (1, 1)])), None)(record)
    record = end(end(record, first.runs, State.QUEUED), first.runs[:1], FAILED)
    last = under_way(record, first.decisions)
    record = end(record, first.runs[1:], FAILED)
    everything = Repetitions(of=frozenset((n, 1) for n in range(3)))
    assert [run.key for run in ExtraRuns(everything, last)(record).runs] == [RunKey(2, 1, 1)]
    assert ExtraRuns(Repetitions(of=frozenset([(0, 1), (1, 1)])), last)(record).over


def test_a_seeds_run_is_the_first_that_has_not_failed():
    (trial,) = trials(FAILED)
    repaired = end([trial], [Run(key=RunKey(0, 1, 1), stage=Stage.EXTRA)], FAILED)
    repaired = end(repaired, [Run(key=RunKey(0, 1, 2), stage=Stage.EXTRA)])
    assert [run.key for run in repaired[0].seed_runs] == [RunKey(0, 0), RunKey(0, 1, 2)]
    assert [run.key for run in repaired[0].search_runs] == [RunKey(0, 0), RunKey(0, 1)]
    assert repaired[0].values() == {0: 1.0}


def test_what_further_seeds_have_told():
    record = trials(DONE, DONE)
    answer = ExtraRuns(NewSeeds(trials=(0,), n=2), None)(record)
    (request,) = requests(answer.decisions)
    found = gained(end(record, answer.runs)[0], request)
    assert (found.before.mean, found.before.n) == (1.5, 2)
    assert (found.new.mean, found.new.sd, found.new.n) == (5.0, 0.0, 2)
    assert (found.now.mean, found.now.n) == (3.25, 4)
    half = 3.182446 * math.sqrt((2.25**2 + 1.25**2 + 2 * 1.75**2) / 3) / 2  # t of 3 degrees of freedom
    assert found.now.high - 3.25 == pytest.approx(half, rel=1e-6)
    wild = gained(end(end(record, answer.runs[:1]), answer.runs[1:], State.DIVERGED)[0], request)
    assert (wild.now.mean, wild.now.diverged, wild.now.n, wild.before.mean) == (None, 1, 4, 1.5)
    with pytest.raises(UsageError, match="no seeds were added to trial 1"):
        gained(record[1], request)
