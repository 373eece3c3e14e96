"""What is compiled is the plain step, of whatever a user writes; what is not is not believed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hpsearch.training import step
from hpsearch.training.agreement import Outcome, far_apart
from hpsearch.training.load import load
from tests.training.fusing import MLP, MLP32, Small
from tests.training.test_corpus import CASES, assignments, workload
from tests.training.test_step import PARAMS, training_of

SGD = [{**setting, "optimizer": "sgd"} for setting in PARAMS]


def apart(task, params=SGD, epochs=3, **of):
    """How far weights and buffers of compiled lanes are from plain ones, relative to them; and their steps.

    The backend does the operations as they were written down: what it is given is tried, not what it makes of it.
    """
    plain, compiled = training_of(task, params, **of), training_of(task, params, **of)
    plain.steps._records = False
    compiled.steps.compile_always("eager")
    for _ in range(epochs):
        plain.run_epoch()
        compiled.run_epoch()
    pairs = [(a.double(), b.double()) for a, b in zip(plain._rows(), compiled._rows(), strict=True)]
    return max(float((a - b).norm() / a.norm().clamp(min=1e-30)) for a, b in pairs), compiled.steps


# What Python does with numbers


class Balanced(MLP32):
    def loss(self, output, target):
        count = np.bincount(target.cpu().numpy(), minlength=3)
        weight = torch.tensor(len(target) / (3 * np.maximum(count, 1)), dtype=output.dtype)
        return functional.cross_entropy(output, target, weight=weight)


class Shifted(MLP32):
    def augment(self, inputs, key):
        shifts = (key.uniform(len(inputs)) * 5).long().tolist()
        return torch.stack([row.roll(by) for row, by in zip(inputs, shifts, strict=True)])


class StreamedBalanced(Balanced):
    stream = True


@pytest.mark.parametrize("task", [Balanced, Shifted, StreamedBalanced])
def test_python_that_reads_a_batch_is_not_frozen(task):
    gap, steps = apart(task(), seed=3 if task is StreamedBalanced else None)
    assert gap < 1e-5
    assert (steps.engine, "depends on data" in steps.reason) == ("vmap", True)


@pytest.mark.parametrize("task", [Balanced, Shifted, StreamedBalanced])
def test_nor_is_it_played(task, monkeypatch):
    monkeypatch.setattr(step, "TAPED_AFTER", 0)
    seed = 3 if task is StreamedBalanced else None
    plain, played = training_of(task(), SGD, seed=seed), training_of(task(), SGD, seed=seed)
    plain.steps._records = False
    assert [played.run_epoch() for _ in range(2)] == [plain.run_epoch() for _ in range(2)]


class Fading(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x):
        factor = torch.tensor(1.0, dtype=x.dtype)
        factor *= 0.9
        factor *= 0.9
        return self.last(self.first(x).tanh()) * factor


class Faded(MLP32):
    def model(self, params):
        return Fading()


class Penalised(MLP32):
    def loss(self, output, target):
        more = torch.tensor(0.0, dtype=output.dtype)
        more += 1e-3 * output.square().mean()
        return functional.cross_entropy(output, target) + more


@pytest.mark.parametrize("task", [Faded, Penalised])
def test_a_number_made_in_the_step_is_made_anew(task):
    gap, steps = apart(task())
    assert gap < 1e-5
    assert steps.engine == "compiled"


# Operations


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        self.filter = nn.Parameter(torch.randn(9, 2) * 0.3 + torch.tensor([1.0, 0.0]))

    def forward(self, x):
        return self.last(torch.fft.irfft(torch.fft.rfft(self.first(x)) * torch.view_as_complex(self.filter), n=16))


class Spectral(MLP):
    def model(self, params):
        return Spectrum()


class Looking(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        words = self.first(x)[:, None] + torch.arange(4, dtype=x.dtype)[:, None]
        return self.last(self.attention(words, words, words, need_weights=False)[0].mean(1))


class Attentive(MLP):
    def model(self, params):
        return Looking()


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("params", [SGD, PARAMS])
@pytest.mark.parametrize("task", [Spectral, Attentive])
def test_operations_that_are_special_are_compiled(task, params):
    gap, steps = apart(task(), params)
    assert gap < 1e-9
    assert (steps.engine, steps.reason) == ("compiled", "")


class Deep(Small):
    """In bfloat16 its gradients are rounding to a half, with and without a compiler."""

    precision = "bfloat16"

    def model(self, params):
        blocks = [[nn.Linear(24, 24), nn.BatchNorm1d(24), nn.ReLU()] for _ in range(8)]
        return nn.Sequential(nn.Linear(5, 24), *[layer for block in blocks for layer in block], nn.Linear(24, 3))

    def data(self):
        return MLP.data(self)


@pytest.mark.parametrize("params", [SGD, PARAMS])
def test_rounding_alone_is_no_difference(params):
    compiled = training_of(Deep(), params)
    compiled.steps.compile_always("aot_eager")
    compiled.run_epoch()
    assert (compiled.steps.engine, compiled.steps.reason) == ("compiled", "")


FUSED = [case for case in CASES if not case.solo]


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("case", FUSED, ids=[case.task.replace(".py:", "-") for case in FUSED])
def test_the_corpus_compiled_is_the_corpus(case, tmp_path):
    settings = {run.run.trial: run.params for run in assignments(case)}
    trials = [0, 1, 2] if case.groups is None else [0, 0, 0]
    params = [{**settings[trial], "lr": 0.01 * (1 + k)} for k, trial in enumerate(trials)]
    gap, steps = apart(load(workload(case, tmp_path, 1).objective), params, epochs=2)
    assert gap < 1e-6
    assert steps.engine == "compiled" or "depends on data" in steps.reason, steps.reason


# What is believed


def outcome(losses=1.0, gradient=1.0, move=1.0, lane=None):
    """Of three lanes; factors for all of them, or for one."""
    numbers = torch.arange(1.0, 31.0).view(3, 10)
    factors = {"losses": losses, "gradient": gradient, "move": move}
    scales = {name: torch.ones(3) for name in factors}
    for name, factor in factors.items():
        scales[name][slice(None) if lane is None else lane] = factor
    rows = lambda name: numbers * scales[name][:, None]  # noqa: E731
    before = [torch.full((3, 10), 2.0)]
    return Outcome(
        losses=torch.tensor([0.5, 1.0, 2.0]) * scales["losses"],
        gradient=rows("gradient"),
        before=before,
        after=[before[0] - 1e-2 * rows("move")],
    )


@pytest.mark.parametrize("lane", [None, 0, 2])
@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0, math.nan, math.inf])
def test_what_is_half_or_twice_or_lost_is_seen(factor, lane):
    assert far_apart(outcome(), outcome()) == ""
    assert far_apart(outcome(), outcome(losses=factor, lane=lane)) == "its losses would be others"
    assert far_apart(outcome(), outcome(gradient=factor, lane=lane)) == "its gradients would be others"
    assert far_apart(outcome(), outcome(move=factor, lane=lane)) == "its update would be another"


def test_rounding_and_lanes_that_are_lost_already_say_nothing():
    assert far_apart(outcome(), outcome(losses=1.01, gradient=1.02, move=1.1)) == ""
    for lost in (math.nan, math.inf):
        plain = outcome(losses=lost, gradient=lost, move=lost, lane=1)
        assert far_apart(plain, outcome(losses=7.0, gradient=7.0, move=7.0, lane=1)) == ""
    # One lane's gradient is nothing beside the others'.
    assert far_apart(outcome(gradient=1e-9, lane=1), outcome(gradient=3e-9, lane=1)) == ""
    # Moves that are the last bits of the weights; of a buffer, which comes behind them, more.
    tiny = [outcome(move=move) for move in (1e-8, 3e-8)]
    assert far_apart(*tiny) == ""
    for move, words in [(1e-3, ""), (0.3, "its update would be another")]:
        plain, other = (
            replace(one, before=one.before * 2, after=[one.before[0], one.after[0]])
            for one in (outcome(move=move), outcome(move=-move))
        )
        assert far_apart(plain, other) == words
