"""Profiles, edges and interactions, against answers worked out by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from hpsearch.document import parse
from hpsearch.profile import edges_of, interaction_of, profile_of
from hpsearch.read import define
from hpsearch.space import Categorical, Float, Int, SearchSpace
from hpsearch.trial import Direction, State, Trial

DOWN = Direction.MINIMIZE


def train(run):
    """For a study that is never run."""
    return run["p"]


def trial(number: int, value: float | None = None, state: State = State.COMPLETE, sd=None, **params) -> Trial:
    return Trial(number=number, params=params, state=state, value=value, sd=sd)


def test_profile_has_the_best_and_the_share_that_diverged_of_each_bin() -> None:
    lr = Float(1e-4, 1, log=True)
    trials = [
        trial(0, 3.0, lr=2e-4),
        trial(1, 1.0, lr=5e-2),
        trial(2, 2.0, lr=3e-2),
        trial(3, None, State.DIVERGED, lr=0.5),
        trial(4, None, State.FAILED, lr=0.5),
        trial(5, None, State.RUNNING, lr=0.5),
        trial(6, 0.0, lr=7.0),
    ]
    bins = profile_of("lr", lr, trials, DOWN, cells=4).bins
    assert [(b.n, b.complete, b.diverged, b.failed, b.best, b.trial) for b in bins] == [
        (1, 1, 0, 0, 3.0, 0),
        (0, 0, 0, 0, None, None),
        (2, 2, 0, 0, 1.0, 1),
        (2, 0, 1, 1, None, None),
    ]
    assert bins[1].low == pytest.approx(1e-3)
    assert bins[-1].high == 1


def test_profile_of_choices_and_few_whole_numbers_has_a_bin_each() -> None:
    trials = [trial(0, 1.0, act="tanh", depth=3)]
    bins = profile_of("act", Categorical(("relu", "tanh")), trials, DOWN).bins
    assert [(b.low, b.high, b.n) for b in bins] == [("relu", "relu", 0), ("tanh", "tanh", 1)]
    bins = profile_of("depth", Int(1, 5), trials, DOWN).bins
    assert [(b.low, b.n) for b in bins] == [(1, 0), (2, 0), (3, 1), (4, 0), (5, 0)]


@pytest.mark.parametrize(
    ("parameter", "value", "side", "suggestion"),
    [
        (Float(1e-5, 1, log=True), 0.9, "high", "{log: [1e-05, 10]}"),
        (Float(0.01, 1, log=True), 1.0, "high", "{log: [0.01, 3]}"),
        (Float(1e-3, 1, log=True), 0.001, "low", "{log: [0.00025, 1]}"),
        (Float(0.0, 0.5), 0.49, "high", "{uniform: [0, 0.75]}"),
        (Float(0.5, 0.99, reverse_log=True), 0.989, "high", "{reverse_log: [0.5, 0.9986]}"),
        (Float(1.0, 3.0), 1.0, "low", "{uniform: [0, 3]}"),
        (Int(2, 10), 10, "high", "{int: [2, 14]}"),
        (Int(16, 1024, log=True), 1024, "high", "{log_int: [16, 3072]}"),
        (Int(4, 64, step=4), 64, "high", "{int: [4, 96], step: 4}"),
    ],
)
def test_a_best_at_the_edge_names_a_wider_range(parameter, value, side, suggestion) -> None:
    (edge,) = edges_of(SearchSpace({"p": parameter}), [trial(0, 1.0, p=value)], DOWN)
    assert (edge.side, edge.suggestion) == (side, f"p: {suggestion}")
    # A study file takes it as it is, and it holds the range that there was.
    document = parse(f"p: {suggestion}".encode(), "x.yaml")
    study = define(
        name="x", objective="test_profile.py:train", metric={"m": "minimize"}, search_space=document.data, n_trials=1
    )
    wider = study.search_space.parameters["p"]
    assert wider.low <= parameter.low
    assert wider.high >= parameter.high
    assert (wider.low < parameter.low) == (side == "low")
    assert (wider.high > parameter.high) == (side == "high")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Float(1e-5, 1, log=True), 0.1),
        (Float(0.0, 0.5), 0.0),
        (Float(0.0, 1.0), 1.0),
        (Int(1, 9), 1),
        (Int(1, 2), 2),
        (Categorical(("a", "b")), "b"),
    ],
)
def test_a_best_inside_or_at_a_natural_end_is_no_warning(parameter, value) -> None:
    assert edges_of(SearchSpace({"p": parameter}), [trial(0, 1.0, p=value)], DOWN) == []


def test_an_edge_says_how_many_of_the_best_are_there() -> None:
    space = SearchSpace({"p": Float(1.0, 2.0)})
    trials = [trial(k, float(k), p=p) for k, p in enumerate([1.99, 1.9, 1.2, 1.5])]
    (edge,) = edges_of(space, trials, DOWN)
    assert (edge.near, edge.top) == (2, 3)
    assert "2 of the best 3 trials are near it." in edge.words
    (edge,) = edges_of(space, [trials[0], trials[2], trials[3]], DOWN)
    assert "may be chance" in edge.words
    diverged = [replace(t, state=State.DIVERGED, value=None) for t in trials]
    assert edges_of(space, diverged, DOWN) == []


def test_another_trial_than_the_best_may_lie_at_an_edge() -> None:
    space = SearchSpace({"p": Float(1.0, 2.0)})
    trials = [trial(k, float(k), p=p) for k, p in enumerate([1.5, 1.99, 1.4])]
    assert edges_of(space, trials, DOWN) == []
    (edge,) = edges_of(space, trials, DOWN, of=trials[1])
    assert (edge.trial, edge.side, edge.near, edge.top) == (1, "high", 1, 3)


def test_the_hard_bounds_are_the_edge() -> None:
    space = SearchSpace({"p": Float(0.01, 0.1, log=True, hard_low=1e-3, hard_high=1.0)})
    assert edges_of(space, [trial(0, 1.0, p=0.1)], DOWN) == []
    (edge,) = edges_of(space, [trial(0, 1.0, p=1.0)], DOWN)
    assert (edge.high, edge.suggestion) == (1.0, "p: {log: [0.001, 4]}")


def test_an_interaction_is_a_valley_where_the_valley_is() -> None:
    space = SearchSpace({"a": Float(0.0, 1.0), "b": Float(0.0, 1.0)})
    points = [(i / 9, j / 9) for i, j in itertools.product(range(10), repeat=2)]
    trials = [trial(k, abs(a - b), a=a, b=b) for k, (a, b) in enumerate(points)]
    found = interaction_of(space, trials, DOWN, "a", "b", cells=10)
    diagonal = [found.values[k][k] for k in range(10)]
    assert max(diagonal) < found.values[9][0]
    assert max(diagonal) < found.values[0][9]
    up = [replace(t, value=-t.value) for t in trials]
    turned = interaction_of(space, up, Direction.MAXIMIZE, "a", "b", cells=10)
    assert [[-v for v in row] for row in turned.values] == [list(row) for row in found.values]
    few = interaction_of(space, trials[:3], DOWN, "a", "b", cells=10)
    assert few.values[9][9] is None
