import itertools
import math

import pytest

from hpsearch import points


@pytest.mark.parametrize("draw", [points.sobol, points.independent])
@pytest.mark.parametrize("dimensions", [0, 1, 5])
def test_asked_in_pieces_a_sequence_is_the_same(draw, dimensions):
    whole = draw(5, 0, 1100, dimensions)
    pieces = draw(5, 0, 1, dimensions) + draw(5, 1, 1022, dimensions) + draw(5, 1023, 77, dimensions)
    assert whole == pieces
    assert draw(5, 7, 0, dimensions) == []
    assert all(len(row) == dimensions and all(0 <= u < 1 for u in row) for row in whole)


@pytest.mark.parametrize("draw", [points.sobol, points.independent])
def test_seeds_differ_also_negative_and_huge_ones(draw):
    firsts = {tuple(draw(seed, 0, 1, 3)[0]) for seed in (0, 1, -1, 2**63, 12345678901234567890)}
    assert len(firsts) == 5


def test_sobol_puts_one_point_into_each_elementary_interval():
    rows = points.sobol(1, 0, 64, 2)
    for boxes in (64, 32, 16, 8, 4, 2, 1):
        seen = {(int(x * boxes), int(y * (64 // boxes))) for x, y in rows}
        assert len(seen) == 64


def test_sobol_is_the_sequence_of_scipy():
    import numpy as np
    from scipy.stats import qmc

    wanted = qmc.Sobol(3, scramble=True, rng=np.random.default_rng(9)).random(2048).tolist()
    assert points.sobol(9, 0, 2048, 3) == wanted


def test_derived_seeds_differ_by_seed_and_by_key():
    seeds = {points.derive(seed, key) for seed in range(30) for key in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("sizes", [(), (1,), (7,), (3, 5), (4, 1, 6, 2), (1, 1), (100, 3, 7)])
def test_a_lattice_visits_each_cell_once_in_pieces_too(sizes):
    total = math.prod(sizes)
    whole = points.lattice(sizes, 3, 0, total + 10)
    assert sorted(whole) == list(itertools.product(*map(range, sizes)))
    assert points.lattice(sizes, 3, 0, 2) + points.lattice(sizes, 3, 2, total) == whole
    assert points.lattice(sizes, 3, total, 1) == []


def test_any_first_part_of_a_lattice_is_even_on_every_axis():
    sizes = (10, 6, 4)
    order = points.lattice(sizes, 0, 0, 240)
    for part in (24, 60, 120, 180):
        for axis, size in enumerate(sizes):
            counts = [sum(cell[axis] == k for cell in order[:part]) for k in range(size)]
            # An order row by row has counts of 0 here until the very end.
            assert max(counts) - min(counts) <= max(4, part / size * 0.5), (part, axis, counts)


def test_a_lattice_of_millions_of_cells_needs_no_table():
    sizes = (2000, 1500, 3)
    total = math.prod(sizes)
    first = points.lattice(sizes, 1, 0, 5000)
    assert len(set(first)) == 5000
    assert all(0 <= k < size for cell in first for k, size in zip(cell, sizes, strict=True))
    quarters = [cell[0] * 4 // 2000 for cell in first]
    assert all(abs(quarters.count(q) - 1250) < 20 for q in range(4))
    assert len(points.lattice(sizes, 1, total - 5, 100)) == 5
