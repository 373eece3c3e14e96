"""Which checkpoints are kept, in memory and on the disk."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hpsearch as hp
from hpsearch import search
from hpsearch.artifacts import artifacts, orphans, prune
from hpsearch.attempt import record_of
from hpsearch.errors import NotFoundError, ObjectiveError, StudyError
from hpsearch.keep import Kept
from hpsearch.settings import checkpoint_file, files_folder, pause_file
from hpsearch.store import Claim, Turn, this_process
from hpsearch.stores.sql import open_archive, open_store
from hpsearch.trial import Checkpoint, Direction, Finished, PausedReport, Run, RunKey, State, Trial
from tests.test_ledger import make

OBJECTIVES = Path(__file__).parent / "objectives"
KEPT = Checkpoint(path="x", sha256="0" * 64, bytes=1)


def told(kept: Kept, number: int, value: float | None, state: State = State.COMPLETE) -> list[RunKey]:
    """A trial's two runs end, with checkpoints where they are complete, and it is scored."""
    for seed in (0, 1):
        checkpoint = KEPT if value is not None else None
        kept.hear(Finished(run=RunKey(number, seed), attempt=1, state=state, value=value, checkpoint=checkpoint))
    return kept.score(Trial(number=number, params={}, state=state, value=value))


def test_the_best_are_kept_and_who_leaves_is_forgotten_with_all_seeds():
    kept = Kept(make(hp.Random(), keep=2), [])
    assert told(kept, 0, 0.5) == []
    assert told(kept, 1, 0.4) == []
    assert told(kept, 2, 0.45) == [RunKey(0, 0), RunKey(0, 1)]
    assert told(kept, 3, 0.9) == [RunKey(3, 0), RunKey(3, 1)]
    assert told(kept, 4, None, State.DIVERGED) == []


def test_the_direction_counts_and_trials_of_former_coordinators_do_too():
    old = [Trial(number=n, params={}, state=State.COMPLETE, value=v) for n, v in enumerate([0.1, 0.3, 0.2])]
    kept = Kept(make(hp.Random(), keep=2, direction=Direction.MAXIMIZE), old)
    assert told(kept, 3, 0.25) == [RunKey(2, 0), RunKey(2, 1)]
    assert told(kept, 4, 0.15) == [RunKey(4, 0), RunKey(4, 1)]


def test_a_trial_of_which_one_seed_diverged_leaves_nothing():
    kept = Kept(make(hp.Random(), keep=2), [])
    kept.hear(Finished(run=RunKey(0, 0), attempt=1, state=State.COMPLETE, value=0.1, checkpoint=KEPT))
    assert kept.score(Trial(number=0, params={}, state=State.DIVERGED)) == [RunKey(0, 0), RunKey(0, 1)]


def study(folder: Path, name: str = "lines", **fields: object) -> hp.Study:
    shutil.copy(OBJECTIVES / "tasks.py", folder)
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\nobjective: tasks.py:Line\nmetric: {{val_loss: minimize}}\nseeds: 2\nn_trials: 5\nkeep: 2\n"
        "search_space: {lr: {log: [1e-3, 1]}}\nstrategy: random\n"
    )
    return hp.read_study(folder / f"{name}.yaml", fields)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A study that was run, fused and alone: (url, files)."""
    folder = tmp_path_factory.mktemp("keep")
    url = f"sqlite:///{folder}/r.db"
    hp.run(study(folder), db=url, workers=1)
    hp.run(study(folder, "alone"), db=url, on="inline", fuse="off")
    return url


def test_losers_weights_are_removed_while_the_study_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "OBSERVE_S", 0.0)  # every turn is seen
    seen = []

    def look(progress):
        files = tmp_path.glob("hpsearch-files/lines/*/*/best.pt")
        ended = sum(count for state, count in progress.counts.items() if state.final)
        seen.append((ended, {int(file.parts[-3]) for file in files}))

    one = study(tmp_path, keep=1, n_trials=6)
    trials = len(one.baselines) + 6
    hp.run(one, db=f"sqlite:///{tmp_path}/r.db", on="inline", fuse="off", observer=look)
    # Beside the best one, only what has not ended, and is not compared yet, has a file.
    assert all(len(those) <= min(ended, 1) + 1 for ended, those in seen), seen
    running = [those for ended, those in seen if ended < trials]
    had = set().union(*running)
    assert len(had) >= 3
    assert len(had - running[-1]) >= 2
    assert seen[-1][1] == {hp.load("lines", f"sqlite:///{tmp_path}/r.db").best.number}


@pytest.mark.parametrize("name", ["lines", "alone"])
def test_a_study_leaves_the_weights_of_its_best_trials_and_no_others(record, name):
    results = hp.load(name, record)
    best = {trial.number for trial in results.top(2)}
    kept = results.archive.checkpoints(name)
    assert set(kept) == {RunKey(n, seed) for n in best for seed in (0, 1)}
    files = files_folder(record, name)
    assert {file.relative_to(files).as_posix() for file in files.glob("**/best.pt*")} == {
        one.path for one in kept.values()
    }
    assert all(one.there for one in artifacts(results.archive, name, files))


@pytest.mark.parametrize("name", ["lines", "alone"])
def test_a_kept_model_gives_the_value_that_was_recorded(record, tmp_path, monkeypatch, name):
    from hpsearch.training.data import prepare
    from hpsearch.training.load import load

    monkeypatch.setattr(sys, "path", list(sys.path))  # load puts the study's folder on it

    results = hp.load(name, record)
    task = load(study(tmp_path).objective)
    validation = prepare(task, 0, "cpu")[0].validation
    for run in results.best.trial.runs:
        model = results.best.model(run.key.seed)
        with torch.no_grad():
            loss = task.loss(model(validation.inputs), validation.targets)
        assert loss.item() == pytest.approx(run.value, rel=1e-6)
    assert results.best.model() is not None


def test_loading_a_model_leaves_the_process_as_it_was(record):
    results = hp.load("lines", record)
    path, state = list(sys.path), torch.get_rng_state()
    results.best.model()
    assert sys.path == path
    assert torch.equal(torch.get_rng_state(), state)


def test_fused_or_alone_the_weights_are_the_same(record):
    one, other = (hp.load(name, record).best for name in ("lines", "alone"))
    assert one.number == other.number
    for a, b in zip(one.model(0).parameters(), other.model(0).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_trial_without_weights_and_a_function_say_so(record):
    results = hp.load("lines", record)
    loser = next(trial.number for trial in results.trials if trial.number not in {t.number for t in results.top(2)})
    with pytest.raises(NotFoundError, match=f"no weights are kept of lines/{loser}"):
        results.trial(loser).model()
    with pytest.raises(NotFoundError, match="lines has no trial 77"):
        results.trial(77)


def test_a_changed_file_is_not_loaded_and_a_lost_one_is_named(record, tmp_path):
    results = hp.load("lines", record)
    key = next(iter(results.best.checkpoints))
    shutil.copytree(files_folder(record, "lines"), tmp_path / "f/lines")
    file = checkpoint_file(tmp_path / "f/lines", key)
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ObjectiveError, match="is not the checkpoint that was kept"):
        results.best.model(key.seed, files=tmp_path / "f")
    file.unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        results.best.model(key.seed, files=tmp_path / "f")


def test_what_a_kill_has_left_is_found_and_pruned(record, tmp_path):
    archive = hp.load("lines", record).archive
    shutil.copytree(files_folder(record, "lines"), tmp_path / "f")
    left = [tmp_path / "f" / "9" / "0" / "best.pt", tmp_path / "f" / "9" / "1" / "best.pt.part"]
    for file in left:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"1234")
    assert orphans(archive, "lines", tmp_path / "f") == left
    assert list(prune(archive, "lines", tmp_path / "f")) == [(file, 4) for file in left]
    assert orphans(archive, "lines", tmp_path / "f") == []
    assert all(one.there for one in artifacts(archive, "lines", tmp_path / "f"))


def test_keep_zero_keeps_nothing_and_less_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/r.db"
    hp.run(study(tmp_path, keep=0, n_trials=2), db=url, on="inline")
    assert hp.load("lines", url).archive.checkpoints("lines") == {}
    assert list(tmp_path.glob("**/best.pt")) == []
    with pytest.raises(StudyError, match="keep"):
        replace(study(tmp_path), keep=-1)


def pruned_study(folder: Path, objective: str) -> hp.Study:
    (folder / "code.py").write_text(
        "def train(run):\n"
        "    for epoch in range(3):\n"
        "        (run.checkpoint_dir / 'hpsearch.pt').write_text('mine')\n"
        "        run.report(epoch, val_loss=run['lr'])\n"
        "    return run['lr']\n"
    )
    fields = {"objective": objective, "pruner": "successive_halving", "seeds": 1, "n_trials": 9}
    return study(folder, **fields)


@pytest.mark.parametrize("fuse", ["auto", "off"])
def test_pruned_runs_leave_nothing_to_go_on_from(tmp_path, fuse):
    url = f"sqlite:///{tmp_path}/r.db"
    hp.run(pruned_study(tmp_path, "tasks.py:Line"), db=url, on="inline", fuse=fuse)
    states = {trial.state for trial in hp.load("lines", url).trials}
    assert {State.PRUNED, State.COMPLETE} <= states
    assert list(tmp_path.glob("**/hpsearch.pt")) == []


def test_what_a_plain_function_saves_is_its_own_whatever_it_is_called(tmp_path):
    url = f"sqlite:///{tmp_path}/r.db"
    hp.run(pruned_study(tmp_path, "code.py:train"), db=url, on="inline")
    results = hp.load("lines", url)
    assert State.PRUNED in {trial.state for trial in results.trials}
    assert len(list(tmp_path.glob("**/hpsearch.pt"))) == len(results.trials)
    assert orphans(results.archive, "lines", files_folder(url, "lines")) == []


def test_paused_runs_keep_what_they_go_on_from_and_it_is_pruned_of_the_others(tmp_path):
    url, one = f"sqlite:///{tmp_path}/r.db", pruned_study(tmp_path, "tasks.py:Line")
    files, keys = files_folder(url, "lines"), [RunKey(0, 0), RunKey(1, 0)]
    store = open_store(url)
    store.open(record_of(one), this_process(), lease_s=60)
    trials = [Trial(number=key.trial, params={"lr": 0.1}, runs=(Run(key=key),)) for key in keys]
    store.write(Turn(trials=trials, claims=[Claim(run=key, attempt=1) for key in keys]))
    store.write(Turn(pauses=[PausedReport(run=key, attempt=1, epoch=0) for key in keys]))
    store.write(Turn(finished=[Finished(run=keys[1], attempt=1, state=State.PRUNED, reason="pruned")]))
    store.close("stopped")
    for file in (pause_file(files, run) for run in (*keys, RunKey(7, 0))):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"123")
    assert prune(open_archive(url), "lines", files) == [(pause_file(files, run), 3) for run in (keys[1], RunKey(7, 0))]
    assert pause_file(files, keys[0]).exists()
    (tmp_path / "tasks.py").unlink()  # nobody can tell any more whether it is a task
    pause_file(files, keys[1]).touch()
    assert orphans(open_archive(url), "lines", files) == []
