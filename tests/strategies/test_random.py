import pytest

from hpsearch.space import Float, SearchSpace
from hpsearch.strategies.random import Random
from hpsearch.strategy import History
from hpsearch.trial import Direction
from tests.conformance.strategies import NUMERIC, StrategySuite


class TestSobol(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return Random()


class TestIndependent(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return Random(method="independent")


@pytest.mark.parametrize("method", ["sobol", "independent"])
def test_a_point_depends_on_seed_and_index_alone(method):
    strategy = Random(method=method)
    start = History(search_space=NUMERIC, direction=Direction.MINIMIZE, seed=3)
    whole = strategy.ask(start, 3000)
    late = History(search_space=NUMERIC, direction=Direction.MAXIMIZE, seed=3, index=2345)
    assert strategy.ask(late, 10) == whole[2345:2355]


def test_learning_rates_are_spread_evenly_over_the_orders_of_magnitude():
    space = SearchSpace({"lr": Float(1e-4, 1.0, log=True)})
    drawn = Random().ask(History(search_space=space, direction=Direction.MINIMIZE, seed=0), 64)
    for decade in range(-4, 0):
        assert sum(10.0**decade <= p["lr"] < 10.0 ** (decade + 1) for p in drawn) == 16


def test_an_unknown_method_is_named():
    (problem,) = Random(method="halton").problems(NUMERIC)
    assert problem.field == "strategy.method"
    assert "'halton'" in problem.message
