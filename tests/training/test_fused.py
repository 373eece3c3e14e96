"""Lanes against the solo loop: the same seed, the same training."""

import math

import pytest
import torch
from torch import nn

from hpsearch.objective import Data, Plateau, Step, TrainingTask
from hpsearch.training.precision import dtype_of
from hpsearch.training.randomness import Purpose, permutation
from hpsearch.training.recipe import OPTIMIZERS
from tests.training.fusing import (
    CNN,
    CNN16,
    CNN32,
    MLP,
    MLP16,
    MLP32,
    ROWS,
    STEPS,
    Transformer,
    Transformer16,
    Transformer32,
    Words,
    Words16,
    Words32,
    alone,
    assert_same,
    assert_same_state,
    assignments,
    gap,
    is_fused,
    key,
    together,
)

TASKS = [MLP, CNN, Transformer, Words]
SCHEDULES = ["constant", Step(every=3, gamma=0.5), "cosine", Plateau(patience=0, factor=0.5, threshold=0.05)]
#: a learning rate at which fifty steps move the weights far
RATES = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adagrad": 0.05, "rmsprop": 0.005, "adam": 0.01, "adamw": 0.01}
#: ten epochs of five steps, then a checkpoint
FIFTY = 10


def bare(optimizer: str, count: int) -> list[dict]:
    """Lanes that differ in the numbers of their optimizer, dropout and schedule."""
    lanes = []
    for k in range(count):
        params = {"optimizer": optimizer, "lr": RATES[optimizer] * (1 + k % 5 / 4), "epochs": FIFTY + 1 + k % 3}
        if optimizer in ("momentum", "nesterov"):
            params["momentum"] = 0.5 + 0.06 * (k % 8)
        if optimizer in ("adam", "adamw"):
            params["betas"] = (0.8 + 0.02 * (k % 8), 0.99 + 0.001 * (k % 9))
        lanes.append({**params, "dropout": 0.1 * (k % 8), "schedule": SCHEDULES[k % 4]})
    return lanes


def full(optimizer: str, count: int) -> list[dict]:
    """The same with penalties, clipping and smoothed labels, a number of its own for each lane."""
    return [
        {**params, "weight_decay": 0.01 * (k % 4), "l1": 1e-3 * (k % 3), "clip": 0.2 + 0.1 * k,
         "label_smoothing": 0.05 + 0.01 * k}
        for k, params in enumerate(bare(optimizer, count))
    ]  # fmt: skip


def assert_fifty_steps(task, folder, settings, compared=None) -> None:
    runs = assignments(settings, until=FIFTY)
    lanes = together(task, folder / "lanes", runs)
    assert is_fused(lanes, len(settings))
    chosen = runs if compared is None else [runs[k] for k in compared]
    solo = alone(task, folder / "solo", chosen)
    assert_same(lanes, solo, [run.run for run in chosen])
    for run in chosen:
        state = lanes.checkpoint(run.run)
        assert state["steps"] == FIFTY * STEPS
        assert_same_state(state, solo.checkpoint(run.run))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_fifty_steps_of_seven_lanes(tmp_path, task, optimizer):
    """Every optimizer, with all that the loop offers; every schedule, and first lane, last lane and those between."""
    place = OPTIMIZERS.index(optimizer)
    assert_fifty_steps(task, tmp_path, full(optimizer, 7), range(7) if task is MLP else [place % 4, 6])


@pytest.mark.parametrize(
    ("task", "optimizer"), [*((MLP, name) for name in OPTIMIZERS), (CNN, "adam"), (Transformer, "sgd")]
)
def test_fifty_steps_of_two_lanes_without_penalties(tmp_path, task, optimizer):
    assert_fifty_steps(task, tmp_path, bare(optimizer, 2))


@pytest.mark.parametrize(
    ("task", "optimizer"),
    [(MLP, "momentum"), (MLP, "adam"), (CNN, "nesterov"), (Transformer, "adamw"), (Words, "rmsprop")],
)
def test_fifty_steps_of_sixty_four_lanes(tmp_path, task, optimizer):
    assert_fifty_steps(task, tmp_path, full(optimizer, 64), [0, 31, 63])


@pytest.mark.parametrize("task", TASKS)
def test_fifty_steps_of_a_lane_alone(tmp_path, task):
    assert_fifty_steps(task, tmp_path, full("adam", 1))


@pytest.mark.parametrize(
    ("task", "tolerance"),
    [
        *[(task, 1e-10) for task in TASKS],
        *[(task, 1e-5) for task in (MLP32, CNN32, Transformer32, Words32)],
        *[(task, 1e-2) for task in (MLP16, CNN16, Transformer16, Words16)],
    ],
)
def test_gradients_of_one_step(tmp_path, task, tolerance):
    """Of an epoch of one step, where the velocity is the gradient."""
    settings = [
        {"momentum": 0.0, "batch_size": 200, "dropout": 0.1 * k, "label_smoothing": 0.1 + 0.02 * k} for k in range(7)
    ]
    runs = assignments(settings, until=1)
    lanes, solo = together(task, tmp_path / "lanes", runs), alone(task, tmp_path / "solo", runs)
    assert is_fused(lanes, 7)
    for run in runs:
        ours, theirs = (told.checkpoint(run.run) for told in (lanes, solo))
        assert ours["steps"] == 1
        assert theirs["buffers"]["velocity"].norm() > 0.01
        assert gap(ours["buffers"]["velocity"], theirs["buffers"]["velocity"]) <= tolerance


@pytest.mark.parametrize("task", [*TASKS, MLP32, CNN32, CNN16])
def test_initial_weights_are_the_factorys_to_the_bit(tmp_path, task):
    runs = assignments([{"lr": 0.0, "dropout": 0.1 * k} for k in range(7)], until=1)
    lanes, solo = together(task, tmp_path / "lanes", runs), alone(task, tmp_path / "solo", runs)
    assert is_fused(lanes, 7)
    for run in runs:
        torch.manual_seed(run.run.seed)
        made = task().model(run.params).to(dtype_of(task()))
        ours, theirs = (told.checkpoint(run.run)["model"] for told in (lanes, solo))
        for name, parameter in made.named_parameters():
            assert torch.equal(ours[name], parameter), name
            assert torch.equal(theirs[name], parameter), name


class Ordered(TrainingTask):
    """A gradient that says which example was at which place of which batch: exact in binary."""

    batch_size = 16
    precision = "float64"
    epochs = 4
    momentum = 0.5

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.Embedding(ROWS, 1)
            self.register_buffer("place", torch.arange(1.0, 1.0 + ROWS))

        def forward(self, x):
            return self.rows(x)[:, 0] * self.place[: len(x)]

    def model(self, params):
        return self.Net()

    def data(self):
        return Data(torch.arange(ROWS), torch.zeros(ROWS))

    def loss(self, output, target):
        return output.sum()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_order_of_examples_is_the_runs_own_to_the_bit(tmp_path, count):
    runs = assignments([{"lr": 0.0}] * count, until=1)
    lanes, solo = together(Ordered, tmp_path / "lanes", runs), alone(Ordered, tmp_path / "solo", runs)
    assert is_fused(lanes, count)
    seen = []
    for run in runs:
        ours, theirs = (told.checkpoint(run.run)["buffers"]["velocity"] for told in (lanes, solo))
        assert torch.equal(ours, theirs)
        order = permutation(run.run.seed, Purpose.ORDER, 0, 78)
        # An example's gradient is its place, from 1, halved for every batch since.
        expected = torch.empty(78, dtype=torch.float64)
        for index, row in enumerate(order.tolist()):
            expected[row] = (index % 16 + 1) * 0.5 ** (STEPS - 1 - index // 16)
        assert torch.equal(ours[ours != 0], expected)
        seen.append(ours)
    assert len({tuple(order.tolist()) for order in seen}) == count


class Masked(TrainingTask):
    """A gradient that is the dropout mask."""

    batch_size = 32
    precision = "float64"
    epochs = 9
    momentum = 0.0
    split = (0.5, 0.25, 0.25)

    class Net(nn.Module):
        def __init__(self, p):
            super().__init__()
            self.weight, self.drop = nn.Parameter(torch.ones(32, 500)), nn.Dropout(p)

        def forward(self, x):
            return self.drop(self.weight[: len(x)] * x[:, None])

    def model(self, params):
        return self.Net(params["p"])

    def data(self):
        return Data(torch.ones(64), torch.zeros(64))

    def loss(self, output, target):
        return output.sum()


def masks(told, run, p):
    """The masks of the step before a checkpoint."""
    gradient = told.checkpoint(run)["buffers"]["velocity"]
    assert set(gradient.unique().tolist()) <= {0.0, 1 / (1 - p)}
    return gradient != 0


RATES_OF_DROPOUT = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.01]


def test_masks_are_the_solo_loops_to_the_bit_with_every_rate_its_own(tmp_path):
    runs = assignments([{"lr": 0.0, "p": p} for p in RATES_OF_DROPOUT], until=1)
    lanes, solo = together(Masked, tmp_path / "lanes", runs), alone(Masked, tmp_path / "solo", runs)
    assert is_fused(lanes, 7)
    for run, p in zip(runs, RATES_OF_DROPOUT, strict=True):
        kept = masks(lanes, run.run, p)
        assert torch.equal(kept, masks(solo, run.run, p))
        n = kept.numel()
        assert abs(kept.sum().item() - n * (1 - p)) <= 4 * math.sqrt(n * p * (1 - p))


def test_masks_differ_at_every_step_and_do_not_depend_on_company_or_slot(tmp_path):
    lane = {"lr": 0.0, "p": 0.5}

    def trained(name, settings, wanted, until):
        runs = assignments(settings, until=until, first=10 - wanted)
        return masks(together(Masked, tmp_path / name, runs), key(10), 0.5)

    steps = [trained(f"until{until}", [lane, lane], 0, until) for until in (1, 2, 3)]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        agree = (steps[a] == steps[b]).double().mean().item()
        assert abs(agree - 0.5) < 4 * 0.5 / math.sqrt(steps[a].numel())
    others = [{"lr": 0.0, "p": 0.1 * k} for k in range(6)]
    for name, settings, wanted in [("alone", [lane], 0), ("first", [lane, *others], 0), ("last", [*others, lane], 6)]:
        assert torch.equal(trained(name, settings, wanted, 2), steps[1]), name


def test_two_seeds_have_masks_of_their_own(tmp_path):
    runs = assignments([{"lr": 0.0, "p": 0.5}] * 2, until=1)
    told = together(Masked, tmp_path, runs)
    agree = (masks(told, key(0), 0.5) == masks(told, key(1), 0.5)).double().mean().item()
    assert abs(agree - 0.5) < 4 * 0.5 / math.sqrt(16000)
