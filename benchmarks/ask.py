"""What an ask costs: one trial, a batch of 8, and the same 8 one by one, after 10, 100 and 1,000 finished trials.

python benchmarks/ask.py [--trials 10 100 1000] [--limit SECONDS]
"""

from __future__ import annotations

import argparse
import math
import random
import time

from hpsearch.space import Float, Int, SearchSpace
from hpsearch.strategies.bayesian import Bayesian
from hpsearch.strategies.coarse_to_fine import CoarseToFine
from hpsearch.strategies.random import Random
from hpsearch.strategy import History, Observation, Strategy
from hpsearch.trial import Direction, State

SPACE = SearchSpace(
    {
        "lr": Float(1e-5, 1.0, log=True),
        "momentum": Float(0.5, 0.999, reverse_log=True),
        "dropout": Float(0.0, 0.7),
        "weight_decay": Float(1e-6, 1e-1, log=True),
        "width": Int(16, 512, log=True),
    }
)
BATCH = 8
MEMBERS: dict[str, Strategy] = {
    "random": Random(),
    "coarse_to_fine": CoarseToFine(trials_per_round=BATCH, min_width=1e-9),
    "tpe": Bayesian(model="tpe", startup=1, batch=BATCH),
    "gp": Bayesian(model="gp", startup=1, batch=BATCH),
}


def history(trials: int, seed: int) -> History:
    """A history of about ``trials`` trials (whole batches) with plausible values."""
    noise = random.Random(seed)
    count = max(trials // BATCH, 1) * BATCH
    drawn = Random().ask(History(search_space=SPACE, direction=Direction.MINIMIZE, seed=seed), count)
    finished = [
        Observation(
            params=params,
            state=State.COMPLETE,
            value=abs(math.log10(float(params["lr"] or 1)) + 2) + 0.1 * noise.random(),
        )
        for params in drawn
    ]
    return History(
        search_space=SPACE,
        direction=Direction.MINIMIZE,
        seed=seed,
        batch=count // BATCH,
        finished=tuple(finished),
    )


def seconds(strategy: Strategy, trials: int, parts: list[int], limit: float) -> float:
    """The median time of up to five asks in ``parts``, each of another history; fewer past ``limit`` seconds."""
    taken: list[float] = []
    for seed in range(5):
        past = history(trials, seed)
        start = time.perf_counter()
        for n in parts:
            asked = strategy.ask(past, n)
            past = past.asked(asked)
            assert len(asked) == n
        taken.append(time.perf_counter() - start)
        if sum(taken) > limit:
            break
    return sorted(taken)[len(taken) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of asks a cell before it stops repeating")
    options = parser.parse_args()
    print(f"{'strategy':<16}{'trials':>8}{'one ask, ms':>14}{'batch of 8, ms':>16}{'one by one, ms':>16}")
    for name, strategy in MEMBERS.items():
        seconds(strategy, 10, [1], 0.0)  # the imports
        for trials in options.trials:
            parts = ([1], [BATCH], [1] * BATCH)
            one, batch, singly = (1e3 * seconds(strategy, trials, part, options.limit) for part in parts)
            print(f"{name:<16}{trials:>8}{one:>14.2f}{batch:>16.2f}{singly:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
