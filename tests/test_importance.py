"""What mattered, on made studies where the answer is known."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from hpsearch.importance import importances, order
from hpsearch.space import Categorical, Float, SearchSpace
from hpsearch.trial import Direction, State, Trial

SPACE = SearchSpace({"lr": Float(1e-4, 1, log=True), "wd": Float(0.0, 1.0), "act": Categorical(("relu", "tanh"))})


def made(n: int, value=lambda lr, wd, act: abs(lr - 0.5), seed: int = 0) -> list[Trial]:
    """Random trials whose value is a function of their place in the unit cube."""
    source = random.Random(seed)
    points = [[source.random() for _ in range(3)] for _ in range(n)]
    return [
        Trial(number=k, params=SPACE.from_unit(u), state=State.COMPLETE, value=value(*u)) for k, u in enumerate(points)
    ]


def test_the_order_is_told_without_whiskers() -> None:
    trials = made(400, lambda lr, wd, act: abs(wd - 0.5))
    assert order(SPACE, trials, Direction.MINIMIZE)[0] == "wd"
    assert order(SPACE, trials[:3], Direction.MINIMIZE) == ["lr", "wd", "act"]
    assert order(SPACE, [replace(t, value=1.0) for t in trials], Direction.MINIMIZE) == ["lr", "wd", "act"]


def test_the_one_that_matters_is_found_by_both() -> None:
    found = importances(SPACE, made(60), Direction.MINIMIZE, resamples=10)
    assert (found.n, found.resamples, found.reason) == (60, 10, "")
    for shares in (found.ped_anova, found.fanova):
        assert shares[0].name == "lr"
        assert shares[0].share > 0.6
        assert sum(share.share for share in shares) == pytest.approx(1)
        assert all(0 <= share.low <= share.share <= share.high <= 1 for share in shares)
    assert found == importances(SPACE, made(60), Direction.MINIMIZE, resamples=10)


def test_direction_and_scale_of_the_metric() -> None:
    """Ranks only: the same order gives the same shares, whichever way it gets better."""
    trials = made(40)
    turned = [replace(t, value=100 - 3 * t.value) for t in trials]
    down, up = (
        importances(SPACE, trials, Direction.MINIMIZE, resamples=2),
        importances(SPACE, turned, Direction.MAXIMIZE, resamples=2),
    )
    assert down == up


def test_diverged_trials_say_something_and_others_without_a_value_nothing() -> None:
    trials = made(60, lambda lr, wd, act: 1.0 + act)
    trials = [replace(t, state=State.DIVERGED, value=None) if t.params["lr"] > 0.1 else t for t in trials]
    found = importances(SPACE, trials, Direction.MINIMIZE, resamples=2)
    assert {share.name for share in found.fanova if share.share > 0.2} >= {"lr"}
    failed = [replace(t, state=State.FAILED, value=None) for t in made(20, seed=1)]
    assert importances(SPACE, [*trials, *failed], Direction.MINIMIZE, resamples=2).n == 60


def test_intervals_narrow_with_more_trials() -> None:
    """Here wd does nothing: its interval at 200 trials is narrower than at 20."""
    few, many = (importances(SPACE, made(n), Direction.MINIMIZE, resamples=20) for n in (20, 200))
    widths = [max(s.high - s.low for s in found.ped_anova) for found in (few, many)]
    assert widths[1] < widths[0]


def test_fanova_takes_a_sample_of_many(monkeypatch) -> None:
    monkeypatch.setattr("hpsearch.importance.FANOVA_MOST", 30)
    found = importances(SPACE, made(50), Direction.MINIMIZE, resamples=2)
    assert (found.n, found.n_fanova) == (50, 30)
    assert found.fanova[0].name == "lr"


def test_where_there_is_nothing_to_say_it_says_why() -> None:
    assert "9 trials" in importances(SPACE, made(9), Direction.MINIMIZE).reason
    assert "same value" in importances(SPACE, made(20, lambda *_: 1.0), Direction.MINIMIZE).reason
    alone = SearchSpace({"lr": SPACE.parameters["lr"]})
    assert "one hyperparameter" in importances(alone, [], Direction.MINIMIZE).reason
    diverged = [replace(t, state=State.DIVERGED, value=None) for t in made(20)]
    assert "same value" in importances(SPACE, diverged, Direction.MINIMIZE).reason
    outside = [replace(t, params={**t.params, "lr": 7.0}) for t in made(20)]
    assert "0 trials" in importances(SPACE, outside, Direction.MINIMIZE).reason
