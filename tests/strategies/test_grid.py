import itertools

import pytest

from hpsearch.errors import StudyError
from hpsearch.space import Categorical, Float, Int, SearchSpace
from hpsearch.strategies.grid import Grid
from hpsearch.strategy import History
from hpsearch.trial import Direction
from tests.conformance.strategies import NUMERIC, StrategySuite, drive


def start(space, seed=0):
    return History(search_space=space, direction=Direction.MINIMIZE, seed=seed)


class TestGrid(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return Grid()

    def test_batches_without_any_value_are_survived(self, strategy):
        assert len(drive(strategy, NUMERIC, 24)) == 24


def test_every_cell_once_with_points_on_the_parameters_scale():
    space = SearchSpace({"lr": Float(1e-4, 1.0, log=True), "act": Categorical(("relu", "gelu")), "n": Int(3, 3)})
    strategy = Grid(points={"lr": 5})
    cells = strategy.ask(start(space), 1000)
    assert strategy.size(space) == len(cells) == 10
    wanted = set(itertools.product((1e-4, 1e-3, 1e-2, 1e-1, 1.0), ("relu", "gelu")))
    assert {(round(p["lr"], 9), p["act"]) for p in cells} == wanted
    assert all(p["n"] == 3 for p in cells)


def test_values_win_over_own_points_over_the_points_of_the_strategy():
    space = SearchSpace({"a": Float(0, 1, points=3), "b": Float(0, 1, points=3), "c": Float(0, 1), "d": Int(1, 4)})
    strategy = Grid(points=2, values={"a": (0.1, 0.7)})
    seen = strategy.ask(start(space), 1000)
    by_name = {name: sorted({p[name] for p in seen}) for name in space.parameters}
    assert by_name == {"a": [0.1, 0.7], "b": [0.0, 0.5, 1.0], "c": [0.0, 1.0], "d": [1, 4]}


def test_whole_numbers_and_choices_use_all_their_values_by_default():
    assert Grid().size(SearchSpace({"n": Int(1, 100), "c": Categorical((1, 2, 3))})) == 300


def test_an_interrupted_grid_has_covered_the_space_evenly():
    cells = Grid(points=8).ask(start(NUMERIC_WITHOUT_POINTS), 16)
    quarters = [(p["x"] > 0.5, p["y"] > 0.5) for p in cells]
    assert {quarters.count(q) for q in itertools.product((True, False), repeat=2)} == {4}


NUMERIC_WITHOUT_POINTS = SearchSpace({"x": Float(0, 1), "y": Float(0, 1)})


def test_a_range_without_points_is_a_problem_and_has_no_cells():
    space = SearchSpace({"lr": Float(0, 1), "n": Int(1, 1000), "k": Int(1, 3)})
    strategy = Grid()
    problems = strategy.problems(space)
    assert [p.field for p in problems] == ["search_space.lr", "search_space.n"]
    assert "1000 values" in problems[1].message
    assert "points" in problems[0].hint
    assert strategy.size(space) == 3
    with pytest.raises(StudyError, match=r"search_space\.lr"):
        strategy.ask(start(space), 1)


def test_all_mistakes_in_the_options_are_named_at_once():
    space = SearchSpace({"lr": Float(0, 1), "act": Categorical(("relu",))})
    strategy = Grid(points={"lr": 0, "rl": 3}, values={"act": ("relu", "tanh"), "lr": (), "zz": (1, 1)})
    problems = {(p.field, p.message) for p in strategy.problems(space)}
    assert problems == {
        ("strategy.points.lr", "must be at least 1, not 0"),
        ("strategy.points.rl", "names no hyperparameter of search_space"),
        ("strategy.values.zz", "names no hyperparameter of search_space"),
        ("strategy.values.zz", "names 1 twice"),
        ("strategy.values.act", "'tanh' lies outside search_space.act"),
        ("strategy.values.lr", "needs at least one value"),
    }
    (problem,) = Grid(points=0).problems(SearchSpace({"lr": Float(0, 1)}))
    assert problem.field == "strategy.points"
