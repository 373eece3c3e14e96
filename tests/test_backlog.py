"""The runs that wait: their order, and how runs that lose workers are told apart."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from hpsearch.backlog import Backlog
from hpsearch.trial import Lost, RunKey


def keys(*numbers: int) -> list[RunKey]:
    return [RunKey(number, 0) for number in numbers]


def backlog(*numbers: int) -> Backlog:
    made = Backlog(lambda key: key)
    made.add(keys(*numbers))
    return made


def crash(runs: Sequence[RunKey], cause: str = "signal:9") -> list[Lost]:
    """What an executor says when a worker dies with these runs in hand."""
    return [Lost(run=key, attempt=1, cause=cause, company=tuple(k for k in runs if k != key)) for key in runs]


def by_group(taken: Sequence[tuple[RunKey, int | None]]) -> dict[int | None, list[int]]:
    groups: dict[int | None, list[int]] = {}
    for key, number in taken:
        groups.setdefault(number, []).append(key.trial)
    return groups


def test_the_lowest_trial_begins_first_and_what_was_let_go_on_before_it() -> None:
    waiting = backlog(5, 3, 9, 1)
    waiting.add(keys(8, 7), first=True)
    assert len(waiting) == 6
    assert [key.trial for key, _ in waiting.take(3, 1)] == [7, 8, 1]
    waiting.add(keys(2))
    assert waiting.take(9, 1) == [(key, None) for key in keys(2, 3, 5, 9)]
    assert len(waiting) == 0
    assert waiting.take(9, 1) == []


def test_runs_that_lost_a_worker_together_are_tried_again_as_one_group_then_halved() -> None:
    waiting = backlog(*range(7))
    first = [key for key, _ in waiting.take(7, 1)]
    waiting.crashed(crash(first))
    assert len(waiting) == 7
    again = by_group(waiting.take(8, 1))
    assert list(again.values()) == [[0, 1, 2, 3, 4, 5, 6]]
    assert None not in again
    waiting.crashed(crash(first))
    halves = by_group(waiting.take(16, 2))
    assert sorted(halves.values()) == [[0, 1, 2, 3], [4, 5, 6]]
    assert not again.keys() & halves.keys()


def test_a_group_takes_an_idle_worker_whole_and_ordinary_runs_the_others() -> None:
    waiting = backlog(*range(20))
    lost = [key for key, _ in waiting.take(4, 1)]
    waiting.crashed(crash(lost))
    # Two idle workers of four lanes, and a busy one that has two free: the group's worker is left alone.
    taken = by_group(waiting.take(10, 2))
    (number,) = taken.keys() - {None}
    assert taken[number] == [0, 1, 2, 3]
    assert taken[None] == [4, 5, 6, 7, 8]
    assert len(taken[None]) <= 6


def test_a_group_waits_for_an_idle_worker_while_ordinary_runs_go_on() -> None:
    waiting = backlog(*range(6))
    waiting.crashed(crash([key for key, _ in waiting.take(2, 1)]))
    assert by_group(waiting.take(2, 0)) == {None: [2, 3]}
    assert by_group(waiting.take(4, 1)).keys() - {None}
    assert len(waiting) == 2


def test_two_groups_take_two_workers_and_a_third_waits() -> None:
    waiting = backlog(*range(6))
    for _ in range(3):
        waiting.crashed(crash([key for key, _ in waiting.take(2, 0)]))
    assert sorted(by_group(waiting.take(5, 2)).values()) == [[0, 1], [2, 3]]
    assert by_group(waiting.take(2, 1)).keys() - {None}


def test_two_workers_lost_in_one_poll_make_two_groups() -> None:
    waiting = backlog(*range(6))
    taken = [key for key, _ in waiting.take(6, 2)]
    waiting.crashed([*crash(taken[::2]), *crash(taken[1::2])])
    assert sorted(by_group(waiting.take(6, 2)).values()) == [[0, 2, 4], [1, 3, 5]]


def test_a_group_that_comes_through_is_dissolved() -> None:
    waiting = backlog(0, 1, 2)
    runs = [key for key, _ in waiting.take(3, 1)]
    waiting.crashed(crash(runs))
    waiting.take(3, 1)
    waiting.leave(runs[0])
    # What is left of the group loses its worker: only that is halved, and the run that ended is free.
    waiting.crashed(crash(runs[1:]))
    waiting.add(runs[:1])
    taken = by_group(waiting.take(9, 3))
    assert taken[None] == [0]
    assert sorted(group for number, group in taken.items() if number is not None) == [[1], [2]]
    for key in runs:
        waiting.leave(key)
    waiting.add(runs)
    assert by_group(waiting.take(9, 3)) == {None: [0, 1, 2]}


def test_a_group_stays_together_where_its_worker_was_stopped() -> None:
    waiting = backlog(0, 1)
    runs = [key for key, _ in waiting.take(2, 1)]
    waiting.crashed(crash(runs))
    ((_, number), _) = waiting.take(2, 1)
    waiting.add(runs[:1])
    assert waiting.take(2, 1) == []
    waiting.add(runs[1:])
    assert waiting.take(2, 1) == [(key, number) for key in runs]


def test_a_group_that_fits_in_no_worker_any_more_is_divided_until_it_does() -> None:
    waiting = backlog(*range(8))
    waiting.crashed(crash([key for key, _ in waiting.take(8, 1)]))
    assert sorted(by_group(waiting.take(9, 3)).values()) == [[0, 1], [2, 3], [4, 5]]
    assert list(by_group(waiting.take(3, 1)).values()) == [[6, 7]]


@pytest.mark.parametrize("poisonous", [0, 17, 31, 32, 63])
@pytest.mark.parametrize("workers", [1, 3])
def test_one_poisonous_run_among_64_costs_the_others_at_most_seven_more_attempts(poisonous: int, workers: int) -> None:
    """Every worker that has the poisonous run in hand dies at a random moment, when some of the others have ended."""
    chance, lanes = random.Random(poisonous), 64
    waiting, attempts, alone = backlog(*range(64)), Counter[RunKey](), 0
    busy: list[list[RunKey]] = []
    while len(waiting) or busy:
        started: dict[int | None, list[RunKey]] = {}
        # Ordinary runs are put on one worker here: the worst case.
        for key, number in waiting.take(lanes * (workers - len(busy)), workers - len(busy)):
            started.setdefault(number, []).append(key)
            attempts[key] += 1
        busy += started.values()
        assert len(busy) <= workers
        hand = busy.pop(0)
        if RunKey(poisonous, 0) in hand:
            for key in chance.sample([k for k in hand if k.trial != poisonous], k=(len(hand) - 1) // 8):
                hand.remove(key)
                waiting.leave(key)
            if len(hand) > 1:
                waiting.crashed(crash(hand))
            elif (alone := alone + 1) < 3:  # it is charged itself, by the ledger's budget
                waiting.add(hand)
            else:
                waiting.leave(hand[0])
            continue
        for key in hand:
            waiting.leave(key)
    assert alone == 3
    assert set(attempts) == set(keys(*range(64)))
    innocent = [count for key, count in attempts.items() if key.trial != poisonous]
    assert max(innocent) <= 1 + 7
    assert max(innocent) >= 4
