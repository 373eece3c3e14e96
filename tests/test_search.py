"""The loop, with real stores and the inline executor: how a search ends, and what the record holds then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch import search as loop
from hpsearch.errors import ObjectiveError, StoreError, StudyHeldError, UnusableError
from hpsearch.executors.inline import InlineExecutor
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.progress import Ending
from hpsearch.search import search
from hpsearch.settings import checkpoint_folder, empty_checkpoints
from hpsearch.store import Command, Holder, Store, StudyRecord, this_process
from hpsearch.stores.memory import MemoryArchive, MemoryRecord, MemoryStore
from hpsearch.study import fingerprint, spec_of
from hpsearch.trial import RunKey, State

TRAIN = """
import time

def train(run):
    run.report(0, loss=run["x"])
    return run["x"]

def slow(run):
    time.sleep(0.05)
    return run["x"]

def goes_on(run):
    saved = run.checkpoint_dir / "epoch"
    start = int(saved.read_text()) if saved.exists() else 0
    for epoch in range(start, 3):
        saved.write_text(str(epoch + 1))
        run.report(epoch, loss=epoch)
    return float(start)

def broken(run):
    return undefined_name

def mixed(run):
    if run["x"] > 0.9:
        raise ValueError(f"no {run['x']}")
    return float("nan") if run["x"] < 0.1 else run["x"]
"""


class Interrupt:
    """What a signal handler would set."""

    def __init__(self) -> None:
        self.level = 0


def make(folder: Path, name: str = "train", **fields: object) -> hp.Study:
    (folder / "train.py").write_text(TRAIN)
    settings: dict[str, object] = {"n_trials": 12} | fields
    return hp.Study(
        name="s",
        objective=ObjectiveAddress("train.py", name, folder),
        search_space=hp.SearchSpace({"x": hp.Float(0.0, 1.0)}),
        strategy=hp.Random(),
        metric="loss",
        **settings,  # type: ignore[arg-type]
    )


def go(
    study: hp.Study,
    store: Store,
    *,
    interrupt: Interrupt | None = None,
    observer: object = None,
    empty: Callable[[Sequence[RunKey], Callable[[], object]], None] = lambda runs, sure: None,
) -> Ending:
    spec = spec_of(study)
    executor = InlineExecutor(device="cpu")
    try:
        return search(
            study,
            StudyRecord(name=study.name, spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64),
            store=store,
            executor=executor,
            workload=Workload(
                study=study.name,
                objective=study.objective,
                metric=study.metric,
                direction=str(study.direction),
                seed=study.seed,
                files=study.objective.folder / "files",
            ),
            holder=this_process(),
            interrupt=interrupt or Interrupt(),
            observer=observer or (lambda progress: None),  # type: ignore[arg-type]
            empty=empty,
        )
    finally:
        executor.close()


@pytest.fixture
def record() -> MemoryRecord:
    return MemoryRecord()


def test_a_search_ends_complete_and_a_second_one_finds_nothing_to_do(tmp_path: Path, record: MemoryRecord) -> None:
    ending = go(make(tmp_path), MemoryStore(record))
    assert (ending.state, ending.reason, ending.error) == ("complete", "", None)
    before = MemoryArchive(record).trials("s")
    assert [t.state for t in before] == [State.COMPLETE] * 12
    assert [t.value for t in before] == [t.params["x"] for t in before]
    assert ending.progress.best[0].value == min(t.value for t in before if t.value is not None)
    again = go(make(tmp_path), MemoryStore(record))
    assert again.state == "complete"
    assert MemoryArchive(record).trials("s") == before


def test_an_interrupt_stops_in_good_order_and_the_next_search_goes_on(tmp_path: Path, record: MemoryRecord) -> None:
    interrupt = Interrupt()

    def observer(progress: object) -> None:
        interrupt.level = 1

    ending = go(make(tmp_path, "slow"), MemoryStore(record), interrupt=interrupt, observer=observer)
    assert ending.state == "interrupted"
    counts = MemoryArchive(record).study("s").counts
    assert 0 < counts[State.COMPLETE] < 12
    assert MemoryArchive(record).study("s").holder == ""
    assert go(make(tmp_path, "slow"), MemoryStore(record)).state == "complete"
    assert MemoryArchive(record).study("s").counts == {State.COMPLETE: 12}


def test_a_time_budget_ends_the_sequence_and_counts_over_restarts(tmp_path: Path, record: MemoryRecord) -> None:
    study = make(tmp_path, "slow", n_trials=None, budget_s=0.4)
    ending = go(study, MemoryStore(record))
    assert (ending.state, ending.reason) == ("complete", "the time budget is used up")
    done = ending.progress.runs_done
    assert 0 < done < 20
    assert MemoryArchive(record).study("s").seconds >= 0.4
    assert go(study, MemoryStore(record)).progress.runs_done == done


def test_diverged_and_failed_runs_cost_themselves_only(tmp_path: Path, record: MemoryRecord) -> None:
    ending = go(make(tmp_path, "mixed", n_trials=40), MemoryStore(record))
    assert ending.state == "complete"
    for trial in MemoryArchive(record).trials("s"):
        (run,) = trial.runs
        x = trial.params["x"]
        assert isinstance(x, float)
        if x > 0.9:
            assert (trial.state, run.reason) == (State.FAILED, "exception")
            assert f"ValueError: no {x}" in run.error
        elif x < 0.1:
            assert (trial.state, run.reason, trial.value) == (State.DIVERGED, "nan result", None)
        else:
            assert (trial.state, trial.value) == (State.COMPLETE, x)


def test_the_same_exception_three_times_stops_the_study_with_it(tmp_path: Path, record: MemoryRecord) -> None:
    ending = go(make(tmp_path, "broken"), MemoryStore(record))
    assert ending.state == "failed"
    assert isinstance(ending.error, UnusableError)
    assert "NameError: name 'undefined_name' is not defined" in str(ending.error)
    assert MemoryArchive(record).study("s").counts[State.FAILED] == 3


def test_code_that_does_not_fit_leaves_no_study_behind(tmp_path: Path, record: MemoryRecord) -> None:
    study = make(tmp_path, "train")
    (tmp_path / "train.py").write_text("import no_such_module_of_ours\ndef train(run): ...\n")
    ending = go(study, MemoryStore(record))
    assert isinstance(ending.error, ObjectiveError)
    assert "no_such_module_of_ours" in str(ending.error)
    assert MemoryArchive(record).studies() == []


def test_a_stop_command_is_read_while_the_study_runs(tmp_path: Path, record: MemoryRecord) -> None:
    store, sent = MemoryStore(record), []

    def observer(progress: object) -> None:
        if not sent:
            sent.append(MemoryStore(record).send("s", Command(verb="stop")))

    started = time.monotonic()
    ending = go(make(tmp_path, "slow", n_trials=2000), store, observer=observer)
    assert (ending.state, sent) == ("stopped", [True])
    assert time.monotonic() - started < 20


def test_a_study_that_is_held_is_refused(tmp_path: Path, record: MemoryRecord) -> None:
    study = make(tmp_path)
    spec = spec_of(study)
    stored = StudyRecord(name="s", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64)
    elsewhere = Holder(host="another-host", pid=7, boot_id="b", started=1)
    MemoryStore(record).open(stored, elsewhere, lease_s=60)
    with pytest.raises(StudyHeldError, match="process 7 on another-host"):
        go(study, MemoryStore(record))


def test_a_database_torn_under_a_running_study_is_an_error_in_words(tmp_path: Path) -> None:
    from hpsearch.stores.sql import open_archive, open_store

    url = f"sqlite:///{tmp_path}/r.db"

    def observer(progress: object) -> None:
        (tmp_path / "r.db").chmod(0o444)
        (tmp_path / "r.db").write_bytes((tmp_path / "r.db").read_bytes()[:1000])

    with pytest.raises(StoreError):
        go(make(tmp_path, "slow", n_trials=2000), open_store(url), observer=observer)
    with pytest.raises(StoreError):
        open_archive(url).trials("s")


def foreign(folder: Path) -> Path:
    """What another study has left in the place of the first run."""
    place = checkpoint_folder(folder / "files", RunKey(0, 0))
    place.mkdir(parents=True)
    (place / "epoch").write_text("2")
    return place


def emptier(folder: Path) -> Callable[[Sequence[RunKey], Callable[[], object]], None]:
    return lambda runs, sure: empty_checkpoints(folder / "files", runs, sure)


def test_a_run_does_not_begin_with_the_files_of_another_study(tmp_path: Path, record: MemoryRecord) -> None:
    foreign(tmp_path)
    go(make(tmp_path, "goes_on", n_trials=2), MemoryStore(record), empty=emptier(tmp_path))
    assert [t.value for t in MemoryArchive(record).trials("s")] == [0.0, 0.0]


def test_nor_does_one_whose_first_attempt_was_claimed_and_never_begun(
    tmp_path: Path, record: MemoryRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "OBSERVE_S", 0.0)
    foreign(tmp_path)

    def killed(progress: object) -> None:
        raise KeyboardInterrupt

    study = make(tmp_path, "goes_on", n_trials=2)
    with pytest.raises(KeyboardInterrupt):
        go(study, MemoryStore(record), observer=killed, empty=emptier(tmp_path))
    assert [run.attempt for t in MemoryArchive(record).trials("s") for run in t.runs] == [1, 0]
    go(study, MemoryStore(record), empty=emptier(tmp_path))
    assert [t.value for t in MemoryArchive(record).trials("s")] == [0.0, 0.0]


def test_an_attempt_after_a_loss_goes_on_from_what_its_run_has_saved(tmp_path: Path, record: MemoryRecord) -> None:
    study = make(tmp_path, "goes_on", n_trials=2)
    (tmp_path / "train.py").write_text(
        TRAIN.replace("run.report(epoch, loss=epoch)", "run.report(epoch, loss=epoch); 1 / 0")
    )

    def killed(runs: Sequence[RunKey], sure: Callable[[], object]) -> None:
        if RunKey(1, 0) in runs:  # what became of the first is not recorded
            raise KeyboardInterrupt
        emptier(tmp_path)(runs, sure)

    with pytest.raises(KeyboardInterrupt):
        go(study, MemoryStore(record), empty=killed)
    (tmp_path / "train.py").write_text(TRAIN)
    go(study, MemoryStore(record), empty=emptier(tmp_path))
    assert [t.value for t in MemoryArchive(record).trials("s")] == [1.0, 0.0]


def test_who_has_lost_the_study_removes_nothing(tmp_path: Path, record: MemoryRecord) -> None:
    """A coordinator that was frozen, and another has begun its runs."""
    study, place = make(tmp_path, "goes_on"), foreign(tmp_path)
    spec = spec_of(study)
    stored = StudyRecord(name="s", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64)
    elsewhere = Holder(host="another-host", pid=7, boot_id="b", started=1)

    def late(runs: Sequence[RunKey], sure: Callable[[], object]) -> None:
        record.studies["s"].lease_until = 0.0
        MemoryStore(record).open(stored, elsewhere, lease_s=60)
        emptier(tmp_path)(runs, sure)

    with pytest.raises(StudyHeldError):
        go(study, MemoryStore(record), empty=late)
    assert (place / "epoch").read_text() == "2"
