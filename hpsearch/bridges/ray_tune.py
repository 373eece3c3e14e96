"""Ray Tune with our strategies and our record: for those who have Tune trainables and keep them.

    study = hp.define(name="mlp", objective=train, search_space={"lr": {"log": [1e-4, 1]}},
                      metric={"val_loss": "minimize"}, strategy="random", n_trials=40)
    searcher = StudySearcher(study, epochs=20)
    tune.Tuner(train, tune_config=tune.TuneConfig(search_alg=searcher, scheduler=ASHAScheduler(max_t=20),
                                                  metric="val_loss", mode="min", num_samples=-1),
               run_config=tune.RunConfig(callbacks=[StudyCallback(searcher)])).fit()

``hpsearch show mlp`` then shows the trials. Each result is an epoch, each Tune trial a run: with several seeds in the
study, ``config["seed"]`` says which one to train with (a scheduler like ASHA knows no seeds, and stops some runs of a
trial and not others: give it studies of one seed). A Tuner that was killed is not restored but run again: what had
ended stays, and the study goes on behind it.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from ray.tune import Callback
from ray.tune.result import AUTO_RESULT_KEYS, DONE
from ray.tune.search import Searcher

from hpsearch.attempt import record_of
from hpsearch.errors import Problem, StudyError, UsageError
from hpsearch.executor import Assignment
from hpsearch.ledger import Ledger
from hpsearch.settings import database
from hpsearch.store import this_process
from hpsearch.study import Study
from hpsearch.trial import Direction, EpochReport, Finished, RunReport, State

#: seconds after which the study of a silent Tuner is free, and between two signs of life
LEASE_S, RENEW_S = 120.0, 5.0
_MODES = {Direction.MINIMIZE: "min", Direction.MAXIMIZE: "max"}


@final
class _Session:
    """The study while a Tuner runs it: Tune's trials as runs of the ledger, every change at once in the record."""

    def __init__(self, study: Study, db: str | None, epochs: int | None) -> None:
        from hpsearch.stores.sql import open_store

        self.study, self.epochs = study, epochs
        self._store = open_store(database(db))
        snapshot = self._store.open(record_of(study), this_process(), lease_s=LEASE_S)
        self._ledger = Ledger(study, snapshot)
        self._began = self._written = self._renewed = time.monotonic()
        #: Tune's trial -> the run that it is
        self._runs: dict[str, Assignment] = {}
        #: the last result of each, with its epoch
        self._last: dict[str, tuple[int, Mapping[str, float]]] = {}
        self._pruned: set[str] = set()
        self.recording = False
        self._closed = False

    def suggest(self, trial: str) -> Assignment | None:
        """The next run, now this trial's; None where none is due before others have ended."""
        self._ledger.ask()
        given = self._ledger.claim(1, 1)
        self._write()
        if not given:
            return None
        self._runs[trial] = given[0]
        return given[0]

    @property
    def done(self) -> bool:
        return self._ledger.done

    def result(self, trial: str, result: Mapping[str, Any], *, whole: bool) -> None:
        """A trial has reported; ``whole``: it ends by its own stopping criterion, where it ends here."""
        assignment = self._runs.get(trial)
        if assignment is None:
            return
        epoch = int(result["training_iteration"]) - 1
        metrics = _metrics(result)
        self._last[trial] = epoch, metrics
        if result.get(DONE) and not whole and (self.epochs is None or epoch + 1 < self.epochs):
            self._pruned.add(trial)
        shown = {name: number for name, number in metrics.items() if not name.startswith("test_")}
        self._tell(EpochReport(run=assignment.run, attempt=assignment.attempt, epoch=epoch, metrics=shown))

    def end(self, trial: str, *, error: str, seconds: float, worker: str) -> None:
        """A trial has ended; ``error``: its traceback where it failed."""
        assignment = self._runs.pop(trial, None)
        if assignment is None:
            return
        epoch, metrics = self._last.pop(trial, (None, {}))
        value = metrics.get(self.study.metric)
        sealed = {name: number for name, number in metrics.items() if name.startswith("test_")}
        common: dict[str, Any] = {"last_epoch": epoch, "seconds": seconds, "worker": worker, "engine": "Ray Tune"}
        end = Finished(run=assignment.run, attempt=assignment.attempt, state=State.FAILED, **common)
        if error:
            end = replace(end, reason="exception", error=error)
        elif value is None:
            end = replace(end, reason="invalid_result", error=f"Tune's trial reported no {self.study.metric}")
        elif not math.isfinite(value):
            end = replace(end, state=State.DIVERGED, reason=f"{'nan' if math.isnan(value) else 'inf'} result")
        else:
            state, reason = (State.PRUNED, "by Tune's scheduler") if trial in self._pruned else (State.COMPLETE, "")
            end = replace(end, state=state, reason=reason, value=value, best_epoch=epoch)
        self._tell(replace(end, sealed={name: number for name, number in sealed.items() if math.isfinite(number)}))

    def renew(self) -> None:
        """Say that the Tuner lives."""
        if time.monotonic() - self._renewed >= RENEW_S:
            self._renewed = time.monotonic()
            self._store.renew(self._seconds())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        done = self._ledger.done
        self._store.close("complete" if done else "stopped", "" if done else "Tune's experiment has ended")

    def _tell(self, report: RunReport) -> None:
        self._ledger.apply([report])
        self._write()

    def _write(self) -> None:
        turn = self._ledger.take()
        if not turn.empty:
            self._store.write(replace(turn, seconds=self._seconds()))
            self._renewed = time.monotonic()

    def _seconds(self) -> float:
        now = time.monotonic()
        passed, self._written = now - self._written, now
        return passed


@final
class StudySearcher(Searcher):
    """A study's strategy as a Tune searcher; with ``StudyCallback``, which tells it how its trials end.

    Suggestions are the study's: the same for any number of concurrent trials. A strategy that learns waits for its
    batch. ``num_samples=-1`` runs the study to its end.

    Args:
        study: without a pruner, which is Tune's scheduler here.
        db: the database's URL; None: as everywhere.
        epochs: how many iterations a whole trial has (a scheduler's ``max_t``): one that the scheduler ends earlier
            is ``pruned``. None: every one that it ends is.

    Raises:
        StudyError: the study has a pruner, or a hyperparameter ``seed`` beside several seeds.
        StudyChangedError, StudyHeldError, StoreError: as ``hp.run`` says.
    """

    def __init__(self, study: Study, *, db: str | None = None, epochs: int | None = None) -> None:
        super().__init__(metric=study.metric, mode=_MODES[study.direction])
        if study.pruner is not None:
            hint = "leave it out: Tune's scheduler prunes"
            raise StudyError([Problem(field="pruner", message="is not for Tune's trials", hint=hint)])
        self._seeded = len(study.seeds) > 1
        if self._seeded and "seed" in study.search_space.parameters:
            message = "is what config['seed'] is for: the study has several seeds"
            raise StudyError([Problem(field="search_space.seed", message=message)])
        self._study, self._db, self._epochs = study, db, epochs
        self.session = _Session(study, db, epochs)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next params; None while a batch is waited for.

        Raises:
            UsageError: there is no ``StudyCallback``: nobody would record how the trial ends.
        """
        if not self.session.recording:
            raise UsageError(
                "a StudySearcher needs its callback", hint="RunConfig(callbacks=[StudyCallback(searcher)])"
            )
        assignment = self.session.suggest(trial_id)
        if assignment is None:
            # Tune takes this word for an end, though its types do not say so.
            return Searcher.FINISHED if self.session.done else None  # type: ignore[return-value]
        return dict(assignment.params) | ({"seed": assignment.run.seed} if self._seeded else {})

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **_: Any) -> bool:
        """Compare Tune's settings with the study's.

        Raises:
            UsageError: another metric or mode, or a search space beside the study's.
        """
        ours = (self._study.metric, _MODES[self._study.direction])
        given = (metric or ours[0], mode or ours[1])
        if given != ours:
            raise UsageError(f"TuneConfig says {given[1]} {given[0]}, the study {self._study.name} {ours[1]} {ours[0]}")
        if config:
            names = ", ".join(map(str, config))
            raise UsageError(f"param_space has {names}, and the search space is the study's", hint="leave it out")
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback tells it, which knows more."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing but the study's name: its state is its record."""
        Path(checkpoint_path).write_text(self._study.name, encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Tune's trials of an earlier Tuner are not known any more.

        Raises:
            UsageError: always.
        """
        raise UsageError("a study goes on from its record, not from Tune's", hint="run the Tuner again")

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps a copy of what a Tuner was made of; a database's connection is no part of it.
        return {name: value for name, value in vars(self).items() if name != "session"}


@final
class StudyCallback(Callback):
    """Writes every result of Tune's trials into the record: results as epochs, ends as the ends of runs.

    Complete is what ends by itself, by ``stop=`` or after ``epochs`` iterations, with the metric of its last result,
    as Tune ranks it. A non-finite one is diverged, an exception failed, what the scheduler ends earlier pruned.

    Args:
        searcher: whose trials.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        self._session = searcher.session

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        self._session.recording = True

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._session.renew()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        whole = any(result.get(name, -math.inf) >= end for name, end in trial.stopping_criterion.items())
        self._session.result(trial.trial_id, result, whole=whole)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = "Tune's trial failed"
        with suppress(OSError, TypeError):
            error = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip()
        self._end(trial, error)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._session.close()

    def _end(self, trial: Any, error: str) -> None:
        last = trial.last_result or {}
        worker = f"{last.get('hostname', socket.gethostname())}:{last.get('pid', 0)}"
        seconds = float(last.get("time_total_s", 0.0))
        self._session.end(trial.trial_id, error=error, seconds=seconds, worker=worker)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that the trainable reported, without those that Tune adds."""
    return {
        name: float(value)
        for name, value in result.items()
        if name not in AUTO_RESULT_KEYS and isinstance(value, int | float) and not isinstance(value, bool)
    }
