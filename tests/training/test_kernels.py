"""The functions with vmap rules of their own: torch's values and gradients, lane by lane."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from hpsearch.training import kernels
from hpsearch.training.lifted import LaneFunctions


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_lanes_are_torchs(ours, theirs, leaves, shared=(), tolerance=1e-12):
    """Values and gradients of a function of lanes' leaves (K, ...) and shared tensors, by any weights of its output."""
    leaves = [leaf.clone().requires_grad_(leaf.is_floating_point()) for leaf in leaves]
    shared = [tensor.clone().requires_grad_(tensor.is_floating_point()) for tensor in shared]
    trained = [tensor for tensor in [*leaves, *shared] if tensor.requires_grad]
    in_dims = (*[0] * len(leaves), *[None] * len(shared))
    with LaneFunctions():
        output = vmap(ours, in_dims=in_dims)(*leaves, *shared)
    expected = torch.stack([theirs(*[leaf[k] for leaf in leaves], *shared) for k in range(len(leaves[0]))])
    weights = random(*output.shape, seed=99)
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)
    got = torch.autograd.grad((output * weights).sum(), trained)
    wanted = torch.autograd.grad((expected * weights).sum(), trained)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (2, 5, 4, 3), (1, 3)])
def test_linear(lanes, biased, shape):
    leaves = [random(lanes, *shape), random(lanes, 6, 3, seed=1), *([random(lanes, 6, seed=2)] if biased else [])]
    assert_lanes_are_torchs(functional.linear, functional.linear, leaves)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (2, 5, 4, 3)])
def test_linear_of_a_batch_that_lanes_share(shape):
    leaves = [random(3, 6, 3, seed=1), random(3, 6, seed=2)]
    assert_lanes_are_torchs(lambda w, b, x: kernels.linear(x, w, b), lambda w, b, x: functional.linear(x, w, b), leaves,
                            [random(*shape)])  # fmt: skip


def test_linear_with_a_shared_bias_and_with_a_shared_weight():
    x, w, b = random(3, 4, 5), random(3, 6, 5, seed=1), random(6, seed=2)
    assert_lanes_are_torchs(kernels.linear, functional.linear, [x, w], [b])
    assert_lanes_are_torchs(kernels.linear, functional.linear, [x], [w[0], b])
    assert_lanes_are_torchs(lambda x, b, w: kernels.linear(x, w, b), lambda x, b, w: functional.linear(x, w, b),
                            [x, random(3, 6)], [w[0]])  # fmt: skip


def test_linear_of_one_vector_and_of_tensors_that_are_not_contiguous():
    assert_lanes_are_torchs(kernels.linear, functional.linear, [random(3, 5), random(3, 6, 5), random(3, 6)])
    x, w = random(4, 5, 3).permute(2, 0, 1), random(5, 6, 3).permute(2, 1, 0)
    assert_lanes_are_torchs(kernels.linear, functional.linear, [x, w])


def test_linear_passes_no_gradient_to_what_is_frozen():
    w, b = random(3, 6, 5).requires_grad_(), random(3, 6)
    output = vmap(kernels.linear)(random(3, 4, 5), w, b)
    (gradient,) = torch.autograd.grad(output.sum(), [w])
    assert gradient.shape == w.shape


def test_gradients_of_linear_are_those_of_finite_differences():
    leaves = [random(2, 3, 4).requires_grad_(), random(2, 5, 4).requires_grad_(), random(2, 5).requires_grad_()]
    assert torch.autograd.gradcheck(vmap(kernels.linear), leaves)


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize(("n", "classes"), [(7, 3), (1, 10), (4, 2), (16, 1)])
def test_cross_entropy(lanes, n, classes):
    targets = torch.randint(classes, (lanes, n), generator=torch.Generator().manual_seed(3))
    logits = 5 * random(lanes, n, classes)
    assert_lanes_are_torchs(kernels.cross_entropy, functional.cross_entropy, [logits, targets])
    kept = logits.clone()
    vmap(kernels.cross_entropy)(logits, targets)
    assert torch.equal(logits, kept)


def test_cross_entropy_leaves_ignored_targets_out():
    targets = torch.tensor([[0, -100, 2, 1], [-100, -100, 1, -100], [2, 2, 0, 0]])
    assert_lanes_are_torchs(kernels.cross_entropy, functional.cross_entropy, [random(3, 4, 3), targets])
    none = vmap(kernels.cross_entropy)(random(2, 4, 3), torch.full((2, 4), -100))
    assert none.isnan().all()


def test_cross_entropy_of_large_logits_is_finite_and_a_nan_stays_in_its_lane():
    logits = 1e4 * random(3, 4, 3)
    targets = torch.tensor([[0, 1, 2, 1]] * 3)
    assert_lanes_are_torchs(kernels.cross_entropy, functional.cross_entropy, [logits, targets], tolerance=1e-10)
    for bad in (torch.nan, torch.inf):
        logits[1, 2, 0] = bad
        leaf = logits.clone().requires_grad_()
        losses = vmap(kernels.cross_entropy)(leaf, targets)
        losses.sum().backward()
        assert losses.isfinite().tolist() == [True, False, True]
        assert leaf.grad[[0, 2]].isfinite().all()


@pytest.mark.parametrize(("stride", "padding"), [((1, 1), (0, 0)), ((2, 1), (1, 2))])
@pytest.mark.parametrize("biased", [True, False])
def test_a_convolution_by_patches_is_torchs(stride, padding, biased):
    """A GPU takes it for a first layer; it is the same anywhere."""
    leaves = [random(3, 4, 2, 7, 6), random(3, 5, 2, 3, 3, seed=1), *([random(3, 5, seed=2)] if biased else [])]
    assert_lanes_are_torchs(
        lambda x, w, b=None: kernels.by_patches(x, w, b, stride, padding),
        lambda x, w, b=None: functional.conv2d(x, w, b, stride, padding),
        leaves,
    )


def test_gradients_of_cross_entropy_are_those_of_finite_differences():
    targets = torch.tensor([[0, 1, -100], [2, 2, 1]])
    logits = random(2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: vmap(kernels.cross_entropy)(x, targets), [logits])


@pytest.mark.parametrize("shape", [(2, 3, 4), (3,)])
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.2}, {"reduction": "sum"}, {"reduction": "none"}, {"ignore_index": 1},
     {"weight": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}],
    ids=["plain", "smoothing", "sum", "none", "ignore", "weight"],
)  # fmt: skip
def test_cross_entropy_of_other_shapes_and_options_is_torchs(shape, options):
    targets = torch.tensor([0, 2, 2, 0])
    if len(shape) > 1:
        targets = torch.arange(4 * 2 * 4).reshape(4, 2, 4) % 3
    assert_lanes_are_torchs(
        lambda x, y: functional.cross_entropy(x, y, **options),
        lambda x, y: functional.cross_entropy(x, y, **options),
        [random(4, *shape), targets],
    )
    rows = torch.tensor([[0, 1], [2, 1]])
    module = nn.CrossEntropyLoss(**options)
    assert_lanes_are_torchs(module, module, [random(2, 2, 3), rows])


def test_cross_entropy_of_probabilities_is_torchs():
    probabilities = random(3, 4, 5, seed=1).softmax(-1)
    assert_lanes_are_torchs(kernels.cross_entropy, functional.cross_entropy, [random(3, 4, 5), probabilities])


def test_without_lanes_they_are_torchs_own_to_the_bit():
    x, w, b, y = random(4, 3), random(6, 3), random(6), torch.tensor([0, 5, 2, 1])
    assert torch.equal(kernels.linear(x, w, b), functional.linear(x, w, b))
    assert torch.equal(kernels.cross_entropy(x @ w.T, y), functional.cross_entropy(x @ w.T, y))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_that_there_is_not_is_an_error(wrong):
    targets = torch.tensor([[0, 1], [2, wrong]])
    with pytest.raises(RuntimeError, match="out of bounds"):
        vmap(kernels.cross_entropy)(random(2, 2, 3), targets)
