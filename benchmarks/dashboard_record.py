"""A large study, written through the store as a coordinator writes it, and the same trials for Optuna.

    python benchmarks/dashboard_record.py sqlite:////tmp/large.db --trials 10000 --seeds 3 --epochs 20

Nothing is trained: a value is a function of the hyperparameters with noise of its seed. Of 100 trials about 5 diverge,
one fails and 10 are pruned half-way.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import hpsearch as hp
from hpsearch.objective import ObjectiveAddress
from hpsearch.store import Claim, Score, StudyRecord, Turn, this_process
from hpsearch.stores.sql import open_store
from hpsearch.study import fingerprint, spec_of
from hpsearch.trial import Environment, EpochReport, Finished, Run, RunKey, State, Trial, score

STUDY = "large"
METRIC = "val_loss"
SPACE = hp.SearchSpace(
    {
        "lr": hp.Float(1e-5, 1.0, log=True),
        "momentum": hp.Float(0.5, 0.999, reverse_log=True),
        "dropout": hp.Float(0.0, 0.5),
        "weight_decay": hp.Float(1e-6, 1e-1, log=True),
        "width": hp.Int(16, 1024, log=True),
        "optimiser": hp.Categorical(["sgd", "adam", "rmsprop"]),
    }
)
#: trials of one turn
BATCH = 100
WORKERS = 4
ENVIRONMENT = Environment(python="3.12.0", torch="2.9.0", device="cpu", machine="Linux, 2 cores")


def chosen(number: int) -> dict[str, hp.Value]:
    """The hyperparameters of a trial."""
    source = random.Random(number)
    return SPACE.from_unit([source.random() for _ in range(SPACE.dimensions)])


def course(number: int, seed: int, epochs: int) -> tuple[State, list[float]]:
    """How a run ends, and its metric at each epoch until then."""
    params = chosen(number)
    fate = random.Random(f"fate {number}").random()
    noise = random.Random(f"{number} {seed}").gauss(0, 0.02)
    level = 0.1 + 0.08 * (math.log10(float(params["lr"])) + 2.5) ** 2 + 0.3 * float(params["dropout"]) + noise
    level += {"sgd": 0.05, "adam": 0.0, "rmsprop": 0.1}[str(params["optimiser"])]
    values = [level + 2.0 * math.exp(-(epoch + 1) / 4) for epoch in range(epochs)]
    half = max(epochs // 2, 1)
    if fate < 0.05:
        return State.DIVERGED, values[:half]
    if fate < 0.06:
        return State.FAILED, values[:1]
    return (State.PRUNED, values[:half]) if fate < 0.16 else (State.COMPLETE, values)


def fill(url: str, trials: int, seeds: int, epochs: int, name: str = STUDY) -> None:
    """Write the study, in turns of 100 trials."""
    study = hp.Study(
        name=name, objective=ObjectiveAddress("train.py", "train", Path.cwd()), search_space=SPACE,
        strategy=hp.Random(), metric=METRIC, n_trials=trials, seeds=tuple(range(seeds)),
    )  # fmt: skip
    spec = spec_of(study)
    store = open_store(url)
    record = StudyRecord(name=name, spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64)
    store.open(record, this_process(), lease_s=600.0)
    for turn in turns(trials, seeds, epochs):
        store.write(turn)
    store.close("complete")


def turns(trials: int, seeds: int, epochs: int) -> Iterator[Turn]:
    """A turn that starts 100 trials, and one that ends them, again and again."""
    for first in range(0, trials, BATCH):
        numbers = range(first, min(first + BATCH, trials))
        keys = [[RunKey(number, seed) for seed in range(seeds)] for number in numbers]
        new = [
            Trial(number=n, params=chosen(n), batch=n // BATCH, history_seq=first, runs=tuple(Run(key=k) for k in of))
            for n, of in zip(numbers, keys, strict=True)
        ]
        yield Turn(trials=new, claims=[Claim(run=key, attempt=1) for of in keys for key in of], seconds=60.0)
        epochs_told, finished, scores = [], [], []
        for number, of in zip(numbers, keys, strict=True):
            ends = [_end(key, *course(number, key.seed, epochs)) for key in of]
            for key in of:
                told = course(number, key.seed, epochs)[1]
                epochs_told += [
                    EpochReport(run=key, attempt=1, epoch=epoch, metrics={METRIC: value})
                    for epoch, value in enumerate(told)
                ]
            finished += ends
            state, value, sd = score([Run(key=end.run, state=end.state, value=end.value) for end in ends])
            scores.append(Score(number=number, state=state, value=value, sd=sd, tell_seq=number + 1))
        yield Turn(epochs=epochs_told, finished=finished, scores=scores, seconds=60.0)


def _end(key: RunKey, state: State, told: list[float]) -> Finished:
    bad = state in (State.DIVERGED, State.FAILED)
    best = min(range(len(told)), key=told.__getitem__)
    reason = {State.DIVERGED: f"nan loss at epoch {len(told)}", State.FAILED: "exception"}.get(state, "")
    error = "Traceback (most recent call last):\nRuntimeError: out of memory" if state is State.FAILED else ""
    return Finished(
        run=key, attempt=1, state=state, value=None if bad else told[best], best_epoch=None if bad else best,
        last_epoch=len(told) - 1, reason=reason, error=error, seconds=2.0 + key.seed / 10,
        worker=f"here:{key.trial % WORKERS}", engine="solo, cpu", environment=ENVIRONMENT,
    )  # fmt: skip


#: run by a Python that has Optuna: the database's address; a JSON line a trial comes in. Rows are written as Optuna's
#: storage writes them, but all at once: one by one 3,000 took it four minutes, and each took longer than the last
OPTUNA = """
import datetime, json, sys, optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import insert
optuna.logging.set_verbosity(optuna.logging.ERROR)
space = {
    "lr": FloatDistribution(1e-5, 1.0, log=True), "momentum": FloatDistribution(0.5, 0.999),
    "dropout": FloatDistribution(0.0, 0.5), "weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
    "width": IntDistribution(16, 1024, log=True), "optimiser": CategoricalDistribution(["sgd", "adam", "rmsprop"]),
}
storage = RDBStorage(sys.argv[1])
study = storage.get_study_id_from_name(optuna.create_study(study_name="large", storage=storage).study_name)
rows = {models.TrialModel: [], models.TrialParamModel: [], models.TrialValueModel: [],
        models.TrialIntermediateValueModel: []}
trials, params, values, steps = rows.values()
for number, line in enumerate(sys.stdin):
    told, trial = json.loads(line), {"trial_id": number + 1}
    state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(told["state"], TrialState.FAIL)
    began = datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=number)
    trials.append({**trial, "number": number, "study_id": study, "state": state, "datetime_start": began,
                   "datetime_complete": began + datetime.timedelta(seconds=1)})
    for name, value in told["params"].items():
        params.append({**trial, "param_name": name, "param_value": space[name].to_internal_repr(value),
                       "distribution_json": distribution_to_json(space[name])})
    if told["value"] is not None:
        value, kind = models.TrialValueModel.value_to_stored_repr(told["value"])
        values.append({**trial, "objective": 0, "value": value, "value_type": kind})
    for step, number_told in enumerate(told["curve"]):
        value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(number_told)
        steps.append({**trial, "step": step, "intermediate_value": value, "intermediate_value_type": kind})
with storage.engine.begin() as connection:
    for model, some in rows.items():
        connection.execute(insert(model), some)
assert len(optuna.load_study(study_name="large", storage=storage).trials) == len(trials)
"""


def for_optuna(trials: int, seeds: int, epochs: int) -> Iterator[str]:
    """The same trials as JSON lines: of the seeds' values and curves their mean, since Optuna knows no seeds."""
    for number in range(trials):
        runs = [course(number, seed, epochs) for seed in range(seeds)]
        curve = [sum(values) / seeds for values in zip(*(told for _, told in runs), strict=True)]
        state = runs[0][0]
        value = sum(min(told) for _, told in runs) / seeds if state in (State.COMPLETE, State.PRUNED) else None
        yield json.dumps({"params": chosen(number), "state": str(state), "value": value, "curve": curve}) + "\n"


def main() -> None:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    fill(options.url, options.trials, options.seeds, options.epochs)


if __name__ == "__main__":
    main()
