"""Data that stays where it is: the same numbers as a copy on the device gives, and never a copy of the whole."""

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from hpsearch.errors import ObjectiveError
from hpsearch.executor import Assignment
from hpsearch.objective import Data, Plateau, Split, TrainingTask
from hpsearch.training.build import build
from hpsearch.training.data import prepare, sealed_test
from hpsearch.training.fused import FusedTraining
from hpsearch.training.lane import Lane
from hpsearch.training.probe import probe
from hpsearch.training.recipe import ModelParams, resolve
from hpsearch.training.schedule import Rate
from hpsearch.training.streaming import Streamed, is_streamed
from hpsearch.training.structure import structure_of
from hpsearch.trial import STREAMED, EpochReport, PausedReport, RunKey, State
from tests.training import test_groups, test_ways
from tests.training.fusing import (
    CNN,
    CNN32,
    MLP,
    MLP32,
    Later,
    Told,
    Transformer,
    Transformer32,
    Words,
    Words32,
    alone,
    assert_same,
    assert_same_state,
    is_fused,
    keys,
    together,
)
from tests.training.test_groups import MEMORY

SAVED = ("model", "best", "buffers")


class Paged(test_ways.Pictures):
    """Bytes that are transformed, augmented, cut into folds; a batch of which the last is a part."""

    folds = 3

    def augment(self, batch, key):
        return batch + 0.3 * key.uniform(*batch.shape).to(batch.dtype)


class Official(MLP):
    def data(self):
        data = MLP.data(self)
        return Data(data.inputs[:100], data.targets[:100], data.inputs[100:], data.targets[100:])


RESIDENT = [
    *(MLP, CNN, Transformer, Words, MLP32, CNN32, Transformer32, Words32, Paged, Official),
    *test_ways.TASKS,
    *(test_groups.Long, test_groups.Limited, test_groups.Sloped),
]
#: as they are -> the same, streamed
STREAMS = {
    task: type(f"Streamed{task.__name__}", (task,), {"stream": True, "__module__": __name__}) for task in RESIDENT
}


def __getattr__(name):
    """The streamed ones by name, as a worker looks for them."""
    try:
        return next(task for task in STREAMS.values() if task.__name__ == name)
    except StopIteration:
        raise AttributeError(name) from None


def runs_of(settings, seeds=(5,), until=None):
    """A trial a setting, a run a seed; in the order of trials."""
    pairs = [(trial, seed) for trial in range(len(settings)) for seed in seeds]
    return [
        Assignment(run=RunKey(trial, seed), params=dict(settings[trial]), attempt=1, until_epoch=until)
        for trial, seed in pairs
    ]


def numbers(count):
    return [{"lr": 0.05 * (k + 1), "dropout": 0.1 * k, "weight_decay": 0.01} for k in range(count)]


def paces(told):
    """(seed, epoch, lanes) of each epoch that was trained together: all lanes of one seed, at one epoch."""
    found = []
    for sent in told.sent:
        epochs = [report for report in sent if isinstance(report, EpochReport)]
        if epochs:
            assert len({(report.run.seed, report.epoch) for report in epochs}) == 1
            found.append((epochs[0].run.seed, epochs[0].epoch, len(epochs)))
    return found


def assert_bit_equal(one, other, runs):
    for run in runs:
        assert one.curve(run) == other.curve(run)
        assert [r.layers for r in one.epochs(run)] == [r.layers for r in other.epochs(run)]
        a, b = one.checkpoint(run), other.checkpoint(run)
        for part in SAVED:
            assert all(torch.equal(a[part][name], tensor) for name, tensor in b[part].items())


# The numbers are the same


@pytest.mark.parametrize("task", [Transformer, Words, Paged, Official, *test_ways.TASKS])
def test_alone_a_streamed_run_is_the_resident_one_to_the_bit(tmp_path, task):
    runs = runs_of([{"lr": 0.05, "weight_decay": 0.01}], until=2)
    one = alone(STREAMS[task], tmp_path / "streamed", runs)
    assert_bit_equal(one, alone(task, tmp_path / "resident", runs), keys(runs))


@pytest.mark.parametrize("task", [MLP, CNN, Transformer, Words, Paged, *test_ways.TASKS])
def test_lanes_of_each_seed_are_the_runs_alone(tmp_path, task):
    settings = [{"lr": 0.05 * (k + 1), "weight_decay": 0.01} for k in range(3)]
    runs = runs_of(settings, seeds=(5, 8), until=2)
    lanes, solo = together(STREAMS[task], tmp_path / "lanes", runs), alone(task, tmp_path / "solo", runs)
    assert is_fused(lanes, 3), lanes.grouped
    assert [{run.seed for run in g.runs} for g in lanes.grouped] == [{5}, {8}]
    assert [g.reason for g in lanes.grouped] == [STREAMED] * 2
    assert paces(lanes) == [(seed, epoch, 3) for seed in (5, 8) for epoch in range(2)]
    assert {lanes.last(run).engine for run in keys(runs)} == {"vmap + stream, cpu, 3 lanes"}
    assert_same(lanes, solo, keys(runs))
    for run in keys(runs):
        assert_same_state(lanes.checkpoint(run), solo.checkpoint(run))


def test_lanes_of_many_kinds_with_all_that_the_loop_offers(tmp_path):
    settings = [
        {**params, "optimizer": "adam", "clip": 0.2 + 0.1 * k, "label_smoothing": 0.05 + 0.01 * k, "l1": 1e-3 * (k % 3),
         "schedule": ["constant", "cosine", Plateau(patience=0, factor=0.5, threshold=0.05)][k % 3]}
        for k, params in enumerate(numbers(7))
    ]  # fmt: skip
    runs = runs_of(settings)
    lanes = together(STREAMS[CNN], tmp_path / "lanes", runs)
    assert is_fused(lanes, 7)
    assert_same(lanes, alone(CNN, tmp_path / "solo", runs), keys(runs))


@pytest.mark.parametrize(
    ("task", "optimizer"), [(MLP32, "adam"), (CNN32, "momentum"), (Transformer32, "momentum"), (Words32, "rmsprop")]
)
def test_on_a_cpu_the_bits_do_not_depend_on_slot_or_company(tmp_path, task, optimizer):
    def among(before, after):
        settings = [{"optimizer": optimizer, "dropout": 0.1 * (k % 5), "lr": 0.02 * k} for k in range(before + after)]
        settings.insert(before, {"optimizer": optimizer, "dropout": 0.3, "weight_decay": 0.02, "lr": 0.03})
        run = runs_of(settings, until=3)[before].run
        told = together(STREAMS[task], tmp_path / f"{before} {after}", runs_of(settings, until=3))
        assert is_fused(told, before + 1 + after)
        return told.curve(run), told.checkpoint(run)

    curve, state = among(0, 0)
    for before, after in [(1, 0), (0, 6), (6, 0), (3, 30)]:
        other, others = among(before, after)
        assert other == curve
        for part in SAVED:
            assert all(torch.equal(others[part][name], tensor) for name, tensor in state[part].items())


def test_a_lane_that_explodes_changes_no_other_by_a_bit(tmp_path):
    def trained(name, lr):
        settings = [{"lr": lr if k == 2 else 0.01, "dropout": 0.1 * k} for k in range(4)]
        return together(STREAMS[CNN], tmp_path / name, runs_of(settings))

    benign, exploding = trained("benign", 0.01), trained("exploding", 1e308)
    for k in (0, 1, 3):
        assert exploding.curve(RunKey(k, 5)) == benign.curve(RunKey(k, 5))
    assert exploding.last(RunKey(2, 5)).state is State.DIVERGED
    assert benign.last(RunKey(2, 5)).state is State.COMPLETE


# Lanes come and go


def test_a_freed_lane_waits_until_the_group_is_empty(tmp_path):
    """Two lanes for five runs a seed: no run begins beside one that is further."""
    settings = [{**params, "epochs": n} for params, n in zip(numbers(5), [2, 4, 1, 3, 2], strict=True)]
    runs = runs_of(settings, seeds=(5, 8))
    told = together(STREAMS[CNN], tmp_path / "lanes", runs, lanes=2)
    assert is_fused(told)
    assert_same(told, alone(CNN, tmp_path / "solo", runs), keys(runs))
    pairs = [(0, 2), (1, 2), (2, 1), (3, 1), (0, 2), (1, 1), (2, 1), (0, 1), (1, 1)]
    assert paces(told) == [(seed, *pair) for seed in (5, 8) for pair in pairs]
    assert len(told.grouped) == 2


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_promoted_run_joins_the_lanes_of_its_seed_where_they_stand_at_its_rung(tmp_path, call):
    """Paused after two epochs, it is given again when the others have trained one, two or three."""
    settings = [{**params, "epochs": 5} for params in numbers(3)]
    whole = runs_of(settings)
    first = together(STREAMS[CNN], tmp_path / "lanes", runs_of(settings, until=2)[2:])
    assert isinstance(first.last(whole[2].run), PausedReport)
    again = [[]] * call + [whole[2:]]
    told = together(STREAMS[CNN], tmp_path / "lanes", whole[:2], more=Later(*again))
    joined = [(5, 2, 3), (5, 3, 3), (5, 4, 3)]
    apart = [(5, 2, 2), (5, 3, 2), (5, 4, 2), (5, 2, 1), (5, 3, 1), (5, 4, 1)]
    # Given after the first epoch it waits for the others to come to its own.
    assert paces(told) == [(5, 0, 2), (5, 1, 2), *(apart if call == 2 else joined)]
    told.sent = first.unpaused() + told.sent
    assert_same(told, alone(CNN, tmp_path / "solo", whole), keys(whole))


@pytest.mark.parametrize("ways", ["lanes solo", "solo lanes", "lanes lanes", "lanes resident", "resident lanes"])
def test_a_paused_run_goes_on_in_lanes_or_alone_streamed_or_not(tmp_path, ways):
    settings = [{"dropout": 0.1 * k, "weight_decay": 0.01 * k} for k in range(3)]
    whole = runs_of(settings, seeds=(5, 8))
    said = Told(tmp_path / "parts")
    for way, until in zip(ways.split(), (3, None), strict=True):
        train = alone if way == "solo" else together
        task = test_groups.Long if way == "resident" else STREAMS[test_groups.Long]
        told = train(task, tmp_path / "parts", runs_of(settings, seeds=(5, 8), until=until))
        said.sent += told.unpaused()
    assert_same(said, alone(test_groups.Long, tmp_path / "whole", whole), keys(whole))


@pytest.mark.parametrize(("room", "later"), [(4, 10**9), (10**9, 6)])
def test_too_little_memory_halves_the_group_and_goes_on(tmp_path, monkeypatch, room, later):
    """At the first step, or in the third epoch: the half that waits is then no longer at the first one."""
    runs = runs_of([{"lr": 0.05, "dropout": 0.1 * k, "epochs": 5 + k % 2} for k in range(8)])
    solo = alone(test_groups.Limited, tmp_path / "solo", runs)
    for attribute, number in (("room", room), ("later", later), ("batches", count())):
        monkeypatch.setattr(MEMORY, attribute, number)
    told = together(STREAMS[test_groups.Limited], tmp_path / "lanes", runs)
    assert_same(told, solo, keys(runs))
    assert "out of memory with 8 lanes" in [g.reason for g in told.grouped]
    assert {g.engine for g in told.grouped} == {"vmap"}
    paces(told)


def test_lanes_of_each_seed_are_parted_by_a_float_that_they_cannot_differ_in(tmp_path):
    runs = runs_of([{"slope": slope} for slope in (0.5, 2.0, 0.5)], seeds=(5, 8))
    told = together(STREAMS[test_groups.Sloped], tmp_path / "lanes", runs)
    assert is_fused(told)
    assert sorted((g.lanes, g.runs[0].seed) for g in told.grouped) == [(1, 5), (1, 8), (2, 5), (2, 8)]
    assert_same(told, alone(test_groups.Sloped, tmp_path / "solo", runs), keys(runs))


def test_how_many_lanes_pay_is_measured(tmp_path):
    runs = runs_of(numbers(16))
    told = together(STREAMS[MLP], tmp_path / "lanes", runs, fixed_lanes=False)
    assert is_fused(told)
    assert_same(told, alone(MLP, tmp_path / "solo", runs[::5]), keys(runs[::5]))
    paces(told)


# A step by itself


def training_of(task, seeds):
    parts = prepare(task, 0, "cpu")[0]
    training, models = None, {}
    for k, (params, seed) in enumerate(zip(numbers(len(seeds)), seeds, strict=True)):
        recipe = resolve(task, params)
        models[k] = build(task, ModelParams(params), parts, seed).to(torch.float64)
        training = training or FusedTraining(task, parts, recipe, models[k], len(seeds))
        lane = Lane(recipe, seed, Rate(recipe.schedule, recipe.lr, recipe.epochs))
        training.add(lane, models[k], structure_of(models[k], [task]).floats)
    probe(training, models)
    return training


def test_a_compiled_step_takes_each_batch_as_its_input():
    task = STREAMS[test_ways.Augmented]
    plain, compiled = training_of(task(), [3, 3, 3]), training_of(task(), [3, 3, 3])
    compiled.steps.compile_always("aot_eager")
    for _ in range(2):
        for table, other in zip(compiled.run_epoch(), plain.run_epoch(), strict=True):
            assert table == pytest.approx(other, rel=1e-9)
    assert (plain.steps.engine, compiled.steps.engine, compiled.steps.reason) == ("vmap", "compiled", "")
    assert torch.allclose(compiled.stack.flat[:3], plain.stack.flat[:3], rtol=1e-9, atol=1e-12)


def test_lanes_of_two_seeds_never_share_a_batch():
    with pytest.raises(RuntimeError, match="one seed"):
        training_of(STREAMS[MLP](), [3, 4])


# What is streamed, and when


@pytest.mark.parametrize("task", [MLP, Paged, Official, test_ways.Integers, test_ways.Regression])
def test_an_index_gives_what_it_gives_of_a_copy(task):
    pairs = zip(prepare(STREAMS[task](), 0, "cpu"), prepare(task(), 0, "cpu"), strict=True)
    tests = sealed_test(STREAMS[task](), 0, "cpu")[0], sealed_test(task(), 0, "cpu")[0]
    for ours, theirs in [tests, *[(getattr(a, n), getattr(b, n)) for a, b in pairs for n in ("train", "validation")]]:
        assert isinstance(ours, Streamed)
        assert isinstance(theirs, Split)
        assert len(ours.inputs) == len(ours.targets) == len(theirs.targets)
        for rows in (torch.tensor([7, 0, 7]), slice(3, 9), slice(4000)):
            for part in ("inputs", "targets"):
                mine, copied = getattr(ours, part), getattr(theirs, part)
                assert mine[rows].dtype == copied.dtype  # uint8 stays uint8
                assert torch.equal(mine[rows], copied[rows])


class Mapped(TrainingTask):
    """A file of many rows, of which the first bytes are noise; the rest of the file takes no room on the disk."""

    width, rows, file = 100_000, 0, ""
    epochs = 1
    batch_size = 4

    def model(self, params):
        return nn.Linear(self.width, 2)

    def data(self):
        size = self.rows * self.width
        bytes_ = torch.from_file(self.file, shared=True, size=size, dtype=torch.uint8).view(self.rows, self.width)
        return Data(bytes_, torch.arange(self.rows) % 2, transform=lambda batch: batch.float() / 255)


def mapped(file: Path, rows: int, **attributes) -> TrainingTask:
    with file.open("wb") as opened:
        opened.write(os.urandom(Mapped.width))
        opened.truncate(rows * Mapped.width)
    return type("MappedFile", (Mapped,), {"rows": rows, "file": str(file), **attributes})()


def test_what_fills_the_memory_is_streamed_and_what_does_not_is_copied(tmp_path):
    size = psutil.virtual_memory().available
    (large,) = prepare(mapped(tmp_path / "large", size // Mapped.width), 0, "cpu")
    assert isinstance(large.train, Streamed)
    assert isinstance(large.validation, Streamed)
    assert large.train.inputs[:2].shape == (2, Mapped.width)
    (small,) = prepare(mapped(tmp_path / "small", 100), 0, "cpu")
    assert isinstance(small.train, Split)
    (wanted,) = prepare(mapped(tmp_path / "wanted", 100, stream=True), 0, "cpu")
    assert isinstance(wanted.train, Streamed)


def test_the_task_decides_before_the_size_does():
    assert [is_streamed(wanted, 10**15, "cpu") for wanted in (None, True, False)] == [True, True, False]
    assert [is_streamed(wanted, 1000, "cpu") for wanted in (None, True, False)] == [False, True, False]


@pytest.mark.parametrize(("folds", "streamed"), [(None, False), (5, True)])
def test_every_fold_counts(folds, streamed):
    """k folds are k copies: what fits once is streamed where k copies of it would not."""
    rows = int(0.1 * psutil.virtual_memory().available) // 800_000
    inputs = torch.zeros(1, dtype=torch.uint8).expand(rows, 800_000)  # that many bytes once they are copied
    task = type("Folded", (MLP,), {"folds": folds, "data": lambda self: Data(inputs, torch.arange(rows) % 2)})()
    assert {parts.streamed for parts in prepare(task, 0, "cpu")} == {streamed}


def test_an_odd_wish_is_named():
    with pytest.raises(ObjectiveError, match="stream: must be True, False or None"):
        prepare(type("Odd", (MLP,), {"stream": "yes"})(), 0, "cpu")


LIMITED = """
import resource, sys
from pathlib import Path
from tests.training.fusing import MLP, alone, together
from tests.training.test_streaming import Larger, runs_of

runs = runs_of([{"lr": 0.1}, {"lr": 0.01}])
for train in (alone, together):  # what is imported on the way has been
    train(MLP, Path(sys.argv[1]) / f"first {train.__name__}", runs)
kept = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
limit = kept + 300_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for train in (alone, together):
    told = train(Larger, Path(sys.argv[1]) / train.__name__, runs)
    for run in runs:
        last = told.last(run.run)
        print(last.state.value, last.engine, *last.error.splitlines()[-1:])
"""


class Larger(Mapped):
    """More than twice what its process may have in memory of its own."""

    width, rows = 4000, 200_000
    batch_size = 256
    file = os.environ.get("HPSEARCH_TEST_MAPPED", "")
    stream = None if "HPSEARCH_TEST_STREAM" not in os.environ else os.environ["HPSEARCH_TEST_STREAM"] == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux alone")
@pytest.mark.parametrize("stream", ["1", "0"])
def test_a_file_larger_than_the_memory_is_trained_on_where_it_is_streamed(tmp_path, stream):
    """A limit on memory of its own, which a mapped file does not count as: a copy of it would."""
    file = tmp_path / "data"
    with file.open("wb") as opened:
        opened.truncate(Larger.rows * Larger.width)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HPSEARCH_TEST_MAPPED": str(file), "HPSEARCH_TEST_STREAM": stream},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = done.stdout.splitlines()
    if stream == "1":
        assert ends == ["complete solo, cpu"] * 2 + ["complete vmap + stream, cpu, 2 lanes"] * 2
    else:
        assert len(ends) == 4
        assert all(end.startswith("failed") and "allocate memory" in end for end in ends), ends
