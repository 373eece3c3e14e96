"""The rungs of the ladder: compiled steps are the plain ones, and what cannot be compiled steps down with a reason."""

import math
import shutil

import pytest
import torch
from torch import nn

from hpsearch.training.build import build
from hpsearch.training.data import prepare
from hpsearch.training.fused import FusedTraining
from hpsearch.training.lane import Lane
from hpsearch.training.precision import dtype_of
from hpsearch.training.probe import probe
from hpsearch.training.recipe import ModelParams, resolve
from hpsearch.training.schedule import Rate
from hpsearch.training.structure import structure_of
from tests.training.fusing import CNN, CNN16, MLP, MLP16, Transformer, Words

PARAMS = [
    {"lr": 0.05, "dropout": 0.1, "optimizer": "adam", "weight_decay": 1e-3},
    {"lr": 0.01, "dropout": 0.4, "optimizer": "adam", "weight_decay": 0.0},
    {"lr": 0.002, "dropout": 0.0, "optimizer": "adam", "weight_decay": 1e-2},
]


def training_of(task, params=PARAMS, device="cpu", seed=None):
    """Lanes of a task, ready to train; ``seed``: of all of them, else each has one of its own."""
    parts = prepare(task, 0, device)[0]
    training, models = None, {}
    for k, setting in enumerate(params):
        recipe = resolve(task, setting)
        model = build(task, ModelParams(setting), parts, k if seed is None else seed).to(device, dtype_of(task))
        training = training or FusedTraining(task, parts, recipe, model, len(params))
        lane = Lane(recipe, k if seed is None else seed, Rate(recipe.schedule, recipe.lr, recipe.epochs))
        training.add(lane, model, structure_of(model, [task]).floats)
        models[k] = model
    probe(training, models)
    return training


@pytest.mark.parametrize("task", [MLP, CNN, Transformer, Words])
def test_compiled_steps_are_the_plain_ones(task):
    plain, compiled = training_of(task()), training_of(task())
    # Without code generation; the next test has it.
    compiled.steps.compile_always("aot_eager")
    for _ in range(2):
        expected, tables = plain.run_epoch(), compiled.run_epoch()
        assert [list(table) for table in tables] == [list(table) for table in expected]
        for table, other in zip(tables, expected, strict=True):
            assert table == pytest.approx(other, rel=1e-9)
    assert (plain.steps.engine, compiled.steps.engine) == ("vmap", "compiled")
    assert compiled.steps.reason == ""
    assert torch.allclose(compiled.stack.flat[:3], plain.stack.flat[:3], rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with g++")
def test_generated_code_is_the_plain_step():
    plain, compiled = training_of(MLP()), training_of(MLP())
    compiled.steps.compile_always()
    expected, tables = plain.run_epoch(), compiled.run_epoch()
    for table, other in zip(tables, expected, strict=True):
        assert table == pytest.approx(other, rel=1e-8)
    assert compiled.steps.engine == "compiled"


@pytest.mark.parametrize("task", [MLP16, CNN16])
def test_compiled_steps_in_mixed_precision_are_the_plain_ones(task):
    plain, compiled = training_of(task()), training_of(task())
    compiled.steps.compile_always("aot_eager")
    expected, tables = plain.run_epoch(), compiled.run_epoch()
    assert (compiled.steps.engine, compiled.steps.reason) == ("compiled", "")
    for table, other in zip(tables, expected, strict=True):
        for name in ("train_loss", "val_loss"):
            assert table[name] == pytest.approx(other[name], rel=1e-2)


@torch.library.custom_op("hpsearch_tests::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


halved.register_autograd(lambda ctx, gradient: halved(gradient))
halved.register_vmap(lambda info, dims, x: (halved(x), dims[0]))


class Halved(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return halved(self.layer(x))


class Opaque(MLP):
    """It has an operation of which no compiler knows what it makes."""

    def model(self, params):
        return Halved()


def test_what_cannot_be_compiled_trains_as_plain_operations_with_the_reason():
    plain, compiled = training_of(Opaque(), PARAMS[:2]), training_of(Opaque(), PARAMS[:2])
    compiled.steps.compile_always("aot_eager")
    assert compiled.run_epoch() == plain.run_epoch()
    assert compiled.steps.engine == "vmap"
    assert "not compiled" in compiled.steps.reason


class Breaking(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        torch._dynamo.graph_break()
        return self.layer(x)


class Wild(MLP):
    """Its Python is nothing that torch.compile could read."""

    def model(self, params):
        return Breaking()


def test_a_compiler_sees_operations_and_no_python():
    plain, compiled = training_of(Wild(), PARAMS[:2]), training_of(Wild(), PARAMS[:2])
    compiled.steps.compile_always("aot_eager")
    for table, other in zip(compiled.run_epoch(), plain.run_epoch(), strict=True):
        assert table == pytest.approx(other, rel=1e-9)
    assert (compiled.steps.engine, compiled.steps.reason) == ("compiled", "")


def mistaken(what):
    """A compiler that makes other losses of a step, or updates nothing."""

    def compiler(graph, inputs):
        def run(*given):
            kept = [tensor.clone() for tensor in given]
            losses = graph(*given)
            for tensor, before in zip(given, kept, strict=True):
                tensor.copy_(before)
            return losses

        factor = {"losses": 2, "nan": math.nan}.get(what)
        return run if factor is None else lambda *given: [graph(*given)[0] * factor]

    return compiler


@pytest.mark.parametrize(("what", "said"), [("losses", "losses"), ("update", "gradients"), ("nan", "losses")])
def test_a_compiler_that_makes_something_else_is_not_believed(what, said):
    plain, compiled = training_of(MLP()), training_of(MLP())
    compiled.steps.compile_always(mistaken(what))
    assert compiled.run_epoch() == plain.run_epoch()
    assert (compiled.steps.engine, compiled.steps.reason) == ("vmap", f"not compiled: its {said} would be others")


def test_each_shape_is_compiled_once(monkeypatch):
    from torch._dynamo.utils import counters  # seconds, for all other tests

    compiled, before = training_of(MLP()), counters["stats"]["unique_graphs"]
    compiled.steps.compile_always("aot_eager")
    for _ in range(2):
        compiled.run_epoch()
    assert counters["stats"]["unique_graphs"] - before == 1  # the last partial batch is not worth it
