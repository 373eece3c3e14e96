"""A study written in Python: the function itself is the objective."""

import hpsearch as hp


def train(run):
    return run["lr"]


study = hp.define(
    name="in-python",
    objective=train,
    search_space={"lr": hp.Float(1e-5, 1, log=True), "depth": {"int": [1, 5]}, "act": ["relu", "tanh"], "width": 64},
    metric={"val_loss": "minimize"},
    strategy=hp.Random(),
    n_trials=8,
    seeds=range(3),
)
