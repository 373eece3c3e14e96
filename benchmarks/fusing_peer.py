"""A peer of ``fusing.py``: Optuna driving a plain PyTorch loop over the same runs, one after the other.

What a user of Optuna writes who cares for speed: the same model, weights drawn and batches shuffled by torch under
the run's seed, ``torch.optim.SGD``, data on the device, a validation an epoch, which is reported to Optuna and of
which the best is returned. In-memory storage, ``n_jobs=1``, no pruner; the settings are enqueued, so that Optuna has
nothing to search. Batches are slices of a shuffled order, or a ``DataLoader``'s.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from fusing_runs import Pass, batches_of, seed_of
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from hpsearch.objective import ObjectiveAddress, Split, TrainingTask
from hpsearch.space import Params
from hpsearch.training.data import prepare
from hpsearch.training.load import load

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


def sliced(split: Split, size: int) -> Batches:
    """Batches as slices of a new order an epoch."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(split.targets)).split(size):
            yield split.inputs[rows], split.targets[rows]

    return batches


def loaded(split: Split, size: int) -> Batches:
    """Batches of a DataLoader in this process."""
    loader = DataLoader(TensorDataset(split.inputs, split.targets), batch_size=size, shuffle=True)
    return lambda: iter(loader)


def sgd(model: nn.Module, params: Params, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """SGD that decays weights and leaves biases alone, as hpsearch does."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": params["weight_decay"]}, {"params": biases}]
    lr, momentum = float(params["lr"] or 0), float(params["momentum"] or 0)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)


def train_once(
    task: TrainingTask, params: Params, epochs: int, batches: Batches, validation: Split, report: Callable[..., None]
) -> float:
    """One run: the best validation loss."""
    model = task.model(params)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    optimizer, best = sgd(model, params), float("inf")
    for epoch in range(epochs):
        model.train()
        for inputs, targets in batches():
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss = functional.cross_entropy(model(validation.inputs), validation.targets).item()
        report(loss, epoch)
        best = min(best, loss)
    return best


def train(address: ObjectiveAddress, runs: Sequence[Params], *, loader: bool) -> Pass:
    """The runs by Optuna, in this process, with one thread."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    task = load(address)
    assert isinstance(task, TrainingTask)
    count = batches_of(address, runs[0], "cpu")
    parts = prepare(task, 0, "cpu")[0]
    batches = (loaded if loader else sliced)(parts.train, task.batch_size)
    epochs = int(runs[0]["epochs"] or 0)
    searched = [name for name in runs[0] if name != "epochs"]

    def objective(trial: optuna.Trial) -> float:
        params = {name: trial.suggest_float(name, 0.0, 1.0) for name in searched}
        torch.manual_seed(seed_of(trial.number))
        return train_once(task, params, epochs, batches, parts.validation, trial.report)

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in runs:
        study.enqueue_trial({name: params[name] for name in searched})
    passed = Pass(engine="optuna")
    cpu, wall = time.process_time(), time.perf_counter()
    study.optimize(objective, n_trials=len(runs), n_jobs=1)
    passed.cpu_s, passed.wall_s = time.process_time() - cpu, time.perf_counter() - wall
    for trial in study.trials:
        passed.curves[trial.number] = list(trial.intermediate_values.values())
    passed.steps = count * sum(len(curve) for curve in passed.curves.values())
    return passed
