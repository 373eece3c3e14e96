"""Bayesian optimisation: a model of the results so far says where the next trials promise most. Optuna underneath.

Nothing of Optuna outlives an ask: its study and its sampler are rebuilt from the history, and the sampler of a trial is
seeded by (study seed, index of the trial). Optuna sees each numeric parameter on its unit interval (or as whole numbers
where it has few values), so the scales are those of ``space.py``.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from hpsearch import points
from hpsearch.errors import Problem
from hpsearch.space import Categorical, Int, Parameter, Params, SearchSpace, Value, Window
from hpsearch.strategy import Decision, History, Observation, Strategy, broken_rules
from hpsearch.trial import Direction, State

if TYPE_CHECKING:
    import numpy as np
    import optuna
    from optuna.distributions import BaseDistribution

MODELS = ("auto", "gp", "tpe")
#: from this many finished trials on, ``auto`` takes TPE: a Gaussian process costs the cube of their number
GP_LIMIT = 250
#: numbers with at most this many values are whole numbers for the model, others a continuum
FEW = 100


@final
@dataclass(frozen=True, kw_only=True)
class Bayesian(Strategy):
    """Sobol points first, then batches suggested by a model of all earlier batches and of nothing else.

    The trials of a batch are suggested one after the other, each with those before it counted as running, which spreads
    them: the Gaussian process by the expected improvement of the whole batch (qLogEI; Ament et al., "Unexpected
    improvements to expected improvement", 2023), TPE by taking running trials as bad ones (constant liar; Watanabe,
    "Tree-structured Parzen estimator", 2023). Diverged and failed trials inform the model as the worst there is.
    """

    name: ClassVar[str] = "bayesian"

    #: ``auto``: a Gaussian process below 250 finished trials of numeric parameters, else TPE
    model: Literal["auto", "gp", "tpe"] = "auto"
    #: how many Sobol points come first, >= 1
    startup: int = 16
    #: how many trials are suggested from the same results, >= 1
    batch: int = 8

    @property
    def batch_size(self) -> int:
        """``batch``."""
        return self.batch

    def ask(self, history: History, n: int) -> list[Params]:
        """The next ``n`` of the batch; there is no end."""
        space = history.search_space
        first = history.batch * self.batch + history.index
        indices = range(first, first + min(n, self.batch - history.index))
        known = [o for o in history.finished if o.state is not State.CANCELLED and _inside(space, o.params)]
        if space.dimensions == 0 or not known:
            return [self._start(history, k) for k in indices]
        chosen = [self._start(history, k) for k in indices if k < self.startup]
        left = indices[len(chosen) :]
        return chosen + (self._suggest(history.asked(chosen), known, left) if left else [])

    def decisions(self, history: History) -> list[Decision]:
        """[]: nothing is decided but the next points."""
        return []

    def window(self, history: History) -> Window:
        """{}: all of the cube."""
        return {}

    def size(self, search_space: SearchSpace) -> int | None:
        """None: no end."""
        return None

    def problems(self, search_space: SearchSpace) -> list[Problem]:
        """Options out of range."""
        rules = [
            ("model", self.model in MODELS, f"must be one of {', '.join(MODELS)}"),
            ("startup", self.startup >= 1, "must be at least 1"),
            ("batch", self.batch >= 1, "must be at least 1"),
        ]
        return broken_rules(self, rules)

    def _start(self, history: History, index: int) -> Params:
        space = history.search_space
        return space.from_unit(points.sobol(history.seed, index, 1, space.dimensions)[0])

    def _uses_gp(self, history: History) -> bool:
        numeric = not any(isinstance(p, Categorical) for p in history.search_space.searched.values())
        return self.model == "gp" or (self.model == "auto" and numeric and len(history.finished) < GP_LIMIT)

    def _suggest(self, history: History, known: Sequence[Observation], indices: Sequence[int]) -> list[Params]:
        import optuna

        running, failed = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.FAIL
        axes = history.search_space.searched
        with _quiet():
            seen = _distributions(axes)
            study = optuna.create_study(direction=history.direction.value)
            for observation, value in zip(known, _losses(known, history.direction), strict=True):
                study.add_trial(_frozen(axes, seen, observation.params, value))
            sampler = _gp_samplers(study, seen) if self._uses_gp(history) else _tpe_sampler
            # Optuna sees what was chosen a moment ago as it would see it after a restart: read back from the params.
            for params in history.pending:
                study.add_trial(_frozen(axes, seen, params, state=running))
            chosen: list[Params] = []
            for index in indices:
                study.sampler = sampler(points.derive(history.seed, index))
                trial = study.ask(seen)
                chosen.append(_params(history.search_space, trial.params))
                study.tell(trial, state=failed)
                study.add_trial(_frozen(axes, seen, chosen[-1], state=running))
        return chosen


def _tpe_sampler(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True)


def _gp_samplers(
    study: optuna.Study, distributions: dict[str, BaseDistribution]
) -> Callable[[int], optuna.samplers.BaseSampler]:
    """A maker of Gaussian process samplers that share one fit to the finished trials of ``study``.

    The fit does not depend on the seed or on running trials, so the first trial of a batch pays for it and the others
    start at its end. Every trial starts there, also one asked for alone, so that both give the same bits.
    """
    import optuna

    @final
    class Fit(optuna.samplers.GPSampler):
        def _optimize_acqf(self, acqf: Any, best_params: np.ndarray | None) -> np.ndarray:
            assert best_params is not None
            first: np.ndarray = best_params[0]
            return first

    probe = Fit(seed=0, n_startup_trials=1)
    study.sampler = probe
    study.tell(study.ask(distributions), state=optuna.trial.TrialState.FAIL)
    fitted = probe._gprs_cache_list

    def sampler(seed: int) -> optuna.samplers.BaseSampler:
        made = optuna.samplers.GPSampler(seed=seed, n_startup_trials=1)
        made._gprs_cache_list = fitted
        return made

    return sampler


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its log lines and warnings, on one thread: sums over several differ in their last bits."""
    from optuna._gp.thread_limiting import limit_threads_in_optimization

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), limit_threads_in_optimization():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _few(p: Parameter) -> int | None:
    """The number of values where the model sees them one by one, else None."""
    size = p.size
    return size if size is not None and (isinstance(p, Categorical) or size <= FEW) else None


def _distributions(axes: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, p in axes.items():
        few = _few(p)
        if few is None:
            found[name] = FloatDistribution(0.0, 1.0)
        elif isinstance(p, Categorical):
            found[name] = CategoricalDistribution(tuple(range(few)))
        elif isinstance(p, Int) and p.log:
            found[name] = IntDistribution(p.low, p.high, log=True)
        else:
            found[name] = IntDistribution(0, few - 1)
    return found


def _encode(p: Parameter, value: Value) -> float | int:
    """A value as the model sees it."""
    few = _few(p)
    if few is None:
        return min(max(p.to_unit(value), 0.0), 1.0)
    return int(p.to_unit(value) * few) if not _on_log(p) else int(_number(value))


def _decode(p: Parameter, code: float) -> Value:
    few = _few(p)
    if few is None:
        return p.from_unit(code)
    return int(code) if _on_log(p) else p.from_unit((code + 0.5) / few)


def _on_log(p: Parameter) -> bool:
    """True where the steps between few whole numbers are uneven, which Optuna's own log scale knows."""
    return isinstance(p, Int) and p.log


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return value


def _params(space: SearchSpace, codes: dict[str, Any]) -> Params:
    fixed = space.fixed
    return {n: fixed[n] if n in fixed else _decode(p, codes[n]) for n, p in space.parameters.items()}


def _frozen(
    axes: Mapping[str, Parameter],
    distributions: Mapping[str, BaseDistribution],
    params: Params,
    value: float | None = None,
    state: optuna.trial.TrialState | None = None,
) -> optuna.trial.FrozenTrial:
    """A trial as Optuna stores it: complete with ``value``, or in ``state``."""
    import optuna

    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if state is None else state,
        value=value,
        params={name: _encode(p, params[name]) for name, p in axes.items()},
        distributions=dict(distributions),
    )


def _inside(space: SearchSpace, params: Params) -> bool:
    """True within low .. high; the model cannot be told of anything outside (a baseline, say)."""

    def within(p: Parameter, value: Value) -> bool:
        return isinstance(p, Categorical) or p.low <= _number(value) <= p.high

    return space.contains(params) and all(within(p, params[name]) for name, p in space.parameters.items())


def _losses(known: Sequence[Observation], direction: Direction) -> list[float]:
    """A finite value for every trial, in the same order; diverged and failed ones are worse than all others.

    Values worse than the median keep their order only: they are put on the quantiles of a normal distribution as wide
    as the better half. One run that nearly diverged would else hide every difference between the good ones.
    Source: half-rank warping, Song et al., "The Vizier Gaussian process bandit algorithm" (2024), section 4.1.
    """
    sign = direction.sign
    losses = [math.inf if o.value is None else sign * o.value for o in known]
    finite = [loss for loss in losses if loss < math.inf]
    middle = median(finite) if finite else 0.0
    better = [loss for loss in finite if loss <= middle]
    spread = math.sqrt(sum((loss - middle) ** 2 for loss in better) / len(better)) if better else 0.0
    worse = sorted(loss for loss in losses if loss > middle)
    # Equal losses share the rank of the last of them.
    rank = {loss: k + 0.5 for k, loss in enumerate(worse)}

    def warped(loss: float) -> float:
        if loss <= middle:
            return loss
        return middle + (spread or 1.0) * NormalDist().inv_cdf(0.5 + 0.5 * rank[loss] / len(worse))

    return [sign * warped(loss) for loss in losses]
