"""Round trips, and bounds that rounding never leaves."""

import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hpsearch.errors import StudyError
from hpsearch.space import Categorical, Float, Int, SearchSpace

quick = settings(max_examples=100, deadline=None, derandomize=True)
unit = st.floats(0, 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=5e-324, max_value=1.7e308)


@st.composite
def plain_floats(draw):
    low, high = sorted([draw(finite), draw(finite)])
    return Float(low, high)


@st.composite
def log_floats(draw):
    low, high = sorted([draw(positive), draw(positive)])
    return Float(low, high, log=True)


@st.composite
def reverse_log_floats(draw):
    ends = st.floats(-1e300, 0.5) | st.floats(0.5, math.nextafter(1.0, 0.0))
    low, high = sorted([draw(ends), draw(ends)])
    return Float(low, high, reverse_log=True)


@st.composite
def stepped_floats(draw):
    low = draw(st.decimals(-100, 100, places=3))
    step = draw(st.decimals("0.001", 10, places=3))
    return Float(float(low), float(low + step * draw(st.integers(0, 1000))), step=float(step))


@st.composite
def ints(draw, most=2**53):
    low, high = sorted([draw(st.integers(-most, most)), draw(st.integers(-most, most))])
    return Int(low, high, step=draw(st.integers(1, most)))


@st.composite
def log_ints(draw, most=2**40):
    low, high = sorted([draw(st.integers(1, most)), draw(st.integers(1, most))])
    return Int(low, high, log=True)


floats = plain_floats() | log_floats() | reverse_log_floats() | stepped_floats()


@quick
@given(floats, unit)
@example(Float(-1.7e308, 1.7e308), 0.5)
@example(Float(5e-324, 1.7e308, log=True), 0.999999)
@example(Float(1e-300, 1e300, log=True), 0.3)
@example(Float(0.9, math.nextafter(1.0, 0.0), reverse_log=True), 0.999)
@example(Float(1.0, math.nextafter(1.0, 2.0), log=True), 0.5)
def test_a_float_never_leaves_its_range(p, u):
    x = p.from_unit(u)
    assert isinstance(x, float)
    assert p.low <= x <= p.high
    assert p.contains(x)
    assert p.from_unit(-1.0) == p.from_unit(0.0) == p.low
    if p.step is None:
        assert p.from_unit(2.0) == p.from_unit(1.0) == p.high
    elif p.size > 1:
        assert p.high - p.step < p.from_unit(1.0) <= p.high


@quick
@given(floats, unit, unit)
def test_a_float_grows_with_u(p, u, v):
    u, v = sorted([u, v])
    assert p.from_unit(u) <= p.from_unit(v)


@quick
@given(plain_floats() | log_floats() | reverse_log_floats(), unit)
def test_a_point_comes_back_from_a_float(p, u):
    # A range of few doubles cannot tell points apart: compare values, by how much u moves them.
    x = p.from_unit(u)
    back = p.to_unit(x)
    assert math.isfinite(back)
    nearby = [p.from_unit(min(max(back + d, 0.0), 1.0)) for d in (-1e-9, 1e-9)]
    assert nearby[0] <= x <= nearby[1]


@quick
@given(st.sampled_from([Float(1e-5, 1, log=True), Float(0, 0.5), Float(0.5, 0.999, reverse_log=True)]), unit)
def test_points_of_usual_ranges_come_back_to_twelve_digits(p, u):
    assert p.to_unit(p.from_unit(u)) == pytest.approx(u, abs=1e-12)


@quick
@given(stepped_floats() | ints() | log_ints(), unit)
@example(Int(-(2**53), 2**53), 1.0)
@example(Float(0.1, 0.7, step=0.1), 0.99)
def test_values_of_a_lattice_come_back(p, u):
    x = p.from_unit(u)
    assert p.contains(x)
    if p.size <= 2**40:  # beyond it, a double in [0, 1] cannot hold the middle of every cell
        assert p.from_unit(p.to_unit(x)) == x


@quick
@given(ints(1000) | log_ints(1000))
def test_every_whole_number_can_be_reached(p):
    assume(p.size <= 300)
    values = p.grid(p.size)
    assert [p.from_unit(p.to_unit(x)) for x in values] == values
    assert all(0 < p.to_unit(x) < 1 for x in values)
    assert len(values) == p.size


def test_steps_are_exact_in_decimal():
    p = Float(0.1, 0.7, step=0.1)
    assert p.grid(99) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert p.contains(0.3)
    assert not p.contains(0.1 + 0.2)
    assert Float(0, 1, step=0.3).grid(99) == [0, 0.3, 0.6, 0.9]


def test_scales():
    assert Float(1e-4, 1, log=True).from_unit(0.5) == pytest.approx(1e-2)
    assert Float(0.9, 0.999, reverse_log=True).from_unit(0.5) == pytest.approx(0.99)
    assert Float(1e-5, 1, log=True).grid(6) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]
    assert Float(0.9, 0.999, reverse_log=True).grid(3) == [0.9, 0.99, 0.999]
    assert Int(1, 1000, log=True).grid(4) == [1, 10, 100, 1000]
    assert Int(16, 1024, log=True).grid(7) == [16, 32, 64, 128, 256, 512, 1024]


@quick
@given(floats | ints() | log_ints(), st.integers(1, 20))
def test_a_grid_is_sorted_and_inside(p, points):
    values = p.grid(points)
    assert 1 <= len(values) <= points
    assert values == sorted(set(values))
    assert all(p.contains(x) for x in values)
    if points > 1:
        assert values[0] == p.low
        if not isinstance(p, Int) and p.step is None:
            assert values[-1] == p.high


@quick
@given(floats | ints() | log_ints(), unit, unit, unit)
def test_a_narrowed_parameter_stays_inside(p, a, b, u):
    start, end = sorted([a, b])
    inner = p.narrow(start, end)
    assert p.low <= inner.low <= inner.high <= p.high
    assert p.contains(inner.from_unit(u))


@pytest.mark.parametrize(
    "p",
    [Float(3e-4, 3e-4, log=True), Float(5, 5), Float(0.9, 0.9, reverse_log=True), Int(3, 3), Int(3, 3, log=True)],
)
def test_one_point_ranges(p):
    assert p.size == 1
    assert p.from_unit(0.0) == p.from_unit(0.7) == p.low
    assert p.to_unit(p.low) == 0.5
    assert p.grid(5) == [p.low]
    assert SearchSpace({"p": p}).dimensions == 0


def test_hard_bounds():
    p = Float(1e-3, 1e-1, log=True, hard_low=1e-6)
    assert p.contains(1e-6)
    assert not p.contains(0.2)
    assert p.to_unit(1e-5) == pytest.approx(-1)
    assert (p.hard().low, p.hard().high, p.hard().hard_low) == (1e-6, 1e-1, None)
    stepped = Float(0.3, 0.5, step=0.1, hard_low=0.05, hard_high=0.85)
    assert stepped.hard().grid(99) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert all(stepped.contains(x) for x in stepped.hard().grid(99))
    assert Int(5, 9, step=2, hard_low=0, hard_high=12).hard().grid(99) == [1, 3, 5, 7, 9, 11]
    assert Float(1, 1, hard_high=2) == SearchSpace({"p": Float(1, 1, hard_high=2)}).searched["p"]


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "0.5", None, 10**400, 0.4, 2])
def test_what_is_no_value_of_a_float(value):
    assert not Float(0.5, 1).contains(value)


@pytest.mark.parametrize("value", [1.0, True, "1", None, 0, 4])
def test_what_is_no_value_of_an_int(value):
    assert not Int(1, 3).contains(value)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Float(1, 0), "low"),
        (lambda: Float(0, 1, log=True), "low"),
        (lambda: Float(1, 2, log=True, hard_low=0), "low"),
        (lambda: Float(0, 1, reverse_log=True), "high"),
        (lambda: Float(0.1, 0.2, log=True, reverse_log=True), "log"),
        (lambda: Float(0.1, 0.2, log=1), "log"),
        (lambda: Float(1, 2, log=True, step=0.1), "step"),
        (lambda: Float(0, 1, step=0), "step"),
        (lambda: Float(0, 1e300, step=1e-10), "step"),
        (lambda: Float(0, 1, step="0.1"), "step"),
        (lambda: Float(0, 1, points=0), "points"),
        (lambda: Float(0, 1, points=2.0), "points"),
        (lambda: Float("0", 1), "low"),
        (lambda: Float(0, math.inf), "high"),
        (lambda: Float(0, 10**400), "high"),
        (lambda: Float(0, 10**5000), "high"),
        (lambda: Float(True, 2), "low"),
        (lambda: Float(0, 1, hard_low=0.5), "hard_low"),
        (lambda: Float(0, 1, hard_high=0.5), "hard_high"),
        (lambda: Int(0, 1.0), "high"),
        (lambda: Int(0, 5, log=True), "low"),
        (lambda: Int(0, 2**54), "high"),
        (lambda: Int(1, 5, step=0), "step"),
        (lambda: Int(1, 5, log=True, step=2), "step"),
        (lambda: Categorical(()), "choices"),
        (lambda: Categorical((1, [2])), "choices"),
        (lambda: Categorical(("a", "a")), "choices"),
        (lambda: Categorical((math.nan,)), "choices"),
    ],
)
def test_mistakes_name_their_field(make, field):
    with pytest.raises(StudyError) as caught:
        make()
    assert [problem.field for problem in caught.value.problems] == [field]
    assert len(caught.value.problems[0].message) < 150


def test_all_mistakes_of_a_parameter_at_once():
    with pytest.raises(StudyError) as caught:
        Float("a", None, points="5")  # type: ignore[arg-type]
    assert [problem.field for problem in caught.value.problems] == ["low", "high", "points"]


def test_choices_are_told_apart_by_type():
    p = Categorical((1, 1.0, True, "1", None))
    assert p.size == 5
    assert [p.from_unit(p.to_unit(c)) for c in p.choices] == list(p.choices)
    assert not p.contains(0)
    with pytest.raises(ValueError, match="none of"):
        p.to_unit("2")


SPACE = SearchSpace(
    {
        "lr": Float(1e-5, 1, log=True, points=3),
        "width": Categorical((64,)),
        "n": Int(1, 9),
        "act": Categorical(("a", "b")),
    }
)


@quick
@given(st.tuples(unit, unit, unit))
def test_a_setting_holds_fixed_values_and_comes_back(point):
    params = SPACE.from_unit(point)
    assert list(params) == ["lr", "width", "n", "act"]
    assert params["width"] == 64
    assert SPACE.contains(params)
    assert SPACE.contains(SPACE.from_unit(SPACE.to_unit(params)))
    assert SPACE.from_unit(SPACE.to_unit(params))["n"] == params["n"]


def test_a_space():
    assert SPACE.dimensions == 3
    assert SPACE.fixed == {"width": 64}
    assert SPACE.grid(2) == {"lr": [1e-5, pytest.approx(10**-2.5), 1], "n": [1, 9], "act": ["a", "b"]}
    assert [len(v) for v in SPACE.grid({"n": 4}).values()] == [3, 4, 2]
    assert not SPACE.contains({"lr": 0.1})
    inner = SPACE.narrow({"lr": (0.0, 0.4), "act": (0.0, 0.1)})
    assert inner.parameters["lr"].high == pytest.approx(1e-3)
    assert inner.parameters["act"] == SPACE.parameters["act"]
