"""Successive halving's rungs and its rule, which the pruner of that name and Hyperband's brackets share.

Sources: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization" (AISTATS
2016), with eta for 2; asynchronous: Li et al., "A system for massively parallel hyperparameter tuning" (MLSys 2020),
algorithm 2.
"""

from __future__ import annotations

import math

from hpsearch.pruner import Rung, Verdict


def rungs(trials: int, first: int, eta: int, last: int | None, *, asynchronous: bool) -> tuple[int, ...]:
    """The epochs ``first * eta**k`` below ``last`` (None: no end) to which more than one of ``trials`` trials comes.

    Where one is left it trains to its end: to wait for nobody would cost a checkpoint. Asynchronously more may come to
    a rung than the rule gives in the end, so there one is enough.
    """
    epochs = []
    epoch, left = first, trials
    while left >= (1 if asynchronous else 2) and (last is None or epoch < last):
        epochs.append(epoch)
        epoch, left = epoch * eta, left // eta
    return tuple(epochs)


def keep_best(rung: Rung, eta: int, *, asynchronous: bool) -> Verdict:
    """Of the n trials that have come to the rung the best floor(n / eta) go on, and at least one.

    Those that diverged count in n and never go on; of equal ones the lower number does. Asynchronously a trial goes on
    as soon as it is among the best floor(n / eta) of the n there so far, and what never was is stopped when all have
    come.
    """
    if not rung.waiting or (rung.expected and not asynchronous):
        return Verdict()
    ranked = sorted((rung.cost(values), number) for number, values in rung.values.items())
    n = len(ranked)
    keep = n // eta if rung.expected else max(1, n // eta)
    best = {number for cost, number in ranked[:keep] if cost < math.inf}
    go = rung.waiting & best
    stop = frozenset() if rung.expected else rung.waiting - best
    if not go and not stop:
        return Verdict()
    reason = f"best {len(best)} of {n}{' so far' * (rung.expected > 0)} at epoch {rung.epoch}"
    if len(best) < keep:
        reason += ": no other is finite"
    return Verdict(go=go, stop=stop, reason=reason)
