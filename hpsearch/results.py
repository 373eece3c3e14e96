"""The record of a study as a user reads it in Python.

results = hp.load("digits-mlp")
results.best.params
results.to_dataframe().plot.scatter(x="lr", y="value", logx=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from hpsearch.archive import Archive, StudySummary
from hpsearch.errors import NotFoundError, UsageError
from hpsearch.further import sealed
from hpsearch.space import Params
from hpsearch.strategy import Decision
from hpsearch.trial import Checkpoint, Direction, RunKey, Trial, best_trials

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@final
@dataclass(frozen=True)
class Results:
    """One study's record at the moment it was loaded."""

    study: StudySummary
    #: in number order, each with its runs
    trials: Sequence[Trial]
    archive: Archive
    #: where logs and checkpoints are, by default
    files: Path

    @property
    def direction(self) -> Direction:
        """Which way the metric gets better."""
        return Direction(self.study.spec["direction"])

    @property
    def best(self) -> StoredTrial | None:
        """The best complete trial; None while there is none. Its value is optimistic: it is the best of many."""
        return next((StoredTrial(trial, self) for trial in self.top(1)), None)

    def trial(self, number: int) -> StoredTrial:
        """One trial.

        Raises:
            NotFoundError: the study has no such trial.
        """
        if not 0 <= number < len(self.trials):
            raise NotFoundError(f"{self.study.name} has no trial {number}", hint=f"it has {len(self.trials)} trials")
        return StoredTrial(self.trials[number], self)

    def top(self, k: int) -> list[Trial]:
        """The ``k`` best complete trials, best first."""
        return best_trials(self.trials, self.direction, k)

    @property
    def decisions(self) -> list[Decision]:
        """What was decided and why, oldest first; of a look at the test set not what was seen."""
        return [sealed(decision) for decision in self.archive.decisions(self.study.name)]

    def to_dataframe(self) -> pd.DataFrame:
        """One row a trial: number, state, value, sd, n (seeds that count), baseline, batch, then a column a param."""
        import pandas as pd

        rows = [
            {
                "number": trial.number,
                "state": str(trial.state),
                "value": trial.value,
                "sd": trial.sd,
                "n": sum(run.value is not None for run in trial.search_runs),
                "baseline": trial.baseline,
                "batch": trial.batch,
                **_columns(trial.params),
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows)

    def runs_dataframe(self) -> pd.DataFrame:
        """One row a run: trial, seed, state, value, epochs, reason, seconds, worker, environment, then the params."""
        import pandas as pd

        return pd.DataFrame([row for trial in self.trials for row in run_rows(trial)])

    def curves_dataframe(self, numbers: Sequence[int] | None = None) -> pd.DataFrame:
        """One row a metric, run and epoch, of all trials or of these: trial, seed, repeat, metric, epoch, value."""
        import pandas as pd

        wanted = [trial.number for trial in self.trials] if numbers is None else numbers
        rows = [
            (*curve.run, curve.metric, epoch, value)
            for curve in self.archive.curves(self.study.name, wanted)
            for epoch, value in zip(curve.epochs, curve.values, strict=True)
        ]
        return pd.DataFrame(rows, columns=["trial", "seed", "repeat", "metric", "epoch", "value"])


@final
@dataclass(frozen=True)
class StoredTrial:
    """A trial of a study, with what is kept of it."""

    trial: Trial
    results: Results = field(repr=False)

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def params(self) -> Params:
        return self.trial.params

    @property
    def value(self) -> float | None:
        """Mean of the metric over the search's seeds."""
        return self.trial.value

    @property
    def sd(self) -> float | None:
        """Over the search's seeds; None below two."""
        return self.trial.sd

    @property
    def checkpoints(self) -> dict[RunKey, Checkpoint]:
        """The weights that are kept of its runs, the best run first."""
        study = self.results.study
        kept = self.results.archive.checkpoints(study.name)
        sign = self.results.direction.sign
        runs = sorted((run for run in self.trial.runs if run.key in kept), key=lambda run: sign * (run.value or 0.0))
        return {run.key: kept[run.key] for run in runs}

    def model(self, seed: int | None = None, *, files: Path | None = None) -> nn.Module:
        """The trained model, in evaluation mode on the CPU: of the run with this seed, or of the best run.

        It takes inputs as the task's ``model`` does, after ``Data.transform``.

        Raises:
            NotFoundError: no weights are kept of it, or their file is gone.
            ObjectiveError: it is a plain function's, or the training code does not fit the weights any more.
            UsageError: it was trained in folds: ``models`` gives one each.
        """
        models = self.models(seed, files=files)
        if len(models) > 1:
            raise UsageError(f"there are {len(models)} models, one a fold", hint=".models() gives them")
        return models[0]

    def models(self, seed: int | None = None, *, files: Path | None = None) -> list[nn.Module]:
        """As ``model``, one a fold.

        Args:
            seed: of the run; None: the best run.
            files: where the study's files are, if it was run with ``--files``.
        """
        from hpsearch.settings import study_files
        from hpsearch.training.saved import load_models

        study, kept = self.results.study, self.checkpoints
        key = next((key for key in kept if seed is None or key.seed == seed), None)
        if key is None:
            of = f"{study.name}/{self.number}" + ("" if seed is None else f" with seed {seed}")
            hint = "keep: 3 in the study file keeps those of the three best trials, where hpsearch has the loop"
            raise NotFoundError(f"no weights are kept of {of}", hint=hint)
        where = self.results.files if files is None else study_files(files, study.name)
        return load_models(study.objective, self.params, kept[key], where)


def run_rows(trial: Trial) -> list[dict[str, Any]]:
    """A row a run of the trial, as ``Results.runs_dataframe`` and ``export`` give it."""
    rows = []
    for run in trial.runs:
        environment = run.environment
        rows.append(
            {
                "trial": trial.number,
                "seed": run.key.seed,
                "repeat": run.key.repeat,
                "stage": str(run.stage),
                "state": str(run.state),
                "value": run.value,
                "best_epoch": run.best_epoch,
                "last_epoch": run.last_epoch,
                "attempt": run.attempt,
                "reason": run.reason,
                "seconds": run.seconds,
                "worker": run.worker,
                "device": environment.device if environment else "",
                "torch": environment.torch if environment else "",
                "git_commit": environment.git_commit if environment else "",
                "data": environment.data if environment else "",
                "baseline": trial.baseline,
                "batch": trial.batch,
                **_columns(trial.params),
            }
        )
    return rows


#: columns of frames and files that are no hyperparameter
TAKEN = {
    "number", "trial", "state", "value", "sd", "n", "seed", "repeat", "stage", "reason", "seconds", "batch", "baseline",
    "best_epoch", "last_epoch", "attempt", "worker", "device", "torch", "git_commit", "data",
}  # fmt: skip


def _columns(params: Mapping[str, Any]) -> dict[str, Any]:
    return {column_of(name): value for name, value in params.items()}


def column_of(name: str) -> str:
    """A hyperparameter's column: one called "seed" or "state" must not hide the column of that name."""
    return f"param_{name}" if name in TAKEN else name


def load(study: str, db: str | None = None) -> Results:
    """A study's record.

    Args:
        study: its name.
        db: the database's URL; None: ``HPSEARCH_DB``, else ``sqlite:///hpsearch.db`` in the current folder.

    Raises:
        NotFoundError: no such database or study. StoreError: the database cannot be read.
    """
    from hpsearch.settings import database, files_folder
    from hpsearch.stores.sql import open_archive

    url = database(db)
    archive = open_archive(url)
    summary = archive.study(study)
    return Results(summary, archive.trials(summary.name), archive, files_folder(url, summary.name))
