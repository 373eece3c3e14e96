import logging
import math
import subprocess
import sys
import warnings
from dataclasses import replace
from statistics import median

import pytest

from hpsearch.space import Categorical, Float, Int, SearchSpace
from hpsearch.strategies.bayesian import GP_LIMIT, Bayesian, _decode, _encode, _losses
from hpsearch.strategies.random import Random
from hpsearch.strategy import History, Observation
from hpsearch.trial import Direction, State
from tests.conformance.strategies import NUMERIC, SPACE, StrategySuite, drive, history_of

SQUARE = SearchSpace({"x": Float(0, 1), "y": Float(0, 1)})


class TestTpe(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return Bayesian(model="tpe", startup=8)


class TestGp(StrategySuite):
    many = 20

    @pytest.fixture
    def strategy(self):
        return Bayesian(model="gp", startup=4, batch=4)


def valley(space, params):
    value = (params["x"] - 0.3) ** 2 + 2 * (params["y"] - 0.8) ** 2
    return Observation(params=params, state=State.COMPLETE, value=value)


@pytest.mark.parametrize(("model", "part"), [("gp", 0.01), ("tpe", 1.0)])
def test_it_finds_a_smooth_optimum_closer_than_random_search(model, part):
    def best(strategy, seed):
        return min(t.value for t in drive(strategy, SQUARE, 40, outcome=valley, seed=seed))

    typical = median(best(Random(), seed) for seed in range(9))
    seeds = range(1) if model == "gp" else range(9)
    assert median(best(Bayesian(model=model, startup=8), seed) for seed in seeds) < typical * part


@pytest.mark.parametrize("model", ["gp", "tpe"])
def test_the_trials_of_a_batch_are_spread_apart(model):
    strategy = Bayesian(model=model, startup=16)
    batch = [SQUARE.to_unit(p) for p in strategy.ask(history_of(strategy, SQUARE, 3, outcome=valley), 8)]
    gaps = [math.dist(a, b) for k, a in enumerate(batch) for b in batch[:k]]
    assert min(gaps) > 1e-3, "asked without pending trials a Gaussian process says nearly the same eight times"


def test_a_batch_fits_its_gaussian_process_once(monkeypatch):
    # The likelihood is what a fit is made of: each further trial may look at it once or twice, to see that it is done.
    from optuna._gp.gp import GPRegressor

    looks = []
    likelihood = GPRegressor.marginal_log_likelihood
    monkeypatch.setattr(GPRegressor, "marginal_log_likelihood", lambda gp: looks.append(1) or likelihood(gp))
    strategy = Bayesian(model="gp", startup=16)
    history = history_of(strategy, SQUARE, 2, outcome=valley)
    strategy.ask(history, 1)
    single = len(looks)
    looks.clear()
    strategy.ask(history, 6)
    assert len(looks) <= single + 5 * 3 < 6 * single


def test_pending_trials_change_what_comes_next():
    strategy = Bayesian(model="gp", startup=8)
    history = history_of(strategy, SQUARE, 2, outcome=valley)
    first, second = strategy.ask(history, 2)
    elsewhere = strategy.ask(history.asked([{"x": 0.99, "y": 0.01}]), 1)
    assert [second] != elsewhere
    assert strategy.ask(history.asked([first]), 1) == [second]


def test_it_starts_with_the_points_of_random_search():
    strategy = Bayesian(startup=10, batch=4)
    start = History(search_space=NUMERIC, direction=Direction.MINIMIZE, seed=7)
    wanted = Random().ask(start, 16)
    drawn = [t.params for t in drive(strategy, NUMERIC, 12)]
    assert drawn[:10] == wanted[:10]
    assert drawn[10:] != wanted[10:12]


def test_auto_is_a_gaussian_process_for_few_trials_of_numbers_and_else_tpe():
    auto = Bayesian(startup=4, batch=4)
    numbers = history_of(auto, NUMERIC, 2)
    assert auto.ask(numbers, 1) == replace(auto, model="gp").ask(numbers, 1)
    mixed = history_of(auto, SPACE, 2)
    assert auto.ask(mixed, 2) == replace(auto, model="tpe").ask(mixed, 2)
    trial = numbers.finished[0]
    many = tuple(replace(trial, value=float(k % 17)) for k in range(GP_LIMIT))
    long = replace(numbers, batch=GP_LIMIT // 4, finished=many)
    assert auto.ask(long, 2) == replace(auto, model="tpe").ask(long, 2)


def test_a_region_that_diverges_is_avoided():
    def outcome(space, params):
        if params["x"] > 0.4:
            return Observation(params=params, state=State.DIVERGED, value=None)
        return Observation(params=params, state=State.COMPLETE, value=1 - params["x"])

    for model in ("gp", "tpe"):
        trials = drive(Bayesian(model=model, startup=16), SQUARE, 40, outcome=outcome)
        late = [t.state for t in trials[24:]]
        assert late.count(State.DIVERGED) < 9.6 * 0.9, "less often than by chance (0.6)"


@pytest.mark.parametrize("direction", list(Direction))
def test_diverged_and_failed_are_worse_than_all_values_and_finite(direction):
    sign = 1 if direction is Direction.MINIMIZE else -1
    values = [1.0, 2.0, 3.0, 5.0, 1e30, None, None]
    states = [State.COMPLETE] * 4 + [State.PRUNED, State.DIVERGED, State.FAILED]
    known = [
        Observation(params={}, state=s, value=None if v is None else sign * v)
        for s, v in zip(states, values, strict=True)
    ]
    told = [sign * v for v in _losses(known, direction)]
    assert told[:3] == [1.0, 2.0, 3.0], "the better half keeps its values"
    assert told == sorted(told)
    assert told[4] < told[5] == told[6] < 10, "and the worse half its order only"


def test_only_lost_trials_are_all_equal():
    lost = [Observation(params={}, state=State.DIVERGED, value=None)] * 3
    assert len(set(_losses(lost, Direction.MAXIMIZE))) == 1
    assert all(map(math.isfinite, _losses(lost, Direction.MAXIMIZE)))


@pytest.mark.parametrize(
    "p",
    [
        Int(1, 64, log=True),
        Int(3, 30, step=3),
        Int(0, 5000),
        Int(1, 5000, log=True),
        Float(0.0, 1.0, step=0.1),
        Categorical((1, 1.0, True, None, "a")),
    ],
)
def test_the_model_sees_each_value_and_gives_it_back(p):
    values = p.grid(p.size)
    assert len(values) == p.size
    for value in values:
        back = _decode(p, _encode(p, value))
        assert (type(back), back) == (type(value), value)


def test_optuna_stays_silent_and_leaves_no_trace(capfd):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    logging.getLogger("optuna").setLevel(logging.INFO)
    strategy = Bayesian(model="gp", startup=4, batch=4)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            strategy.ask(history_of(strategy, NUMERIC, 1), 2)
        assert capfd.readouterr() == ("", "")
        assert logging.getLogger("optuna").level == logging.INFO
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_importing_it_loads_no_heavy_library():
    code = "import hpsearch.strategies.bayesian, sys; print({'optuna', 'torch', 'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_options_out_of_range_are_named_all_at_once():
    wrong = Bayesian(model="svm", startup=0, batch=0)
    assert [p.field for p in wrong.problems(NUMERIC)] == ["strategy.model", "strategy.startup", "strategy.batch"]
