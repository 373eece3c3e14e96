"""A step from a tape is the step itself, to the bit; what may not be repeated is not recorded."""

import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn

from hpsearch.training import step as steps
from hpsearch.training import tape
from hpsearch.training.tape import CannotRecord, is_for_compiler, record, written
from tests.training.fusing import CNN, CNN32, MLP32, Transformer32, Words32
from tests.training.test_step import training_of

OPTIMIZERS = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"]


def settings(optimizer="momentum"):
    """Three lanes with everything that a loop can do to a batch and an update."""
    same = {"optimizer": optimizer, "schedule": "cosine"}
    return [
        {**same, "lr": lr, "dropout": p, "weight_decay": decay, "clip": clip, "label_smoothing": s, "l1": 1e-4 * s}
        for lr, p, decay, clip, s in [(0.05, 0.1, 1e-3, 1.0, 0.1), (0.01, 0.0, 0.0, 0.1, 0.2), (2e-3, 0.4, 0.1, 9, 0.3)]
    ]


def epochs(task, params, after, monkeypatch, count=3):
    """Metrics of some epochs, the lanes' tensors after them, and how many shapes have a tape."""
    monkeypatch.setattr(steps, "TAPED_AFTER", after)
    training = training_of(task, params)
    tables = [training.run_epoch() for _ in range(count)]
    return tables, [rows.clone() for rows in training._rows()], len(training.steps._tapes)


class Wide(MLP32):
    """Without vmap around its loss it would not be recorded."""

    def loss(self, output, target):
        return nn.functional.cross_entropy(output, target, label_smoothing=0.1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_is_the_same_to_the_bit(optimizer, monkeypatch):
    assert_same(MLP32(), settings(optimizer), monkeypatch)


@pytest.mark.parametrize("task", [CNN, CNN32, Transformer32, Words32, Wide])
def test_every_kind_of_layer_is_the_same_to_the_bit(task, monkeypatch):
    params = [{"lr": lr, "dropout": p} for lr, p in [(0.05, 0.1), (0.01, 0.0), (0.002, 0.4)]]
    assert_same(task(), params, monkeypatch)


def assert_same(task, params, monkeypatch):
    plain, rows, none = epochs(task, params, 10**9, monkeypatch)
    taped, others, shapes = epochs(task, params, 0, monkeypatch)
    assert (none, shapes) == (0, 2)  # whole batches, and the last one
    assert taped == plain
    assert all(torch.equal(a, b) for a, b in zip(rows, others, strict=True))


def test_a_lane_that_is_lost_stays_lost_and_harms_no_other(monkeypatch):
    params = [{**setting, "clip": None} for setting in settings()]
    params[1]["lr"] = 1e30
    plain, rows, _ = epochs(MLP32(), params, 10**9, monkeypatch)
    taped, others, shapes = epochs(MLP32(), params, 0, monkeypatch)
    assert shapes == 2
    assert str(taped) == str(plain)  # nan is not equal to itself
    assert all(torch.equal(a[[0, 2]], b[[0, 2]]) for a, b in zip(rows, others, strict=True))


class Counting(nn.Module):
    """Its forward depends on how often Python has run it, which no attribute shows; from some time on."""

    calls: ClassVar = [0]
    begun: ClassVar = [False]

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        self.calls[0] += self.begun[0]
        return self.layer(x) * (1 + self.calls[0] % 7)


class Counted(MLP32):
    def model(self, params):
        return Counting()


def test_a_step_that_is_another_each_time_is_not_played_from_a_tape(monkeypatch):
    params = [{"lr": 0.01}, {"lr": 0.02}]
    monkeypatch.setattr(steps, "TAPED_AFTER", 0)
    training = training_of(Counted(), params)
    monkeypatch.setattr(Counting, "begun", [True])
    training.run_epoch()
    assert not training.steps._tapes


def test_a_step_is_recorded_after_some_plain_ones(monkeypatch):
    monkeypatch.setattr(steps, "TAPED_AFTER", 5)
    training = training_of(MLP32(), [{"lr": 0.01}, {"lr": 0.02}])
    training.run_epoch()  # four whole batches, of which the first is always plain
    assert not training.steps._tapes
    training.run_epoch()
    assert len(training.steps._tapes) == 1


def test_what_a_forgotten_step_has_recorded_is_forgotten(monkeypatch):
    monkeypatch.setattr(steps, "TAPED_AFTER", 0)
    training = training_of(MLP32(), [{"lr": 0.01}, {"lr": 0.02}])
    training.run_epoch()
    training.steps.forget()
    assert not training.steps._tapes


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x * x.sum().item(),
        lambda x: x * torch.rand(()),
        lambda x: x[x > 0].sum(),
        lambda x: x.nonzero().sum() * x,
        lambda x: nn.functional.dropout(x, 0.5),
    ],
    ids=["item", "random", "mask", "nonzero", "dropout"],
)
def test_what_depends_on_data_or_chance_is_not_recorded(step):
    x = torch.arange(4.0)
    with pytest.raises(CannotRecord, match="depends on data or draws"):
        record(lambda: step(x), [x])


def test_a_large_step_is_not_recorded(monkeypatch):
    monkeypatch.setattr(tape, "LARGEST", 1000)
    x = torch.ones(100)
    record(lambda: x * 2, [x])
    with pytest.raises(CannotRecord, match="large"):
        record(lambda: x * 2 + x * 3 + x * 4, [x])


def shared(x, state):
    """Arguments of elementwise operations that are read again later, under other names and in other shapes."""
    y = x * 2
    view = y.view(2, 8)
    z = torch.relu(y - 8)
    transposed = view.t()
    w = z + 1
    part = w[:4]
    u = (w * w).exp().sin()
    state.add_(u)
    v = transposed * transposed.contiguous()
    return v.sum() + part.sum() + z.sum() + state.sum() + torch.var_mean(u, 0)[0]


def wide(x, state):
    """An operation onto memory of another shape, another type, or that is read twice by it."""
    y = x.sum() + x
    y = y * y
    square = y.view(4, 4)
    z = square + square.t()
    whole = z.long() * 2
    state.mul_(0.5)
    return (whole * z).sum() + state.sum() + y.view(4, 4).sum()


@pytest.mark.parametrize("function", [shared, wide])
def test_memory_is_written_again_only_where_nobody_reads_it(function):
    state, copy = torch.arange(16.0), torch.arange(16.0)
    x = torch.linspace(-3, 5, 16)
    first, again = record(lambda: function(x, state), [x])
    assert torch.equal(first, function(x, copy))
    for seed in range(4):
        other = torch.randn(16, generator=torch.Generator().manual_seed(seed))
        kept = other.clone()
        assert torch.equal(again(other), function(kept, copy))
        assert torch.equal(state, copy)
        assert torch.equal(other, kept)  # inputs stay as they are


def test_a_chain_of_elementwise_operations_takes_no_memory_of_its_own():
    x = torch.randn(1000)
    _, again = record(lambda: ((x * 2).exp().sin() + 1).relu().sum(), [x])
    with torch.profiler.profile(profile_memory=True) as profile:
        again(x)
    (most,) = [sum(e.self_cpu_memory_usage for e in profile.events() if e.self_cpu_memory_usage > 0)]
    assert 4000 <= most < 1.1 * 4000


def test_gradients_through_an_own_function_are_recorded():
    weight = torch.ones(3, requires_grad=True)
    x = torch.arange(3.0)

    def step():
        (gradient,) = torch.autograd.grad((weight * x).tanh().sum(), [weight])
        with torch.no_grad():
            weight.sub_(gradient)
        return gradient

    _, again = record(step, [x])
    after = weight.detach().clone()
    other = torch.tensor([2.0, -1.0, 0.5])
    played = again(other).clone()
    with torch.no_grad():
        weight.copy_(after)
    x.copy_(other)
    assert torch.equal(played, step())


# For a compiler


def rows_of(training):
    return [rows.clone() for rows in training._rows()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_a_compiler_gets_is_the_step(optimizer):
    """Its backward and its update are in it, and weights are found as they lie, not as views of them."""
    training = training_of(MLP32(), settings(optimizer))
    batch, plain = training._batches(training.padded())[0], training._step(training.width)
    before, given = rows_of(training), steps._tensors(batch)
    graph, found = written(lambda: plain(batch), given)
    assert any(tensor is training.stack.flat for tensor in found)
    results = []
    for one in (lambda: plain(batch), lambda: graph(*found, *given)):
        for rows, kept in zip(training._rows(), before, strict=True):
            rows.copy_(kept)
        with torch.no_grad() if results else torch.enable_grad():
            results.append([one().clone(), *rows_of(training)])
    assert not torch.equal(results[0][1], before[0])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)  # a linear layer is another product


def test_what_a_compiler_gets_keeps_nothing_alive():
    """A step of many lanes fills a device: all that it makes at once would not fit."""

    def step():
        y = x * 2
        made = weakref.ref(y)
        z = y + 1
        del y
        assert made() is None
        return z.sum()

    x = torch.arange(4.0)
    graph, found = written(step, [x])
    assert list(found) == []
    assert graph(torch.ones(4)) == 12


def test_what_depends_on_data_is_no_work_for_a_compiler():
    x = torch.arange(4.0)
    with pytest.raises(CannotRecord, match="depends on data or draws"):
        written(lambda: x * x.sum().item(), [x])
    assert not is_for_compiler()


def test_a_view_of_what_is_found_is_seen():
    state = torch.zeros(2, 3)

    def step():
        state[0].add_(x)
        return state.sum()

    x = torch.ones(3)
    graph, found = written(step, [x])
    assert len(found) == 1
    assert found[0] is state
    assert graph(state, torch.full((3,), 2.0)) == 9
    assert torch.equal(state, torch.tensor([[3.0, 3, 3], [0, 0, 0]]))


@pytest.mark.parametrize("write", [record, written])
def test_what_only_looks_at_numbers_would_look_once(write):
    """A factorisation of a matrix that has none raises; played, its check would be gone."""
    matrix = torch.eye(3) * 2

    with pytest.raises(CannotRecord, match="looks at numbers"):
        write(lambda: torch.linalg.cholesky(matrix).sum(), [matrix])
