"""The record of a study as a user reads it in Python.

results = hp.load("digits-mlp")
results.best.params
results.to_dataframe().plot.scatter(x="lr", y="value", logx=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from hpsearch.archive import Archive, StudySummary
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Trial, best_trials

if TYPE_CHECKING:
    import pandas as pd


@final
@dataclass(frozen=True)
class Results:
    """One study's record at the moment it was loaded."""

    study: StudySummary
    #: in number order, each with its runs
    trials: Sequence[Trial]
    archive: Archive

    @property
    def direction(self) -> Direction:
        """Which way the metric gets better."""
        return Direction(self.study.spec["direction"])

    @property
    def best(self) -> Trial | None:
        """The best complete trial; None while there is none. Its value is optimistic: it is the best of many."""
        return next(iter(self.top(1)), None)

    def top(self, k: int) -> list[Trial]:
        """The ``k`` best complete trials, best first."""
        return best_trials(self.trials, self.direction, k)

    @property
    def decisions(self) -> list[Decision]:
        """What was decided and why, oldest first."""
        return self.archive.decisions(self.study.name)

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
                "baseline": trial.baseline,
                "batch": trial.batch,
                **_columns(trial.params),
            }
        )
    return rows


def _columns(params: Mapping[str, Any]) -> dict[str, Any]:
    # A hyperparameter called "seed" or "state" must not hide the column of that name.
    taken = {"number", "trial", "state", "value", "sd", "n", "seed", "repeat", "stage", "reason", "seconds", "batch"}
    taken |= {"baseline", "best_epoch", "last_epoch", "attempt", "worker", "device", "torch", "git_commit"}
    return {f"param_{name}" if name in taken else name: value for name, value in params.items()}


def load(study: str, db: str | None = None) -> Results:
    """A study's record.

    Args:
        study: its name.
        db: the database's URL; None: ``HPSEARCH_DB``, else ``sqlite:///hpsearch.db`` in the current folder.

    Raises:
        NotFoundError: no such database or study. StoreError: the database cannot be read.
    """
    from hpsearch.settings import database
    from hpsearch.stores.sql import open_archive

    archive = open_archive(database(db))
    summary = archive.study(study)
    return Results(summary, archive.trials(summary.name), archive)
