"""Fused training on a GPU: on every rung of the ladder a lane is the run alone. Skipped where there is no CUDA device.

``pytest tests/gpu`` takes some three minutes, with ``-n 8`` one, most of it compiling.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpsearch.executor import Assignment
from hpsearch.objective import Data
from hpsearch.training import step
from hpsearch.training.data import prepare
from hpsearch.training.groups import Trainer
from hpsearch.training.randomness import Purpose, keep_mask, mask_key, orders, permutation, uniform
from hpsearch.training.streaming import is_streamed
from hpsearch.trial import PausedReport, RunKey, State
from tests.training.fusing import (
    CNN,
    CNN16,
    CNN32,
    MLP,
    MLP16,
    MLP32,
    Told,
    Transformer,
    Transformer16,
    Words,
    Words16,
    alone,
    assert_same,
    assert_same_state,
    assignments,
    classes,
    is_fused,
    key,
    keys,
    noise,
    together,
)
from tests.training.test_step import training_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # torch's own, while it captures and compiles
    pytest.mark.filterwarnings("default"),
]
CUDA = "cuda:0"
GRAPH = "vmap + graph"
COMPILED = "compiled + graph"


@pytest.fixture(autouse=True)
def float32_is_float32():
    """No tf32: tolerances here are float32's."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def settings_of(count, **same):
    return [
        {"lr": 0.01 * (1 + k % 5), "dropout": 0.1 * (k % 5), "weight_decay": 0.01 * (k % 3), **same}
        for k in range(count)
    ]


# The same numbers as alone


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("task", [MLP, CNN, Transformer, Words])
def test_captured_lanes_are_the_runs_alone(tmp_path, task, optimizer):
    runs = assignments(settings_of(7, optimizer=optimizer, clip=1.0), until=3)
    lanes = together(task, tmp_path / "lanes", runs, device=CUDA)
    solo = alone(task, tmp_path / "solo", runs, device=CUDA)
    assert is_fused(lanes, 7, GRAPH), lanes.grouped
    assert not lanes.grouped[0].reason
    assert_same(lanes, solo, keys(runs), 1e-7)
    for run in runs:
        assert_same_state(lanes.checkpoint(run.run), solo.checkpoint(run.run), 1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adagrad", "rmsprop", "adam"])
def test_every_other_optimizer_is_captured(tmp_path, optimizer):
    runs = assignments(settings_of(3, optimizer=optimizer, l1=1e-3, label_smoothing=0.1), until=3)
    lanes = together(MLP, tmp_path / "lanes", runs, device=CUDA)
    assert is_fused(lanes, 3, GRAPH), lanes.grouped
    assert_same(lanes, alone(MLP, tmp_path / "solo", runs, device=CUDA), keys(runs), 1e-7)


def test_a_gpu_trains_what_a_cpu_trains(tmp_path):
    runs = assignments(settings_of(64))
    there = together(MLP, tmp_path / "cuda", runs, device=CUDA)
    assert is_fused(there, 64, GRAPH)
    assert_same(there, alone(MLP, tmp_path / "cpu", runs), keys(runs), 1e-6)


@pytest.mark.parametrize("task", [MLP, CNN, Transformer, Words])
def test_a_step_is_the_same_on_every_rung(task):
    def plain(training):
        training.steps.capture_never()

    def compiled(training):
        training.steps.compile_always()

    found = {}
    for rung, choose in {"vmap": plain, GRAPH: lambda training: None, COMPILED: compiled}.items():
        training = training_of(task(), device=CUDA)
        choose(training)
        tables = [training.run_epoch() for _ in range(2)]
        assert (training.steps.engine, training.steps.reason) == (rung, "")
        found[rung] = tables, training.stack.flat[:3].clone()
    for rung in (GRAPH, COMPILED):
        for tables, others in zip(found[rung][0], found["vmap"][0], strict=True):
            for table, other in zip(tables, others, strict=True):
                assert table == pytest.approx(other, rel=1e-9), rung
        assert torch.allclose(found[rung][1], found["vmap"][1], rtol=1e-8, atol=1e-11), rung


@pytest.mark.parametrize("task", [MLP16, CNN16, Transformer16, Words16])
@pytest.mark.parametrize("rung", [GRAPH, COMPILED])
def test_mixed_precision_is_fused_on_every_rung(tmp_path, monkeypatch, task, rung):
    if rung == COMPILED:
        monkeypatch.setattr(step, "COMPILED_STEPS", 0)
    runs = assignments(settings_of(3, lr=0.01), until=2)
    lanes = together(task, tmp_path / "lanes", runs, device=CUDA)
    assert is_fused(lanes, 3, rung), lanes.grouped
    solo = alone(task, tmp_path / "solo", runs, device=CUDA)
    for run in keys(runs):
        for ours, theirs in zip(lanes.curve(run), solo.curve(run), strict=True):
            assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=0.05)


def test_what_is_random_is_the_same_on_both_devices():
    seeds, epochs = [3, 4, 5], [0, 1, 2]
    here, there = torch.device("cpu"), torch.device(CUDA)
    assert torch.equal(orders(seeds, epochs, 999, there).cpu(), orders(seeds, epochs, 999, here))
    assert torch.equal(permutation(7, Purpose.SPLIT, 0, 999, CUDA).cpu(), permutation(7, Purpose.SPLIT, 0, 999))
    stream = mask_key(11, 12, 0)
    masks = [keep_mask(70_000, 0.3, stream, torch.device(device)).cpu() for device in (CUDA, "cpu")]
    assert torch.equal(*masks)
    numbers = [uniform((1, 2), (300, 5), device).cpu() for device in (CUDA, "cpu")]
    assert torch.equal(*numbers)


class Waiting(MLP):
    """Its metric waits for the device, which a capture does not allow."""

    def metrics(self, output, target):
        torch.cuda.synchronize()
        return {"accuracy": (output.argmax(1) == target).double().mean()}


def test_a_rung_that_validation_leaves_is_said_once(tmp_path):
    runs = assignments(settings_of(3), until=3)
    told = together(Waiting, tmp_path / "lanes", runs, device=CUDA)
    assert [bool(grouped.reason) for grouped in told.grouped] == [False, True], told.grouped
    assert "not captured in validation" in told.grouped[1].reason
    assert_same(told, alone(Waiting, tmp_path / "solo", runs, device=CUDA), keys(runs), 1e-7)


# Company


@pytest.mark.parametrize("task", [MLP32, CNN])
@pytest.mark.parametrize("rung", [GRAPH, COMPILED])
def test_a_lane_that_explodes_changes_no_other_by_a_bit(tmp_path, monkeypatch, task, rung):
    if rung == COMPILED:
        monkeypatch.setattr(step, "COMPILED_STEPS", 0)

    def trained(name, lr):
        settings = settings_of(5, clip=1.0, optimizer="momentum")
        settings[2]["lr"] = lr
        told = together(task, tmp_path / name, assignments(settings), device=CUDA)
        assert is_fused(told, 5, rung), told.grouped
        return told

    benign, again, exploding = trained("benign", 0.01), trained("again", 0.01), trained("exploding", 1e30)
    for k in (0, 1, 3, 4):
        assert again.curve(key(k)) == benign.curve(key(k))
        assert exploding.curve(key(k)) == benign.curve(key(k))
        assert [r.layers for r in exploding.epochs(key(k))] == [r.layers for r in benign.epochs(key(k))]
    assert exploding.last(key(2)).state in (State.DIVERGED, State.COMPLETE)
    assert exploding.curve(key(2)) != benign.curve(key(2))


@pytest.mark.parametrize("task", [MLP, CNN])
def test_lanes_end_are_moved_and_filled_again(tmp_path, task):
    lengths = [1, 2, 6, 3, 2, 1, 4, 5]
    settings = [{**one, "epochs": n} for one, n in zip(settings_of(8), lengths, strict=True)]
    runs = assignments(settings)
    told = together(task, tmp_path / "lanes", runs, lanes=3, device=CUDA)
    assert is_fused(told, engine=GRAPH), told.grouped
    assert_same(told, alone(task, tmp_path / "solo", runs, device=CUDA), keys(runs), 1e-7)


def test_the_next_handful_has_the_steps_that_are_compiled(tmp_path, monkeypatch):
    from torch._dynamo.utils import counters  # seconds, where every test here is skipped

    monkeypatch.setattr(step, "COMPILED_STEPS", 0)
    trainer, before = Trainer(CUDA), counters["stats"]["unique_graphs"]
    runs = assignments(settings_of(6), until=2)
    first = together(MLP, tmp_path / "lanes", runs[:3], device=CUDA, trainer=trainer)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled - before == 1
    second = together(MLP, tmp_path / "lanes", runs[3:], device=CUDA, trainer=trainer)
    assert counters["stats"]["unique_graphs"] == compiled
    assert is_fused(first, 3, COMPILED), first.grouped
    assert is_fused(second, 3, COMPILED), second.grouped
    assert_same(second, alone(MLP, tmp_path / "solo", runs[3:], device=CUDA), keys(runs[3:]), 1e-7)


def test_a_larger_model_after_a_smaller_one_leaves_its_masks_alone(tmp_path):
    """Graphs go on reading the indices of their masks when a larger model has needed more of them."""
    whole, parted = training_of(MLP(), device=CUDA), training_of(MLP(), device=CUDA)
    expected = [whole.run_epoch() for _ in range(2)]
    found = [parted.run_epoch()]
    together(Wide, tmp_path, assignments(settings_of(3), until=1), device=CUDA)
    assert [*found, parted.run_epoch()] == expected


class Wide(MLP):
    def model(self, params):
        return nn.Sequential(nn.Linear(5, 70_000), nn.Dropout(0.2), nn.Linear(70_000, 3))


@pytest.mark.parametrize("ways", ["lanes solo", "solo lanes"])
def test_a_paused_run_goes_on_in_lanes_or_alone(tmp_path, ways):
    settings, said = settings_of(4), Told(tmp_path / "parts")
    for until, way in zip((2, None), ways.split(), strict=True):
        train = together if way == "lanes" else alone
        told = train(CNN, tmp_path / "parts", assignments(settings, until=until), device=CUDA)
        said.sent += told.unpaused()
    runs = assignments(settings)
    assert_same(said, alone(CNN, tmp_path / "whole", runs, device=CUDA), keys(runs), 1e-7)


# Memory


class Hungry(MLP32):
    """Some 300 MB of activations a lane."""

    batch_size = 64

    def model(self, params):
        wide = [nn.Linear(5, 1 << 18), nn.ReLU(), nn.Dropout(params["dropout"])]
        return nn.Sequential(*wide, nn.Linear(1 << 18, 3))


@pytest.fixture
def small():
    """A device with so many bytes."""
    total = torch.cuda.get_device_properties(0).total_memory

    def to(size):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + size) / total))

    yield to
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_too_little_memory_halves_the_group_and_goes_on(tmp_path, small):
    runs = assignments(settings_of(16), until=2)
    small(6 << 30)
    told = together(Hungry, tmp_path / "lanes", runs, device=CUDA)
    reasons = [grouped.reason for grouped in told.grouped]
    assert "out of memory with 16 lanes" in reasons, reasons
    assert all(isinstance(told.last(run), PausedReport) for run in keys(runs)), told.grouped
    assert {grouped.engine for grouped in told.grouped if not grouped.reason} == {GRAPH}
    small(1 << 40)
    assert_same(told, alone(Hungry, tmp_path / "solo", runs, device=CUDA), keys(runs), 1e-3)


def test_lanes_are_as_many_as_pay_and_fit(tmp_path):
    runs = assignments(settings_of(24), until=1)
    told = together(MLP32, tmp_path, runs, device=CUDA, fixed_lanes=False)
    assert 8 <= told.grouped[0].lanes <= 24
    assert all(isinstance(told.last(run), PausedReport) for run in keys(runs))


# Data


class Bytes(CNN32):
    def data(self):
        pixels = (noise(1, 6, 6) * 40 + 100 + 20 * classes()[:, None, None, None]).clamp(0, 255).to(torch.uint8)
        return Data(pixels, classes(), transform=lambda batch: batch.float() / 255 - 0.5)


class StreamedBytes(Bytes):
    stream = True


def test_streamed_lanes_are_the_resident_ones(tmp_path):
    assert prepare(Bytes(), 0, CUDA)[0].train.inputs.dtype == torch.uint8
    runs = [Assignment(run=RunKey(k, 5), params=one, attempt=1, until_epoch=3) for k, one in enumerate(settings_of(3))]
    streamed = together(StreamedBytes, tmp_path / "streamed", runs, device=CUDA)
    resident = together(Bytes, tmp_path / "resident", runs, device=CUDA)
    assert is_fused(resident, 3, GRAPH)
    assert {grouped.engine for grouped in streamed.grouped} == {GRAPH}
    for run in keys(runs):
        for ours, theirs in zip(streamed.curve(run), resident.curve(run), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


def test_what_fills_half_of_the_device_is_streamed():
    free = torch.cuda.mem_get_info()[0]
    assert not is_streamed(None, int(0.4 * free), CUDA)
    assert is_streamed(None, int(0.6 * free), CUDA)


def test_numbers_that_are_not_finite_stay_in_their_lane(tmp_path):
    runs = assignments([{"lr": 0.1}, {"lr": 1e300}, {"lr": 0.05}])
    told = together(MLP, tmp_path, runs, device=CUDA)
    for run in (key(0), key(2)):
        assert all(math.isfinite(metrics["val_loss"]) for metrics in told.curve(run))
