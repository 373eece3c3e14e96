"""Layers whose numbers differ between lanes: each lane as torch's own layer with its number."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from hpsearch.training.lifted import LaneFunctions

NUMBERS = [0.01, 0.1, 0.5]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_lanes_are_torchs(function, x, *leaves):
    """``function(x, number, *leaves)`` with a number a lane, values and gradients."""
    x = x.clone().requires_grad_()
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    with LaneFunctions():
        output = vmap(function)(x, torch.tensor(NUMBERS, dtype=torch.float64), *leaves)
    expected = torch.stack([function(x[k], number, *[leaf[k] for leaf in leaves]) for k, number in enumerate(NUMBERS)])
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    weights = random(*output.shape, seed=7)
    got = torch.autograd.grad((output * weights).sum(), [x, *leaves])
    wanted = torch.autograd.grad((expected * weights).sum(), [x, *leaves])
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    parts = [output[k].flatten() for k in range(3)]
    assert not any(torch.equal(parts[a], parts[b]) for a, b in [(0, 1), (0, 2), (1, 2)])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("shape", "normal"), [((4, 6), [6]), ((2, 4, 6), [6]), ((2, 4, 6), [4, 6])])
def test_layer_norms_eps(shape, normal, affine):
    leaves = [random(3, *normal, seed=1), random(3, *normal, seed=2)] if affine else []
    assert_lanes_are_torchs(
        lambda x, eps, *ab: functional.layer_norm(x, normal, *ab, eps=eps), random(3, *shape), *leaves
    )


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (2, 6, 3, 3)])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norms_eps(shape, affine):
    leaves = [random(3, 6, seed=1), random(3, 6, seed=2)] if affine else []
    assert_lanes_are_torchs(lambda x, eps, *ab: functional.group_norm(x, 2, *ab, eps=eps), random(3, *shape), *leaves)


@pytest.mark.parametrize("affine", [True, False])
def test_rms_norms_eps(affine):
    leaves = [random(3, 6, seed=1)] if affine else []
    assert_lanes_are_torchs(lambda x, eps, *a: functional.rms_norm(x, [6], *a, eps=eps), random(3, 4, 6), *leaves)


def test_leaky_relus_slope_and_elus_alpha():
    x = random(3, 4, 6)
    assert_lanes_are_torchs(lambda x, number: functional.leaky_relu(x, number), x)
    assert_lanes_are_torchs(lambda x, number: functional.elu(x, number), x)
    assert_lanes_are_torchs(lambda x, number: functional.leaky_relu(x * 1, number, inplace=True), x)
    assert_lanes_are_torchs(lambda x, number: functional.elu(x * 1, number, inplace=True), x)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 5), (4, 6, 3, 3), (2, 6, 3, 2, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norms_eps(shape, affine):
    leaves = [random(3, 6, seed=1), random(3, 6, seed=2)] if affine else []

    def train(x, eps, *ab):
        return functional.batch_norm(x, None, None, *ab, training=True, eps=eps)

    def evaluate(x, eps, *ab):
        return functional.batch_norm(x, x.new_full((6,), 0.1), x.new_full((6,), 1.2), *ab, eps=eps)

    assert_lanes_are_torchs(train, random(3, *shape), *leaves)
    assert_lanes_are_torchs(evaluate, random(3, *shape), *leaves)


@pytest.mark.parametrize("shape", [(8, 6), (4, 6, 3, 3)])
def test_batch_norms_momentum_moves_each_lanes_running_statistics(shape):
    x, means, variances = random(3, *shape), random(3, 6, seed=1), random(3, 6, seed=2).square()
    kept = means.clone(), variances.clone()

    def step(x, mean, variance, momentum):
        return functional.batch_norm(x, mean, variance, training=True, momentum=momentum)

    with LaneFunctions():
        output = vmap(step)(x, means, variances, torch.tensor(NUMBERS, dtype=torch.float64))
    for k, momentum in enumerate(NUMBERS):
        mean, variance = kept[0][k].clone(), kept[1][k].clone()
        torch.testing.assert_close(output[k], step(x[k], mean, variance, momentum), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(means[k], mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(variances[k], variance, rtol=1e-12, atol=1e-12)
        assert not torch.equal(means[k], kept[0][k])


def test_a_number_that_lanes_share_beside_one_they_differ_in_keeps_its_precision():
    x, means, variances = random(3, 8, 6), random(3, 6, seed=1), random(3, 6, seed=2).square()
    kept = means.clone()

    def step(x, mean, variance, eps):
        return functional.batch_norm(x, mean, variance, training=True, eps=eps, momentum=0.1)

    with LaneFunctions():
        vmap(step)(x, means, variances, torch.tensor(NUMBERS, dtype=torch.float64))
    torch.testing.assert_close(means, 0.9 * kept + 0.1 * x.mean(1), rtol=1e-14, atol=1e-14)


def test_batch_norm_of_one_example_a_channel_raises_as_torchs_own_does():
    for momentum in (0.1, torch.tensor(0.1)):
        with LaneFunctions(), pytest.raises(ValueError, match="more than 1 value per channel"):
            functional.batch_norm(random(1, 6), random(6), random(6), training=True, momentum=momentum)


@pytest.mark.parametrize("padding", [None, 0, 2, -1])
def test_the_padding_of_an_embedding_has_no_gradient_in_any_lane(padding):
    weight = random(3, 5, 4).requires_grad_()
    rows = torch.tensor([[[0, 1, 4], [2, 0, 2]]] * 3)

    def look(w, x):
        return functional.embedding(x, w, padding_idx=padding)

    with LaneFunctions():
        output = vmap(look)(weight, rows)
        (got,) = torch.autograd.grad(output.square().sum(), [weight])
        shared = vmap(look, in_dims=(0, None))(weight, rows[0])
    expected = torch.stack([look(weight[k], rows[k]) for k in range(3)])
    (wanted,) = torch.autograd.grad(expected.square().sum(), [weight])
    assert torch.equal(output, expected)
    assert torch.equal(shared, expected)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(6), nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.RMSNorm(6), nn.RMSNorm(6, eps=1e-3), nn.LeakyReLU(0.2),
     nn.ELU(0.3), nn.LeakyReLU(0.2, inplace=True), nn.Embedding(9, 3, padding_idx=1), nn.Linear(6, 2)],
)  # fmt: skip
def test_with_plain_numbers_they_are_torchs_own_to_the_bit(layer):
    def forward():
        layer.zero_grad()
        embeds = isinstance(layer, nn.Embedding)
        x = torch.arange(8) if embeds else torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
        return layer(x.clone())

    plain = forward()
    with LaneFunctions():
        assert torch.equal(forward(), plain)


def test_a_lane_knows_whether_its_tensors_have_gradients():
    """vmap says that none has: a forward that tells training from validation so would always validate."""
    seen = []

    def forward(x):
        seen.append((x * 2).requires_grad)
        return x * 2

    with LaneFunctions():
        vmap(forward)(random(3, 2).requires_grad_())
        vmap(forward)(random(3, 2))
        with torch.no_grad():
            vmap(forward)(random(3, 2).requires_grad_())
    assert seen == [True, False, False]
