"""A run's best weights, as they are kept: back into a model, and in front of the test part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpsearch.errors import NotFoundError, ObjectiveError
from hpsearch.objective import ObjectiveAddress, TrainingTask
from hpsearch.space import Params
from hpsearch.training.build import ready
from hpsearch.training.data import Parts, sealed_test
from hpsearch.training.guard import clean_process
from hpsearch.training.load import load
from hpsearch.training.precision import dtype_of
from hpsearch.training.recipe import ModelParams
from hpsearch.training.solo import evaluate
from hpsearch.training.weights import load_state
from hpsearch.trial import Checkpoint


def load_models(
    objective: ObjectiveAddress, params: Params, checkpoint: Checkpoint, files: Path, device: str = "cpu"
) -> list[nn.Module]:
    """The models of a run with the weights of its best epoch, one a fold, in evaluation mode.

    Args:
        objective: the study's, a TrainingTask.
        params: the trial's.
        checkpoint: of the run.
        files: the folder that its path is below.
        device: where to.

    Raises:
        NotFoundError: the file is gone.
        ObjectiveError: it is not the one that was kept, or the training code has changed so that it does not fit.
    """
    models = []
    with clean_process(torch.get_num_threads()):  # this one may be a user's: its randomness and paths stay as they are
        task, given = _task(objective), ModelParams(params)
        for state in _read(files / checkpoint.path, checkpoint.sha256):
            model = task.model(given)
            try:
                load_state(model, state)
            except RuntimeError as error:
                words = " ".join(str(error).split())
                raise ObjectiveError(f"{objective}: its model does not take the kept weights: {words}") from error
            models.append(model.to(device, dtype_of(task)).eval())
    return models


def sealed_metrics(
    objective: ObjectiveAddress, models: Sequence[nn.Module], params: Params, *, seed: int, threads: int = 1
) -> dict[str, float]:
    """``test_loss`` and ``test_<metric>`` of a run on the sealed test part; of folds, the means over their models.

    Args:
        objective: the study's, a TrainingTask.
        models: of one run, one a fold.
        params: the trial's.
        seed: the study's, which splits the data.
        threads: torch's.
    """
    device = str(next(models[0].parameters()).device)
    with clean_process(threads):
        task = _task(objective)
        part, transform = sealed_test(task, seed, device, ModelParams(params))
        take = partial(ready, Parts(train=part, validation=part, transform=transform), dtype_of(task))
        tables = [evaluate(task, model, part, take, prefix="test") for model in models]
    return {name: sum(table[name] for table in tables) / len(tables) for name in tables[0]}


def _task(objective: ObjectiveAddress) -> TrainingTask:
    task = load(objective)
    if not isinstance(task, TrainingTask):
        raise ObjectiveError(
            f"objective {objective}: is a function, and keeps its models itself",
            hint="what it has saved is in its run's checkpoint_dir; a TrainingTask's models are kept by hpsearch",
        )
    return task


def _read(file: Path, sha256: str) -> list[dict[str, Any]]:
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
            if found != sha256:
                raise ObjectiveError(
                    f"{file} is not the checkpoint that was kept: sha256 {found[:12]}, not {sha256[:12]}"
                )
            opened.seek(0)
            models: list[dict[str, Any]] = torch.load(opened, map_location="cpu", weights_only=True)["models"]
            return models
    except FileNotFoundError:
        raise NotFoundError(f"the checkpoint {file} is gone", hint="hpsearch rerun makes the run again") from None
