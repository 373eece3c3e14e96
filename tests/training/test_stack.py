"""Models as rows of stacked tensors: what goes in comes out, wherever it has been moved."""

import pytest
import torch
from torch import nn

from hpsearch.training.optim import Weights
from hpsearch.training.stack import ALIGNED, Stack
from hpsearch.training.structure import structure_of


class Net(nn.Module):
    def __init__(self, seed=0, p=0.1, scale=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm, self.drop = nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(p)
        self.last = nn.Linear(5, 5, bias=False)
        self.tied = nn.Linear(5, 5, bias=False)
        self.tied.weight = self.last.weight
        self.fixed = nn.Parameter(torch.randn(5), requires_grad=False)
        self.register_buffer("hidden", torch.randn(2), persistent=False)
        self.scale = scale

    def forward(self, x):
        return self.tied(self.last(self.drop(self.norm(self.first(x))))) * self.scale + self.fixed + self.hidden.sum()


def stack_of(*models, slots=5):
    stack = Stack(Net(99), slots)
    for slot, model in enumerate(models):
        stack.put(slot, model, structure_of(model).floats)
    return stack


def assert_holds(stack, slot, model):
    state = stack.state(slot)
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
        assert state[name].dtype == tensor.dtype
    assert torch.equal(stack.transient(slot)["hidden"], model.hidden)
    model.load_state_dict(state)


def test_what_is_put_in_comes_out_with_its_buffers_and_ties():
    models = [Net(seed) for seed in range(3)]
    stack = stack_of(*models)
    for slot, model in enumerate(models):
        assert_holds(stack, slot, model)


def test_a_state_is_a_copy():
    stack = stack_of(Net(1))
    for tensor in [*stack.state(0).values(), *stack.transient(0).values()]:
        tensor.zero_()
    assert_holds(stack, 0, Net(1))


def test_a_slot_is_moved_whole():
    models = [Net(0, p=0.3), Net(1, scale=2.0), Net(2)]
    stack = stack_of(*models)
    stack.move(2, 0)
    assert_holds(stack, 0, Net(2))
    assert_holds(stack, 1, Net(1))
    assert {place: rows[:3].tolist() for place, rows in stack.floats.items()} == {
        ("drop", "p"): [0.1, 0.1, 0.1], ("", "scale"): [1.0, 2.0, 1.0]
    }  # fmt: skip


def test_floats_are_lifted_when_a_lane_differs_and_only_then():
    stack = stack_of(Net(0), Net(1))
    assert stack.floats == {}
    other = Net(2, p=0.4)
    assert stack.put(2, other, structure_of(other).floats) == [("drop", "p")]
    assert stack.floats["drop", "p"][:3].tolist() == [0.1, 0.1, 0.4]
    again = Net(3, p=0.7)
    assert stack.put(1, again, structure_of(again).floats) == []
    assert stack.floats["drop", "p"][:3].tolist() == [0.1, 0.7, 0.4]
    stack.unlift([("drop", "p")])
    assert stack.floats == {}


def test_every_parameter_begins_at_an_aligned_place_with_zeros_between():
    stack, weights = stack_of(Net(1)), Weights(Net(1))
    assert torch.equal(stack.flat[0, stack.columns], weights.flat)
    assert torch.equal(stack.penalised[stack.columns], weights.penalised)
    assert stack.flat.shape[1] % ALIGNED == 0
    between = torch.ones(stack.flat.shape[1], dtype=torch.bool)
    between[stack.columns] = False
    assert between.any()
    assert not stack.flat[0, between].any()
    assert not stack.penalised[between].any()
    for view in stack.views(stack.flat).values():
        assert view.storage_offset() % ALIGNED == 0
    assert stack.layers.keys() == weights.layers.keys()
    for name, part in stack.layers.items():
        norm = torch.linalg.vector_norm(weights.flat[weights.layers[name]])
        assert torch.linalg.vector_norm(stack.flat[0, part]).item() == pytest.approx(norm.item())


def test_gradients_are_gathered_where_their_weights_are():
    stack = stack_of(Net(0), Net(1))
    parts = [torch.full((2, *shape.shape[1:]), 1.0 + k) for k, shape in enumerate(stack.leaves(2).values())]
    rows = torch.full((2, stack.flat.shape[1]), 9.0)
    stack.gather(parts, rows)
    for part, view in zip(parts, stack.views(rows).values(), strict=True):
        assert torch.equal(part, view)
    assert rows.sum() == sum(part.sum() for part in parts)


@pytest.mark.parametrize("training", [True, False])
def test_the_vmapped_forward_is_each_models_own(training):
    models = [Net(0, p=0.0), Net(1, p=0.0, scale=2.0), Net(2, p=0.0)]
    stack = stack_of(*models)
    stack.form.train(training)
    x = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(5))
    forward = stack.over_lanes(lambda model, x: model(x), 3)
    output, changed = forward(stack.leaves(3), [keys(3)] if training else [], x)
    stack.take(changed)
    for k, model in enumerate(models):
        expected = model.train(training)(x[k])
        torch.testing.assert_close(output[k], expected, rtol=1e-5, atol=1e-6)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(stack.rest[name][k], buffer, rtol=1e-6, atol=1e-7)
        assert stack.rest["norm.num_batches_tracked"][k] == int(training)


def keys(count):
    return torch.arange(count, dtype=torch.int32), torch.arange(count, dtype=torch.int32) * 2 + 1


def test_the_form_keeps_its_own_numbers_also_when_a_forward_raises():
    stack = stack_of(Net(0), Net(1, scale=2.0))
    seen = []

    def body(model, x):
        seen.append(stack.form.scale)
        raise LookupError

    with pytest.raises(LookupError):
        stack.over_lanes(body, 2)(stack.leaves(2), [], torch.randn(2, 7, 3))
    assert isinstance(seen[0], torch.Tensor)
    assert stack.form.scale == 1.0


def test_more_dropouts_than_keys_are_not_passed_over():
    stack = stack_of(Net(0), Net(1))
    with pytest.raises(RuntimeError, match="drops out more often than before: 0 times"):
        stack.over_lanes(lambda model, x: model(x), 2)(stack.leaves(2), [], torch.randn(2, 7, 3))


def test_lanes_share_what_is_said_to_be_shared_and_may_be_taken_in_chunks():
    models = [Net(seed) for seed in range(4)]
    stack = stack_of(*models)
    stack.form.eval()
    x = torch.randn(7, 3)
    whole, _ = stack.over_lanes(lambda model, x: model(x), 4, shared=1)(stack.leaves(4), [], x)
    parts, _ = stack.over_lanes(lambda model, x: model(x), 4, shared=1, chunk=2)(stack.leaves(4), [], x)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole, torch.stack([model.eval()(x) for model in models]), rtol=1e-5, atol=1e-6)
