"""Points of the unit cube, each a pure function of (seed, index): nothing to save, nothing to resume.

A point has D coordinates in [0, 1). Asked for in one piece or in many, a sequence is the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

_BLOCK = 1024
#: above it, a lattice's order is computed a cell at a time, not as one table
_TABLE = 1 << 20


def derive(seed: int, *keys: int) -> int:
    """A seed in [0, 2**32) for one purpose, from the study's seed and non-negative keys that name the purpose.

    Source: numpy's SeedSequence, which mixes so that near inputs give unrelated outputs.
    """
    import numpy as np

    return int(np.random.SeedSequence([_key(seed), *keys]).generate_state(1)[0])


def sobol(seed: int, start: int, n: int, dimensions: int) -> list[list[float]]:
    """Points ``start`` .. ``start + n - 1`` of a scrambled Sobol sequence; shape (n, dimensions).

    Source: Sobol (1967) with the scrambling of Owen, "Scrambling Sobol' and Niederreiter-Xing points" (1998), as
    scipy.stats.qmc.Sobol has it (a random linear matrix scramble with a digital shift, after Matousek 1998).
    """
    if dimensions == 0:
        return [[] for _ in range(n)]
    points: list[list[float]] = []
    for block in range(start // _BLOCK, (start + n - 1) // _BLOCK + 1):
        first = block * _BLOCK
        rows = _sobol_block(seed, block, dimensions)[max(start - first, 0) : start + n - first]
        points.extend(list(row) for row in rows)
    return points


@lru_cache(maxsize=32)
def _sobol_block(seed: int, block: int, dimensions: int) -> tuple[tuple[float, ...], ...]:
    import numpy as np
    from scipy.stats import qmc

    engine = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(_key(seed)))
    if block:
        engine.fast_forward(block * _BLOCK)
    return tuple(map(tuple, engine.random(_BLOCK).tolist()))


def independent(seed: int, start: int, n: int, dimensions: int) -> list[list[float]]:
    """Points ``start`` .. ``start + n - 1`` of independent uniform ones; shape (n, dimensions).

    Source: the counter-based generator Philox, keyed by (seed, index); Salmon et al., "Parallel random numbers: as easy
    as 1, 2, 3" (2011).
    """
    import numpy as np

    def point(k: int) -> list[float]:
        key = np.array([_key(seed), k], dtype=np.uint64)
        return list(map(float, np.random.Generator(np.random.Philox(key=key)).random(dimensions)))

    return [point(k) for k in range(start, start + n)]


def lattice(sizes: Sequence[int], seed: int, start: int, n: int) -> list[tuple[int, ...]]:
    """Cells ``start`` .. ``start + n - 1`` of a grid with ``sizes[d]`` cells on axis d, each cell exactly once.

    Shape (at most n, D): the indices of the cell on each axis. Any first part of the order covers the grid evenly:
    cells come in the order in which a Sobol sequence first visits them. Grids of more than 2**20 cells are walked in
    steps of the golden ratio of their length (Weyl's sequence on the cells laid end to end), which needs no table.
    """
    shape = tuple(sizes)
    total = math.prod(shape)
    wanted = range(start, min(start + n, total))
    if total > _TABLE:
        stride = _coprime(round(total * (math.sqrt(5) - 1) / 2), total)
        shift = derive(seed, total)
        return [_digits((shift + k * stride) % total, shape) for k in wanted]
    order = _visits(shape, seed)
    return [_digits(order[k], shape) for k in wanted]


@lru_cache(maxsize=8)
def _visits(shape: tuple[int, ...], seed: int) -> tuple[int, ...]:
    import numpy as np
    from scipy.stats import qmc

    total = math.prod(shape)
    axes = [d for d, size in enumerate(shape) if size > 1]
    if not axes:
        return (0,) * total
    engine = qmc.Sobol(len(axes), scramble=True, rng=np.random.default_rng(_key(seed)))
    # Four visits a cell on average leave few cells unseen; those come last, in a random order.
    points = engine.random_base2(math.ceil(math.log2(4 * total)))
    cells = np.zeros(len(points), dtype=np.int64)
    for column, d in enumerate(axes):
        stride = math.prod(shape[d + 1 :])
        cells += np.minimum((points[:, column] * shape[d]).astype(np.int64), shape[d] - 1) * stride
    seen, first = np.unique(cells, return_index=True)
    unseen = np.setdiff1d(np.arange(total), seen, assume_unique=True)
    late = np.random.default_rng([_key(seed), total]).permutation(unseen)
    return tuple(np.concatenate([seen[np.argsort(first)], late]).tolist())


def _digits(cell: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    digits: list[int] = []
    for size in reversed(shape):
        cell, digit = divmod(cell, size)
        digits.append(digit)
    return tuple(reversed(digits))


def _coprime(stride: int, total: int) -> int:
    while math.gcd(stride, total) != 1:
        stride += 1
    return stride


def _key(seed: int) -> int:
    # numpy's generators take no negative seed.
    return seed % (1 << 64)
