"""Our optimisers against torch.optim, step by step, in double precision."""

import copy

import pytest
import torch
from torch import nn

from hpsearch.objective import TEXTBOOK, TrainingTask
from hpsearch.training.optim import BUFFERS, Optimizer, Weights, clip_factor, direction
from hpsearch.training.recipe import OPTIMIZERS, Recipe, resolve

TORCH = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.8),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.8, nesterov=True),
    "adagrad": lambda p, lr: torch.optim.Adagrad(p, lr=lr),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(0.8, 0.95)),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, betas=(0.8, 0.95)),
}


class Bare(TrainingTask):
    def model(self, params): ...
    def data(self): ...


def recipe(optimizer: str, **params: object) -> Recipe:
    if optimizer in ("momentum", "nesterov"):
        params["momentum"] = 0.8
    if optimizer in ("adam", "adamw"):
        params["betas"] = "0.8, 0.95"
    return resolve(Bare(), {"optimizer": optimizer, **params})


def net() -> nn.Module:
    # No bias before the BatchNorm: its gradient is rounding noise, which adaptive methods blow up to full steps.
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3)
    ).double()


def steps(model, step, zero, penalty=lambda: 0.0, clip=None):
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        x, y = (torch.randn(16, n, generator=generator, dtype=torch.float64) for n in (6, 3))
        zero()
        (10 * nn.functional.mse_loss(model(x), y)).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        for p, g in penalty() or []:
            p.grad += g
        step()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.03])
@pytest.mark.parametrize("l1", [0.0, 0.01])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fifty_steps_equal_torch_optim(optimizer, decay, l1, clip):
    lr = 0.005
    ours, theirs = net(), net()
    weights = Weights(ours)
    mine = Optimizer(recipe(optimizer, weight_decay=decay, l1=l1, clip=clip), weights)
    steps(ours, lambda: mine.step(lr), weights.gradient.zero_)

    # The reference: torch's own optimizer with decay on matrices only, in its own way, after torch's own clipping.
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    others = [p for p in theirs.parameters() if p.dim() <= 1]
    reference = TORCH[optimizer](
        [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr
    )
    steps(theirs, reference.step, reference.zero_grad, lambda: [(p, l1 * p.detach().sign()) for p in matrices], clip)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
    assert not torch.equal(next(ours.parameters()), next(net().parameters()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_formulas_work_for_stacked_weights_with_a_rate_a_lane(optimizer):
    torch.manual_seed(2)
    rates, momenta = torch.tensor([[1e-3], [0.1], [1.0]]).double(), torch.tensor([[0.0], [0.5], [0.99]]).double()
    stacked = {name: torch.zeros(3, 7).double() for name in BUFFERS[optimizer]}
    lanes = [{name: torch.zeros(7).double() for name in BUFFERS[optimizer]} for _ in range(3)]
    for t in range(1, 6):
        gradient = torch.randn(3, 7).double()
        corrections = {"correction2": (1 - 0.999**t) ** 0.5}
        together = rates * direction(optimizer, gradient, stacked, momentum=momenta, **corrections)
        for k in range(3):
            step = direction(optimizer, gradient[k], lanes[k], momentum=momenta[k].item(), **corrections)
            alone = rates[k].item() * step
            assert torch.equal(together[k], alone)


def test_clipping_equals_clip_grad_norm():
    torch.manual_seed(3)
    for scale in (1e-8, 1e-3, 1.0, 1e6):
        p = nn.Parameter(torch.zeros(50).double())
        p.grad = torch.randn(50).double() * scale
        ours = p.grad * clip_factor(p.grad, 0.7)
        nn.utils.clip_grad_norm_([p], 0.7)
        assert torch.allclose(ours, p.grad, rtol=1e-14, atol=0)


def test_the_flat_buffer_is_the_model():
    model = net()
    before = copy.deepcopy(model.state_dict())
    weights = Weights(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert weights.penalised.sum() == 6 * 8 + 8 * 8 + 8 * 3
    assert list(weights.layers) == ["0", "1", "3", "4", "5"]
    assert weights.layers["3"] == slice(6 * 8 + 8 + 16, 6 * 8 + 8 + 16 + 64)
    weights.flat.zero_()
    assert all(not p.any() for p in model.parameters())


def test_frozen_and_shared_parameters():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    frozen = model[0].bias.clone()
    weights = Weights(model)
    assert weights.flat.numel() == 16 + 4
    model(torch.ones(2, 4)).sum().backward()
    Optimizer(recipe("sgd"), weights).step(0.1)
    assert model[1].weight is model[0].weight
    assert torch.equal(model[0].bias, frozen)


def test_a_wide_layer_norm_is_not_decayed():
    assert not Weights(nn.LayerNorm([3, 4])).penalised.any()


def test_every_optimizer_has_a_textbook_rate():
    assert set(TEXTBOOK) == set(OPTIMIZERS)
    assert all(recipe(name).lr == TEXTBOOK[name]["lr"] for name in OPTIMIZERS)
