"""The counter-based random numbers: are they random enough, and functions of what they should be?"""

import math

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hpsearch.training.randomness import (
    Key,
    KeyedDropout,
    Purpose,
    alpha_dropout,
    dropout,
    mask_key,
    mask_words,
    permutation,
    stream,
    uniform,
    words,
)

#: the first words of a stream, as they were when the first study was recorded
KNOWN = [2696477748, 551827816, 953051654, 485576662]
KNOWN_MASK = [691476291, -638423776, 2075092987, 1015763121]


def mask(x, p, seed=0, step=0, layer=None):
    with KeyedDropout(seed, step):
        return (layer or nn.Dropout(p))(x) != 0


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_keep_rate_is_within_four_sigma(p):
    n = 200_000
    for step in range(5):
        kept = mask(torch.ones(n), p, step=step).sum().item()
        assert abs(kept - n * (1 - p)) < 4 * math.sqrt(n * p * (1 - p))


def pairs_are_independent(a, b):
    """Chi-squared of the four kinds of pairs of fair bits, 3 degrees of freedom: below the 0.9999 quantile."""
    counts = torch.bincount(2 * a.long() + b.long(), minlength=4).double()
    expected = counts.sum() / 4
    return ((counts - expected) ** 2 / expected).sum().item() < 21.1


@pytest.mark.parametrize("shift", [1, 2, 3, 4, 8, 64, 128, 1024])
def test_neighbours_within_a_mask_are_independent(shift):
    bits = mask(torch.ones(2**17), 0.5)
    assert pairs_are_independent(bits[:-shift], bits[shift:])


def test_masks_of_other_steps_seeds_and_layers_are_independent():
    x = torch.ones(2**16)
    base = mask(x, 0.5)
    for other in [mask(x, 0.5, step=1), mask(x, 0.5, seed=1), mask(x, 0.5, seed=2**31 - 1, step=12345)]:
        assert pairs_are_independent(base, other)
        assert pairs_are_independent(base[:-1], other[1:])  # nor is one the other, moved
    twice = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    kept = mask(x, 0.5, layer=twice).double().mean().item()
    assert abs(kept - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2**16)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_an_element_is_dropped_at_its_rate_over_the_steps_and_independently_of_the_step_before(p):
    steps = 4000
    kept = torch.stack([mask(torch.ones(64), p, seed=5, step=step) for step in range(steps)]).double()
    spread = math.sqrt(p * (1 - p) / steps)
    assert (kept.mean(0) - (1 - p)).abs().max() < 4.5 * spread
    for lag in (1, 2, 16):
        products = (kept[:-lag] - (1 - p)) * (kept[lag:] - (1 - p)) / (p * (1 - p))
        assert products.mean(0).abs().max() < 4.5 / math.sqrt(steps - lag)


def test_no_block_of_a_mask_is_repeated():
    bits = torch.stack([mask(torch.ones(2**14), 0.5, seed=s, step=t) for s in range(4) for t in range(4)])
    blocks = bits.view(-1, 64).to(torch.int64) @ (2 ** torch.arange(64))
    assert len(blocks.unique()) == len(blocks)


def test_every_bit_of_the_words_is_fair_and_hashed_bytes_are_even():
    w = words(torch.arange(2**17), stream(7, Purpose.DROPOUT, 3))
    assert 0 <= w.min() <= w.max() < 2**32
    for bit in range(32):
        ones = ((w >> bit) & 1).sum().item()
        assert abs(ones - 2**16) < 4.5 * math.sqrt(2**15)
    for byte in range(4):
        counts = torch.bincount((w >> (8 * byte)) & 255, minlength=256).double()
        chi2 = ((counts - 512) ** 2 / 512).sum().item()
        assert 160 < chi2 < 370  # 255 degrees of freedom, both tails at about 1e-6


def test_uniform_numbers_are_uniform():
    u = uniform(stream(1, Purpose.AUGMENT), (100_000,))
    assert u.min() >= 0
    assert u.max() < 1
    gap = (u.double().sort().values - torch.arange(100_000) / 100_000).abs().max().item()
    assert gap < 2.2 / math.sqrt(100_000)  # Kolmogorov and Smirnov, 1e-4


def test_known_words_never_change():
    """A change of the hash changes every recorded run: this must fail then."""
    assert words(torch.arange(4), stream(0, Purpose.ORDER, 0)).tolist() == KNOWN
    assert mask_words(4, mask_key(0, 0, 0), torch.device("cpu")).tolist() == KNOWN_MASK


def test_p_zero_is_the_identity_and_p_one_gives_zeros():
    x = torch.tensor([1.5, -2.0, float("inf"), 0.1], requires_grad=True)
    key = mask_key(0, 0, 0)
    assert torch.equal(dropout(x, 0.0, key), x)
    finite = torch.ones(4)
    for zeros in (dropout(x, 1.0, key), alpha_dropout(x, 1.0, key), dropout(finite, torch.tensor(1.0), key)):
        assert torch.equal(zeros, torch.zeros(4))
    assert torch.equal(dropout(x, torch.tensor(0.0), key), x)


def test_kept_elements_are_scaled_and_gradients_follow_the_mask():
    x = torch.ones(1000, requires_grad=True)
    y = dropout(x, 0.2, mask_key(0, 0, 0))
    y.sum().backward()
    assert set(y.detach().unique().tolist()) == {0.0, 1.25}
    assert torch.equal(x.grad, y.detach())


def test_a_tensor_p_gives_the_same_mask_as_a_number():
    key = mask_key(3, 5, 0)
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(dropout(x, torch.tensor(0.3, dtype=torch.float64), key), dropout(x, 0.3, key))


def test_seeds_as_tensors_give_each_lane_its_own_words():
    seeds = torch.tensor([0, 5, 2**31 - 1])
    a, b = stream(seeds, Purpose.DROPOUT, 9)
    together = words(torch.arange(100), (a[:, None], b[:, None]))
    for k, seed in enumerate(seeds.tolist()):
        assert torch.equal(together[k], words(torch.arange(100), stream(seed, Purpose.DROPOUT, 9)))


def test_dropout_works_under_vmap_with_a_p_and_a_seed_a_lane():
    x = torch.ones(3, 500)
    seeds, ps = torch.tensor([1, 2, 3]), torch.tensor([0.0, 0.4, 1.0]).double()

    def forward(x, seed, p):
        with KeyedDropout(seed, 4):
            return functional.dropout(x, p)

    together = torch.func.vmap(forward)(x, seeds, ps)
    for k in range(3):
        with KeyedDropout(int(seeds[k]), 4):
            assert torch.allclose(together[k], functional.dropout(x[k], float(ps[k])))


@pytest.mark.parametrize(
    ("layer", "shape", "whole"),
    [
        (nn.Dropout1d(0.5), (8, 16, 10), 2),
        (nn.Dropout2d(0.5), (8, 16, 5, 5), 2),
        (nn.Dropout3d(0.5), (8, 16, 3, 3, 3), 2),
        (nn.Dropout1d(0.5), (16, 10), 1),
        (nn.Dropout3d(0.5), (16, 3, 3, 3), 1),
    ],
)
def test_channel_dropouts_drop_whole_channels_as_torchs_do(layer, shape, whole):
    kept = mask(torch.ones(shape), 0.5, layer=layer).flatten(whole).double().mean(-1)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    reference = (layer(torch.ones(shape)) != 0).flatten(whole).double().mean(-1)
    assert set(reference.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.3)])
def test_alpha_dropouts_keep_mean_and_variance(layer):
    x = torch.randn(400, 300, 2, generator=torch.Generator().manual_seed(0))
    with KeyedDropout(0, 0):
        y = layer(x)
        functional_default = functional.alpha_dropout(x, 0.3)
    assert abs(y.mean().item()) < 0.02
    assert abs(y.var().item() - 1) < 0.03
    assert torch.equal(functional_default, x)  # torch's default there is training=False


def test_evaluation_and_wrong_p():
    x = torch.ones(10)
    with KeyedDropout(0, 0):
        assert nn.Dropout(0.5).eval()(x) is x
        assert torch.equal(functional.dropout(x, 0.5, False), x)
        with pytest.raises(ValueError, match="between 0 and 1"):
            functional.dropout(x, 1.5)
        functional.dropout(x, 1.0, inplace=True)
    assert not x.any()


def test_dropout_leaves_torchs_own_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    mask(torch.ones(100), 0.5)
    assert torch.equal(before, torch.get_rng_state())


def test_permutations():
    first = permutation(3, Purpose.ORDER, 0, 1000)
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert torch.equal(first, permutation(3, Purpose.ORDER, 0, 1000))
    for other in (permutation(3, Purpose.ORDER, 1, 1000), permutation(4, Purpose.ORDER, 0, 1000)):
        assert (first == other).sum() < 12  # a random pair agrees in 1 place on average


def test_every_permutation_of_four_is_as_frequent():
    seen = [tuple(permutation(seed, Purpose.ORDER, 0, 4).tolist()) for seed in range(4800)]
    counts = torch.tensor([seen.count(order) for order in set(seen)]).double()
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 60  # 23 degrees of freedom, 4e-5


def test_augmentation_depends_on_the_example_not_on_its_place():
    rows = torch.tensor([5, 2, 9])
    numbers = Key(0, 3, rows).uniform(3, 2, 2)
    assert numbers.shape == (3, 2, 2)
    assert torch.equal(Key(0, 3, rows.flip(0)).uniform(3, 2, 2), numbers.flip(0))
    assert torch.equal(Key(0, 3, rows[:1]).uniform(1, 2, 2), numbers[:1])
    assert not torch.equal(Key(0, 4, rows).uniform(3, 2, 2), numbers)
    key = Key(0, 3, rows)
    assert not torch.equal(key.uniform(3), key.uniform(3))
    with pytest.raises(ValueError, match="starts with B = 3"):
        key.uniform(2)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_dropout_that_backward_would_compute_again_is_an_error_not_another_mask(reentrant):
    inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    x = torch.ones(2, 4, requires_grad=True)
    with KeyedDropout(0, 0), pytest.raises(RuntimeError, match=r"torch\.utils\.checkpoint"):
        checkpoint(inner, x, use_reentrant=reentrant)
    with KeyedDropout(0, 0):
        checkpoint(inner.eval(), x, use_reentrant=reentrant).sum().backward()
    assert x.grad.shape == (2, 4)


def test_normal_numbers_are_normal_and_a_lane_has_its_own():
    rows = torch.arange(50_000)
    numbers = Key(3, 1, rows).normal(50_000, 2)
    assert numbers.dtype == torch.float32
    assert scipy.stats.kstest(numbers.flatten().numpy(), "norm").pvalue > 0.01
    assert abs(scipy.stats.pearsonr(*numbers.T.numpy()).statistic) < 4 / 50_000**0.5
    lanes = torch.func.vmap(lambda seed: Key(seed, 1, rows[:7]).normal(7, 2))(torch.tensor([3, 4]))
    assert torch.equal(lanes[0], numbers[:7])
    assert not torch.equal(lanes[0], lanes[1])
