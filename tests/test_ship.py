"""The rows of ship's checklist that look at one trial alone, each where it holds, where it fails and where nobody can
say; ``test_confirm.py`` has those that compare, and the looks at the test set."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.objective import ObjectiveAddress, source_hash
from hpsearch.ship import _healthy, _not_at_an_edge, _same_code
from hpsearch.space import Categorical, Float, Int, SearchSpace
from hpsearch.store import Claim, Turn, this_process
from hpsearch.stores.memory import MemoryArchive, MemoryRecord, MemoryStore
from hpsearch.trial import Direction, Environment, EpochReport, Run, RunKey, State, Trial
from tests.conformance.stores import RECORD, done

SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1, log=True),
        "width": Int(8, 64),
        "dropout": Float(0, 0.5),
        "act": Categorical(("relu", "tanh")),
    }
)


@pytest.mark.parametrize(
    ("params", "holds", "words"),
    [
        ({"lr": 0.01, "width": 30, "dropout": 0.2}, True, ["every hyperparameter lies inside of its range"]),
        ({"lr": 0.95, "width": 30, "dropout": 0.2}, False, ["lr 0.95 at the high end; try lr: "]),
        ({"lr": 1.1e-4, "width": 30, "dropout": 0.2}, False, ["lr 0.00011 at the low end"]),
        ({"lr": 0.95, "width": 64, "dropout": 0.2}, False, ["lr 0.95 at the high end", "width 64 at the high end"]),
        ({"lr": 0.01, "width": 30, "dropout": 0.0}, True, ["inside"]),  # below 0 there is nothing
    ],
)
def test_a_trial_at_an_edge_is_not_ready(params, holds, words):
    others = [
        Trial(
            number=n, params={"lr": 0.01, "width": 30, "dropout": 0.2, "act": "relu"}, state=State.COMPLETE, value=1.0
        )
        for n in range(3)
    ]
    this = Trial(number=3, params={**params, "act": "relu"}, state=State.COMPLETE, value=0.5)
    found = _not_at_an_edge(SPACE, [*others, this], this, Direction.MINIMIZE)
    assert found.holds is holds
    for part in words:
        assert part in found.words


def test_a_baseline_at_an_edge_is_not_the_searchs_fault():
    this = Trial(
        number=0, params={"lr": 1.0, "width": 64, "dropout": 0.5, "act": "relu"}, state=State.COMPLETE, value=0.5,
        baseline=True,
    )  # fmt: skip
    assert _not_at_an_edge(SPACE, [this], this, Direction.MINIMIZE).holds is None


def trained(*courses):
    """The archive of a trial with a run for each course, and the trial; a course: layer -> gradient norm an epoch."""
    record = MemoryRecord()
    store, keys = MemoryStore(record), [RunKey(0, seed) for seed in range(len(courses))]
    store.open(RECORD, this_process(), lease_s=60.0)
    new = Trial(number=0, params={}, runs=tuple(Run(key=key) for key in keys))
    store.write(Turn(trials=[new], claims=[Claim(run=key, attempt=1) for key in keys]))
    epochs = [
        EpochReport(
            run=key,
            attempt=1,
            epoch=epoch,
            metrics={"val_loss": 1.0},
            layers={layer: (norm, 1.0) for layer, norm in norms.items()},
        )
        for key, course in zip(keys, courses, strict=True)
        for epoch, norms in enumerate(course)
    ]
    store.write(Turn(epochs=epochs, finished=[done(key, last_epoch=1) for key in keys]))
    archive = MemoryArchive(record)
    return archive, archive.trials(RECORD.name)[0]


@pytest.mark.parametrize(
    ("courses", "holds", "words"),
    [
        ([[{"a": 0.5, "b": 1.0}], [{"a": 0.1, "b": 2.0}]], True, "in all 2 runs"),
        ([[{"a": 0.5}], [{"a": 1e-8}]], False, "a: vanishing gradient (1e-08) with seed 1"),
        ([[{"a": 0.5, "b": 5e3}]], False, "b: exploding gradient (5e+03) with seed 0"),
        ([[{"a": 0.5, "b": math.inf}]], False, "b: exploding gradient"),
        ([[{"a": 1e-8}, {"a": 0.5}]], True, "in all 1 runs"),  # the last epoch counts
        ([[dict.fromkeys("abcde", 1e-08)]], False, "and 2 more"),
        ([[{}]], None, "no norms of layers were recorded"),
    ],
)
def test_layers_whose_gradients_vanish_or_explode_are_named(courses, holds, words):
    archive, trial = trained(*courses)
    found = _healthy(archive, RECORD.name, trial)
    assert found.holds is holds
    assert words in found.words


HERE = {"python": "3.11", "torch": "2.13", "device": "cpu", "machine": "x86"}


@pytest.mark.parametrize(
    ("places", "edit", "holds", "words"),
    [
        ([{}, {}], "", True, "in all its runs, and now"),
        ([None], "", True, "in all its runs, and now"),
        ([{}], "# mended\n", False, "the training code has changed since the study was stored"),
        ([{}, {"torch": "2.12"}], "", False, "its runs had several of torch: 2.13, 2.12"),
        ([{}, {"device": "cuda:0 (NVIDIA H100)"}], "", False, "several of device: cpu, cuda:0 (NVIDIA H100)"),
        ([{"git_commit": "a" * 40}, {"git_commit": "b" * 40}], "", False, f"git commit: {'a' * 12}, {'b' * 12}"),
        ([{"git_commit": "a" * 40, "git_dirty": True}], "", False, "there were uncommitted changes"),
        ([{}], None, False, "the training code is gone"),
    ],
)
def test_other_code_or_software_is_named(tmp_path: Path, places, edit, holds, words):
    code = tmp_path / "train.py"
    code.write_text("def train(run):\n    return 0.0\n")
    address = ObjectiveAddress("train.py", "train", tmp_path)
    record = MemoryRecord()
    stored = replace(RECORD, code_hash=source_hash(address))
    MemoryStore(record).open(stored, this_process(), lease_s=60.0)
    if edit is None:
        code.unlink()
    else:
        code.write_text(code.read_text() + edit)
    where = [None if place is None else Environment(**{**HERE, **place}) for place in places]
    runs = [Run(key=RunKey(0, seed), environment=one) for seed, one in enumerate(where)]
    found = _same_code(address, MemoryArchive(record).study(RECORD.name), Trial(number=0, params={}, runs=tuple(runs)))
    assert found.holds is holds
    assert words in found.words
