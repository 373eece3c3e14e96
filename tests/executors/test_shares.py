"""Who gets what: even numbers, whole kinds, and as many steps on each worker as can be; by the strategies' own runs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import hpsearch as hp
from hpsearch.executor import Assignment
from hpsearch.executors._shares import spread
from hpsearch.strategy import History, Strategy
from hpsearch.trial import Direction, RunKey

SPACE = hp.SearchSpace(
    {
        "lr": hp.Float(1e-3, 1.0, log=True),
        "batch_size": hp.Categorical((8, 16, 32, 64, 128)),
        "optimizer": hp.Categorical(("sgd", "adam")),
    }
)


def runs_of(strategy: Strategy, count: int, space: hp.SearchSpace = SPACE) -> list[Assignment]:
    """The first runs of a study with one seed."""
    history = History(search_space=space, direction=Direction.MINIMIZE, seed=0)
    chosen = strategy.ask(history, count)
    return [Assignment(run=RunKey(number, 0), params=params, attempt=1) for number, params in enumerate(chosen)]


def shares_of(runs: list[Assignment], workers: int, lanes: int = 64) -> list[list[Assignment]]:
    """Dealt out to workers that have yet to start."""
    rooms = dict.fromkeys(range(workers), lanes)
    return list(spread(runs, rooms, lanes, rooms, "a test").values())


def kinds(share: list[Assignment]) -> set[tuple[object, object]]:
    return {(a.params["optimizer"], a.params["batch_size"]) for a in share}


def steps(share: list[Assignment]) -> float:
    """Of an epoch of all groups of a worker, of 128 images."""
    return sum(128 / int(size) for _, size in kinds(share))  # type: ignore[call-overload]


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("strategy", [hp.Random(), hp.Grid(values={"lr": [0.01, 0.1, 0.3, 0.5, 0.7, 0.9]})])
def test_workers_have_as_many_runs_few_kinds_and_as_many_steps(strategy: Strategy, workers: int) -> None:
    runs = runs_of(strategy, 60)
    shares = shares_of(runs, workers)
    assert sorted(a.run for share in shares for a in share) == [a.run for a in runs]
    assert {len(share) for share in shares} == {60 // workers}
    # Each cut between two workers parts one kind at most.
    assert sum(len(kinds(share)) for share in shares) <= 10 + workers - 1
    # The best that can be is the largest kind or an even share; in turn one worker would have 24 of 31 with two.
    assert max(map(steps, shares)) <= 4 / 3 * max(128 / 8, steps(runs) / workers)
    # The same runs are dealt in the same way, each share in the order of its trials.
    assert shares_of(runs, workers) == shares
    assert all([a.run for a in share] == sorted(a.run for a in share) for share in shares)


def test_runs_of_one_kind_are_parted_where_they_are_not_more_than_their_worker_takes() -> None:
    space = hp.SearchSpace({"lr": hp.Float(0.0, 1.0), "dropout": hp.Categorical((0.0, 0.1, 0.5))})
    shares = shares_of(runs_of(hp.Random(), 33, space), 2)
    assert [[a.run.trial for a in share] for share in shares] == [list(range(17)), list(range(17, 33))]


def test_runs_of_one_kind_are_parted_between_seeds() -> None:
    runs = [Assignment(run=RunKey(k, seed), params={"lr": k / 8}, attempt=1) for k in range(8) for seed in (9, 4, 7)]
    seeds = [[{a.run.seed for a in share} for share in shares_of(runs, workers)] for workers in (3, 2)]
    assert seeds == [[{4}, {7}, {9}], [{4, 7}, {7, 9}]]


def test_workers_that_have_runs_get_fewer_and_cold_ones_come_last() -> None:
    runs = runs_of(hp.Random(), 20)
    rooms: Mapping[str, int] = {"busy": 4, "cold": 16, "warm": 16, "full": 0}
    shares = spread(runs, rooms, 16, {"cold"}, "a test")
    assert {place: len(share) for place, share in shares.items()} == {"warm": 10, "cold": 10}
    shares = spread(runs[:1], rooms, 16, {"cold"}, "a test")
    assert shares == {"warm": runs[:1]}


def test_a_group_has_a_worker_of_its_own_and_the_others_go_elsewhere() -> None:
    runs = runs_of(hp.Random(), 12)
    group = [Assignment(run=RunKey(k, 1), params=runs[k].params, attempt=2, group=7) for k in range(3)]
    shares = spread([*runs, *group], dict.fromkeys("abc", 6), 6, (), "a test")
    assert shares["a"] == group
    assert sorted(a.run for place in "bc" for a in shares[place]) == [a.run for a in runs]
