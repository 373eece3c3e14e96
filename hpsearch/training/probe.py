"""Whether a task's lanes can be trained together, found out by doing it once, beside some of the lanes alone.

What cannot be vmapped, or does not come out the same, trains alone, and the reason is given in words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.errors import ObjectiveError
from hpsearch.objective import Split
from hpsearch.training.fused import FusedTraining
from hpsearch.training.lane import Lane, Way
from hpsearch.training.loss import loss_of, numbers_of, validation_batch
from hpsearch.training.measure import counted
from hpsearch.training.precision import is_mixed, output_of
from hpsearch.training.randomness import KeyedDropout
from hpsearch.training.stack import Rows
from hpsearch.training.streaming import stretches
from hpsearch.training.structure import CannotFuse, attributes_of
from hpsearch.training.weights import empty_buffers
from hpsearch.training.worker import is_out_of_memory

#: largest difference between a lane and the same model alone, relative to the largest number compared
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
#: the same where the forward computes in bfloat16: one rounding is 4e-3. Metrics are compared as if they were at least
#: 1: of two outputs that are nearly the same, rounding decides which one is larger
MIXED_TOLERANCE = 0.05
#: of gradients: a max pooling passes them to another of two numbers that are nearly the same (0.2 was seen of eight
#: convolutions with BatchNorm; a gradient that is half or twice what it should be is 0.5 or more)
MIXED_GRADIENT = 0.3
#: examples of the validation part that are tried
_VALIDATED = 64
RANDOM = "the forward draws random numbers of its own (torch, numpy, random), which would not be the run's alone"
_PYTHON = "the forward reads numbers out of tensors (item, float, if): data-dependent Python"
_KEPT = "tensors of the forward are used after it (torch.utils.checkpoint, something kept)"
_WORDS = (
    ("random operation", RANDOM),
    (".item()", _PYTHON),
    ("data-dependent", _PYTHON),
    ("doesn't have storage", _PYTHON),  # tolist, numpy
    ("dynamic shape", "the shape of a tensor in the forward depends on data"),
    ("ScriptMethod", "the model is compiled by torch.jit"),
    ("drops out more often", "the forward drops out in validation too, or not always as often: training= is missing"),
    ("modified by an inplace operation", "the forward changes weights or activations in place that its gradient needs"),
    ("inplace arithmetic", "the forward changes a tensor in place that it made anew (torch.zeros; x.new_zeros works)"),
    ("accessing `data`", "the forward reads or replaces the data of a tensor (.data)"),
    ("requires_grad_", "the forward calls requires_grad_"),
    ("escaped from inside", _KEPT),
    ("_NoopSaveInputs", _KEPT),  # torch.utils.checkpoint's, of torch 2.11
    (
        "must only return Tensors",
        "the forward returns more than tensors (None, numbers)",
    ),
    ("memory_format", "the forward asks for another layout of memory (channels_last), which lanes cannot have"),
    ("mutated", "the forward changes a tensor in place that all lanes share"),
)


def probe(
    training: FusedTraining, references: Mapping[int, nn.Module], remake: Callable[[int], object] = lambda k: None
) -> None:
    """Make a step without an update with all lanes, and alone with the reference models; sets ``training.way``.

    Args:
        training: with its lanes as they begin.
        references: lane -> a model of its own with the same weights.
        remake: makes a lane's model once more, so that what it reads beside (globals) is as it is when it trains alone.

    Raises:
        CannotFuse: with the reason. What says that memory ran out.
    """
    stack = training.stack
    before = {name: rows.clone() for name, rows in stack.rest.items()}
    attributes = attributes_of(stack.form)
    lanes = training.padded()
    tried = [(k, k) for k in sorted(references)]  # a lane, and the one whose model it is compared with
    if len(training.lanes) == 1:
        tried.append((1, 0))  # what goes wrong in every lane but the first must show in its companion
    rows = training.orders(lanes)[:, : training.batch_size]
    try:
        losses, gradients = _train(training, lanes, rows, references, attributes)
        same_attributes(stack.form, attributes)
        moved = {name: rows.clone() for name, rows in stack.rest.items()}
        tables = _validate(training, [k for k, _ in tried])
        same_attributes(stack.form, attributes)
        for k, own in tried:
            model = references[own]
            remake(own)
            with _untouched(model):
                _compare_step(training, lanes[k], rows[k], model, losses[k], gradients[k])
                _compare_buffers(training, model, moved, k)
                _compare_validation(training, model, tables[k])
                _compare_buffers(training, model, stack.rest, k)
    except CannotFuse:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise CannotFuse(explain(error)) from error  # alone it says so itself
    finally:
        for name, kept in before.items():
            stack.rest[name].copy_(kept)


def _train(
    training: FusedTraining,
    lanes: Sequence[Lane],
    rows: Tensor,
    references: Mapping[int, nn.Module],
    attributes: Mapping[Any, Any],
) -> tuple[Tensor, Tensor]:
    """Losses (K,) and gradients (K, P) of one step, by the first way that works."""
    stack, k = training.stack, len(lanes)
    stack.form.train()
    first = min(references)
    with counted(references[first]) as convolutions:
        dropouts = _dropouts(training, lanes[first], rows[first], references[first])
    before = {name: part.clone() for name, part in stack.rest.items()}
    error: Exception | None = None
    streamed = training.parts.streamed
    prepared = [True, False] if not streamed and (training.task.augment or training.parts.transform) else [True]
    for augment, loss, shared in product(prepared, [True, False], [True, False] if streamed else [True]):
        training.way = Way(
            augment=augment, loss=loss, shared=shared, dropouts=dropouts, convolutions=next(iter(convolutions), 0)
        )
        leaves = stack.leaves(k)
        try:
            forward = training.forward(k)
            values, changed = forward(leaves, training.keys(lanes, 1)[0], rows, lanes)
            training.backward(values, leaves, k)
        except Exception as failure:
            if is_out_of_memory(failure):
                raise
            error = failure
            stack.take(before)
            continue
        stack.take(changed)
        return values.detach(), training.gradient[:k, stack.columns]
    assert error is not None
    same_attributes(stack.form, attributes)
    raise CannotFuse(explain(error)) from error


def _alone(training: FusedTraining, lane: Lane, rows: Tensor, model: nn.Module) -> tuple[Tensor, int]:
    """The loss of a lane's batch with its model alone, and how many dropouts its forward has."""
    split = training.parts.train
    inputs = training.prepared(split.inputs[rows], {"seed": lane.seed, "epoch": lane.epoch, "rows": rows})
    with KeyedDropout(lane.seed, lane.steps) as mode:
        output = output_of(training.task, model.train(), inputs)
    smoothing = lane.recipe.label_smoothing or None
    return loss_of(training.task, output, split.targets[rows], smoothing), mode.calls


def _dropouts(training: FusedTraining, lane: Lane, rows: Tensor, model: nn.Module) -> int:
    """Dropouts of a forward; and a look at what it does beside, in training and validation.

    Raises:
        CannotFuse: it draws random numbers that have no key, or changes its own weights.
    """
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    empty = dict(empty_buffers(model))
    device = training.stack.flat.device
    state = generators(device)
    with torch.no_grad(), _untouched(model):
        calls = _alone(training, lane, rows, model)[1]
        output_of(training.task, model.eval(), training.prepared_for_validation(_some(training).inputs))
        changed = [n for n, p in model.named_parameters() if n in weights and not torch.equal(weights[n], p)]
        filled = [n for n in empty if n not in dict(empty_buffers(model))]
    model.train()
    if generators(device) != state:
        raise CannotFuse(RANDOM + _of_attention(model))
    if changed:
        raise CannotFuse(f"the forward changes its own weights in place ({', '.join(changed[:3])})")
    if filled:
        raise CannotFuse(f"the forward fills buffers that are None before ({', '.join(filled[:3])})")
    return calls


def _of_attention(model: nn.Module) -> str:
    """Where random numbers are attention's own dropout: which, and what helps."""
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
            return f": attention's own dropout; {name or 'its'}.dropout = 0.0 fuses"
    return ""


def generators(device: torch.device) -> tuple[object, ...]:
    """Where the random numbers of Python, numpy and torch stand."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return (random.getstate(), str(np.random.get_state()), *[bytes(state.numpy()) for state in states])


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Give the model back what a forward changes: the run may yet begin with it, in another group."""
    held = [(module, dict(module._buffers)) for module in model.modules()]
    tensors = [*model.parameters(), *model.buffers()]
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, numbers in kept:
                tensor.copy_(numbers)
        for module, buffers in held:
            module._buffers.update(buffers)


def _validate(training: FusedTraining, wanted: Sequence[int]) -> dict[int, dict[str, float]]:
    split, stack = _some(training), training.stack
    before = {name: rows.clone() for name, rows in stack.rest.items()}
    error: Exception | None = None
    for metrics, shared in product([True, False], [True, False] if training.way.shared else [False]):
        training.way = replace(training.way, metrics=metrics, shared=shared)
        try:
            return training.evaluate(split, wanted, captured=False)
        except Exception as failure:
            if is_out_of_memory(failure):
                raise
            error = failure
            stack.take(before)
    assert error is not None
    raise CannotFuse(explain(error)) from error


def _some(training: FusedTraining) -> Split:
    part = training.parts.validation
    return next(stretches(part, min(_VALIDATED, validation_batch(training.task, len(part.targets)))))


def _compare_step(
    training: FusedTraining, lane: Lane, rows: Tensor, model: nn.Module, loss: Tensor, gradient: Tensor
) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    alone, _ = _alone(training, lane, rows, model)
    parts = zip(torch.autograd.grad(alone, trained, allow_unused=True), trained, strict=True)
    whole = torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in parts])
    _agree(training, "loss", loss, alone.detach())
    if torch.isfinite(alone):
        _agree(training, "gradient", gradient, whole)


def _compare_buffers(training: FusedTraining, model: nn.Module, rest: Rows, k: int) -> None:
    for name, buffer in model.named_buffers():
        _agree(training, f"buffer {name}", rest[name][k], buffer)


@torch.no_grad()
def _compare_validation(training: FusedTraining, model: nn.Module, table: Mapping[str, float]) -> None:
    # Training has just moved the model's buffers as it has moved the lane's.
    split = _some(training)
    model.eval()
    output = output_of(training.task, model, training.prepared_for_validation(split.inputs))
    for name, number in numbers_of(training.task, output, split.targets).items():
        lane = torch.tensor(table[name], dtype=torch.float64)
        _agree(training, f"validation {name}", lane, torch.as_tensor(number).cpu(), at_least=float(name != "val_loss"))


def _agree(training: FusedTraining, what: str, lane: Tensor, alone: Tensor, at_least: float = 0.0) -> None:
    mixed = is_mixed(training.task)
    if not lane.is_floating_point():
        same, worst = torch.equal(lane, alone.to(lane.dtype)), 0.0
    else:
        smallest = max(1e-12, at_least if mixed else 0.0)
        # Mixed in the 2-norm: the gradient of a bias before a BatchNorm is all rounding.
        order = 2 if mixed else torch.inf
        size = torch.linalg.vector_norm(alone.double(), order) if alone.numel() else torch.tensor(1.0)
        scale = size.clamp(min=smallest)
        gap = ((lane.double() - alone.double()).abs() / scale).nan_to_num(nan=0.0, posinf=0.0)
        worst = float(torch.linalg.vector_norm(gap, order)) if gap.numel() else 0.0
        tolerance = TOLERANCE.get(alone.dtype, 1e-3)
        if mixed:
            tolerance = MIXED_GRADIENT if what == "gradient" else MIXED_TOLERANCE
        same = worst <= tolerance and torch.equal(lane.isnan(), alone.isnan())
    if not same:
        raise CannotFuse(f"a lane's {what} is not that of the model alone (relative difference {worst:.1g})")


def same_attributes(form: nn.Module, before: Mapping[Any, Any]) -> None:
    """A forward that keeps something in the model would keep it for all lanes."""
    after = attributes_of(form)
    changed = [place for place in {**before, **after} if before.get(place) != after.get(place)]
    if changed:
        names = ", ".join(".".join(filter(None, place)) for place in changed[:3])
        raise CannotFuse(f"the forward changes attributes of the model ({names})")


def explain(error: BaseException) -> str:
    """An exception of a forward under vmap, in words."""
    if isinstance(error, ObjectiveError | CannotFuse):
        return str(error)
    text = str(error)
    for mark, words in _WORDS:
        if mark in text:
            return words
    if missing := re.search(r"Batching rule not implemented for (\S+)\.", text):
        return f"torch.vmap has no rule for {missing[1]}"
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"training in lanes raises ({type(error).__name__}: {first[:160]})"
