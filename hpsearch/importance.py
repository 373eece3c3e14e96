"""Which hyperparameters mattered, and how sure that is: Optuna's PED-ANOVA and fANOVA over resampled trials.

Two questions, two answers. **PED-ANOVA** asks which parameters separate the best tenth of the trials from all of them
(Watanabe, Bansal and Hutter, "PED-ANOVA", IJCAI 2023). **fANOVA** asks how much of the variance over the whole space
each parameter explains alone (Hutter, Hoos and Leyton-Brown, ICML 2014). They may disagree, and both are then right.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, final

from hpsearch.parameter import Categorical
from hpsearch.space import SearchSpace
from hpsearch.trial import Direction, State, Trial

if TYPE_CHECKING:
    import optuna

#: fewer trials with a value, or diverged, say nothing
FEWEST = 10
#: fANOVA grows a forest for every resample: of more trials, it takes so many at random
FANOVA_MOST = 300
#: and PED-ANOVA so many
MOST = 1000
TREES = 16
RESAMPLES = 50
#: of the resamples' values, what lies between the ends of an interval
CONFIDENCE = 0.9

Method = Literal["ped_anova", "fanova"]


@final
@dataclass(frozen=True, kw_only=True)
class Share:
    """How much one parameter mattered, from 0 to 1; the shares of all parameters add up to 1."""

    name: str
    share: float
    #: the 5 % and 95 % quantiles over resampled trials, widened to hold ``share`` where they do not
    low: float
    high: float


@final
@dataclass(frozen=True, kw_only=True)
class Importances:
    """The shares by both methods, each with the largest first."""

    ped_anova: Sequence[Share] = ()
    fanova: Sequence[Share] = ()
    #: trials that were looked at, diverged ones among them; all that can be used, or a sample of them
    n: int = 0
    #: trials that can be used
    n_usable: int = 0
    #: of them, those that fANOVA took
    n_fanova: int = 0
    resamples: int = 0
    #: why there are no shares; empty where there are
    reason: str = ""


def importances(
    space: SearchSpace,
    trials: Sequence[Trial],
    direction: Direction,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    methods: Sequence[Method] = ("ped_anova", "fanova"),
) -> Importances:
    """What mattered, with the spread over resampled trials.

    Both methods see ranks in place of values, so that one run that nearly diverged does not drown all others; diverged
    trials share the worst rank. Pruned and failed trials, and baselines outside the space, are left out. A parameter is
    seen on its own scale (``space.hard()``).

    Args:
        space: D searched parameters.
        trials: any; those that cannot be used are left out.
        direction: which way the metric gets better.
        resamples: how often the trials are drawn anew, with replacement; >= 2.
        seed: of the draws and of fANOVA's forests.
        methods: which of the two; fANOVA takes by far the longest. None of them: only whether something can be said.
    """
    axes = space.hard().searched
    used = usable(space, trials)
    n_usable = len(used)
    if len(used) > MOST:
        used = random.Random(seed).sample(used, MOST)
    nothing = Importances(n=len(used), n_usable=n_usable)
    if len(axes) < 2:
        return replace(nothing, reason="one hyperparameter was searched: it has all the importance")
    if len(used) < FEWEST:
        return replace(nothing, reason=f"{len(used)} trials say too little; {FEWEST} are the least")
    ranks = _ranks(used, direction)
    if len(set(ranks)) == 1:
        return replace(nothing, reason="all trials have the same value: nothing is there to explain")
    if not methods:
        return nothing
    points = [[p.to_unit(t.params[name]) for name, p in axes.items()] for t in used]
    rows = list(zip(points, ranks, strict=True))
    few = rows
    if len(rows) > FANOVA_MOST:
        few = random.Random(seed).sample(rows, FANOVA_MOST)
    with _quiet():
        ped = _with_spread(space, rows, "ped_anova", resamples, seed) if "ped_anova" in methods else []
        fanova = _with_spread(space, few, "fanova", resamples, seed) if "fanova" in methods else []
    return replace(
        nothing, ped_anova=ped, fanova=fanova, n_fanova=len(few) if "fanova" in methods else 0, resamples=resamples
    )


def usable(space: SearchSpace, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that say something: complete ones with a value and diverged ones, within the space."""
    return [t for t in trials if _usable(t) and space.contains(t.params)]


def order(space: SearchSpace, trials: Sequence[Trial], direction: Direction) -> list[str]:
    """The searched hyperparameters, those that mattered most first: PED-ANOVA once, on 300 trials at most.

    A tenth of a second, where ``importances`` with its whiskers takes many; without the trials that it needs, the
    order is the space's.
    """
    axes = space.hard().searched
    used = usable(space, trials)
    if len(used) > FANOVA_MOST:
        used = random.Random(0).sample(used, FANOVA_MOST)
    ranks = _ranks(used, direction)
    if len(axes) < 2 or len(used) < FEWEST or len(set(ranks)) == 1:
        return list(axes)
    points = [[p.to_unit(t.params[name]) for name, p in axes.items()] for t in used]
    with _quiet():
        shares = _shares(space, list(zip(points, ranks, strict=True)), "ped_anova", 0)
    return sorted(axes, key=lambda name: -shares[name])


def _usable(trial: Trial) -> bool:
    return trial.state is State.DIVERGED or (trial.state is State.COMPLETE and trial.value is not None)


def _ranks(trials: Sequence[Trial], direction: Direction) -> list[float]:
    """0 for the best, 1 for the worst; equal values share the mean of their ranks."""
    sign = direction.sign
    losses = [math.inf if t.state is State.DIVERGED or t.value is None else sign * t.value for t in trials]
    places: dict[float, list[int]] = {}
    for place, loss in enumerate(sorted(losses)):
        places.setdefault(loss, []).append(place)
    last = max(len(losses) - 1, 1)
    return [sum(places[loss]) / len(places[loss]) / last for loss in losses]


Rows = Sequence[tuple[Sequence[float], float]]


def _with_spread(space: SearchSpace, rows: Rows, method: Method, resamples: int, seed: int) -> list[Share]:
    names = list(space.hard().searched)
    whole = _shares(space, rows, method, seed)
    drawn: dict[str, list[float]] = {name: [] for name in names}
    for k in range(resamples):
        source = random.Random(f"{seed} {k}")
        sample = source.choices(rows, k=len(rows))
        if len({rank for _, rank in sample}) == 1:
            continue  # nothing to explain in this one
        for name, share in _shares(space, sample, method, seed + k + 1).items():
            drawn[name].append(share)
    shares = []
    for name in names:
        low, high = _ends(drawn[name] or [whole[name]])
        shares.append(Share(name=name, share=whole[name], low=min(low, whole[name]), high=max(high, whole[name])))
    return sorted(shares, key=lambda share: (-share.share, names.index(share.name)))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)

    def quantile(q: float) -> float:
        place = q * (len(ordered) - 1)
        k = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
        after = ordered[min(k + 1, len(ordered) - 1)]
        return ordered[k] + (place - k) * (after - ordered[k])

    return quantile((1 - CONFIDENCE) / 2), quantile((1 + CONFIDENCE) / 2)


def _shares(space: SearchSpace, rows: Rows, method: Method, seed: int) -> dict[str, float]:
    """Each parameter's share by Optuna; equal ones where it finds nothing at all."""
    import optuna

    axes = space.hard().searched
    study = optuna.create_study(direction="minimize")
    kinds: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(tuple(range(p.size)))
        if isinstance(p, Categorical)
        else optuna.distributions.FloatDistribution(0.0, 1.0)
        for name, p in axes.items()
    }
    for point, rank in rows:
        params = {
            name: int(u * p.size) if isinstance(p, Categorical) else min(max(u, 0.0), 1.0)
            for (name, p), u in zip(axes.items(), point, strict=True)
        }
        study.add_trial(optuna.trial.create_trial(value=rank, params=params, distributions=kinds))
    raw = _evaluator(method, seed).evaluate(study)
    total = sum(raw.values())
    if not total > 0:
        return dict.fromkeys(axes, 1 / len(axes))
    return {name: float(raw.get(name, 0.0) / total) for name in axes}


def _evaluator(method: Method, seed: int) -> optuna.importance.BaseImportanceEvaluator:
    import optuna

    if method == "ped_anova":
        return optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its log lines and warnings."""
    import optuna  # noqa: F401 - it sets its logger's level when it is imported

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
