"""The filter bar: what can be asked, what it leaves, and what is said of what cannot be read."""

from __future__ import annotations

import pytest

from hpsearch.dashboard.query import Filter, column, filter_of, ordered
from hpsearch.errors import UsageError
from hpsearch.figures.subject import Subject
from hpsearch.space import Categorical, Float, SearchSpace
from hpsearch.trial import Direction, Run, RunKey, State, Trial

SPACE = SearchSpace({
    "lr": Float(1e-4, 1, log=True), "lr_end": Float(0, 1), "act": Categorical(("relu", "tanh", None)),
    "batch_size": Categorical((32, 64)), "a<=b": Float(0, 1), "nesterov": Categorical((True, False)),
})  # fmt: skip


def trial(number: int, value: float | None, state: State = State.COMPLETE, **params: object) -> Trial:
    given = {"lr": 0.1, "lr_end": 0.5, "act": "relu", "batch_size": 32, "a<=b": 0.5, "nesterov": True} | params
    return Trial(
        number=number, params=given, state=state, value=value, runs=(Run(key=RunKey(number, 0), seconds=number),)
    )  # type: ignore[arg-type]


TRIALS = [
    trial(0, 0.5, lr=0.01, act=None),
    trial(1, None, State.DIVERGED, lr=0.9, act="tanh"),
    trial(2, 0.3, batch_size=64, nesterov=False),
    trial(3, 0.4, State.PRUNED, **{"a<=b": 0.1}),
]
SUBJECT = Subject(
    study="s", strategy="random", metric="val_loss", direction=Direction.MINIMIZE, space=SPACE, trials=TRIALS
)


def chosen(*where: str, state: tuple[str, ...] = ()) -> list[int]:
    return [t.number for t in Filter(state, where).choose(SUBJECT)]


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ("lr<0.1", [0]), ("lr <= 1e-1", [0, 2, 3]), ("lr>0.1", [1]), ("lr!=0.1", [0, 1]), ("lr_end=0.5", [0, 1, 2, 3]),
        ("val_loss<0.45", [2, 3]), ("value>=0.5", [0]), ("value=null", [1]), ("value!=null", [0, 2, 3]),
        ("state=pruned", [3]), ("state!=complete", [1, 3]), ("act=tanh", [1]), ("act = null", [0]),
        ("act!=relu", [0, 1]),
        ("batch_size=64.0", [2]), ("batch_size<40", [0, 1, 3]), ("a<=b<0.2", [3]), ("nesterov=false", [2]),
        ("number>=2", [2, 3]), ("seconds<2", [0, 1]),
    ],
)  # fmt: skip
def test_a_condition_leaves_what_fits(where: str, numbers: list[int]) -> None:
    assert chosen(where) == numbers


def test_all_conditions_hold_together_and_any_state_will_do() -> None:
    assert chosen("lr=0.1", "value<0.35") == [2]
    assert chosen("lr=0.1", state=("complete", "pruned")) == [2, 3]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("lr", "is no condition"), ("lr<", "is no condition"), ("<3", "is no condition"),
        ("lrr<3", "did you mean lr"), ("momentum<3", "they have number, state"),
        ("lr<abc", "lr is a number"), ("lr<nan", "lr is a number"),
        ("act<tanh", "act has no order"), ("act=tan", "act is never 'tan'"),
        ("batch_size=48", "one of 32, 64"), ("batch_size<x", "batch_size is a number"),
        ("state=done", "state is never 'done'"),
        ("__import__('os')=1", "the trials have no"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_way_out(where: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        chosen(where)
    assert words in f"{error.value}; {error.value.hint}"


def test_a_page_keeps_what_was_typed_and_shows_what_the_rest_leaves() -> None:
    found = Filter(("complete", "done"), ("lr<0.1", "lr<abc")).checked(SUBJECT)
    assert set(found.problems) == {"done", "lr<abc"}
    assert found.where == ("lr<0.1", "lr<abc")
    assert found.sound == Filter(("complete",), ("lr<0.1",))
    assert found == Filter(("complete", "done"), ("lr<0.1", "lr<abc"))


def test_empty_and_repeated_fields_of_the_form_are_none() -> None:
    assert not filter_of(["", ""], ["", "  "])
    assert filter_of(["complete", "complete"], [" lr<1 ", "lr<1"]) == Filter(("complete",), ("lr<1",))


def test_order() -> None:
    def numbers(sort: str, direction: Direction = Direction.MINIMIZE) -> list[int]:
        return [t.number for t in ordered(TRIALS, sort, "val_loss", direction)]

    assert numbers("rank") == [2, 3, 0, 1]
    assert numbers("rank", Direction.MAXIMIZE) == [0, 3, 2, 1]
    assert numbers("-val_loss") == [0, 3, 2, 1]
    assert numbers("-number") == [3, 2, 1, 0]
    assert numbers("act") == [2, 3, 1, 0]
    assert column(TRIALS[3], "seconds") == 3
