"""How often "beats" is said of a trial against itself, on real runs: its seeds dealt to two sides, 100,000 times.

    hpsearch run studies/digits_random.yaml --set name=aa -n 2 --seeds 64
    python benchmarks/alike.py aa val_accuracy

Per trial and metric: the rate with 6, 8 and 16 seeds a side, then how often a race of four sides drops one.
The sides are dealt from the same 64 runs, so the rates carry that pool's own chance.
"""

import sys

import numpy as np

import hpsearch as hp
from hpsearch.compare import at_best_epoch
from hpsearch.race import schedule, worse
from hpsearch.verdict import difference, min_seeds, t_test

ALPHA, TIMES = 0.05, 100_000


def rates(values):
    rng = np.random.default_rng(0)
    dealt = values[rng.random((TIMES, len(values))).argsort(1)]
    found = []
    for seeds in (6, 8, 16):
        *_, p = t_test(difference(dealt[:, :seeds], dealt[:, seeds : 2 * seeds]))
        found.append((p <= ALPHA).mean())
    sides, looks = dealt[:, :64].reshape(TIMES, 4, 16), schedule()
    alive = np.ones((TIMES, 4), bool)
    for seeds in looks:
        alive &= ~worse(sides[..., :seeds], alive, level=ALPHA / len(looks), contenders=4, least=min_seeds(ALPHA))[1]
    return [*found, (~alive.all(-1)).mean()]


def main(study, *metrics):
    results = hp.load(study)
    for trial in results.trials:
        said = {results.study.spec["metric"]: [run.value for run in trial.runs]}
        for metric in metrics:
            value = at_best_epoch(results.archive.curves(study, [trial.number], [metric]))
            said[metric] = [value(run) for run in trial.runs]
        for metric, values in said.items():
            shares = "  ".join(f"{rate:6.2%}" for rate in rates(np.array(values, float)))
            print(f"#{trial.number}  {metric:14}{len(values)} seeds  {shares}")


if __name__ == "__main__":
    main(*sys.argv[1:])
