"""Successive halving and Hyperband with real workers: what it costs, who goes on, and that no kill changes it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import hpsearch as hp
from hpsearch.attempt import executor_of
from hpsearch.executor import Executor
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.pruner import Pruner
from hpsearch.pruners.hyperband import Hyperband
from hpsearch.pruners.successive_halving import SuccessiveHalving
from hpsearch.search import search
from hpsearch.store import StudyRecord, this_process
from hpsearch.stores.memory import MemoryArchive, MemoryRecord, MemoryStore
from hpsearch.study import fingerprint, spec_of
from hpsearch.trial import Direction, State, Trial

EPOCHS = 27
#: epochs that successive halving of 81 trials needs: 81 * 1 + 27 * 2 + 9 * 6 + 3 * 18
NEEDED = 243
#: steps of an epoch of Small
STEPS = 3

#: each epoch that a function trains is a line in trained.txt; of Small each step, that of a group one for each lane
TRAIN = """
import math
from pathlib import Path

import torch
import hpsearch as hp

def said(run, epoch):
    with open(run.study_dir / "trained.txt", "a") as log:
        log.write(f"{epoch}\\n")

def loss(run, epoch):
    x = run["x"]
    return x + (1.0 - x) / (epoch + 1) ** (1.0 + x) + 0.05 * math.sin(50 * x + run.seed)

def saving(run):
    file, epoch = run.checkpoint_dir / "epoch.txt", 0
    if file.exists():
        epoch = int(file.read_text())
    while epoch < 27:
        said(run, epoch)
        value = loss(run, epoch)
        if run["x"] > 0.9 and epoch == 1:
            return float("nan")
        epoch += 1
        file.write_text(str(epoch))
        run.report(epoch - 1, loss=value)
    return value

def rising(run):
    for epoch in range(27):
        run.report(epoch, score=-loss(run, epoch))
    return -loss(run, 26)

def forgetful(run):
    for epoch in range(27):
        said(run, epoch)
        run.report(epoch, loss=loss(run, epoch))
    return loss(run, 26)

class Small(hp.TrainingTask):
    optimizer = "sgd"
    epochs = 27
    batch_size = 16

    def model(self, params):
        return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))

    def loss(self, output, target):
        if torch.is_grad_enabled():
            whole = output
            while torch._C._functorch.is_functorch_wrapped_tensor(whole):
                whole = torch._C._functorch.get_unwrapped(whole)
            whole.sum().item()  # so that no step is played from a tape, without this
            # The last lane of a group is nobody's.
            with open(Path(__file__).parent / "trained.txt", "a") as log:
                log.write("step\\n" * (len(whole) - 1 if whole is not output else 1))
        return super().loss(output, target)

    def data(self):
        chance = torch.Generator().manual_seed(1)
        inputs = torch.randn(80, 4, generator=chance)
        return hp.Data(inputs, inputs.sin().sum(1, keepdim=True))
"""


def study_of(folder: Path, name: str, pruner: Pruner | None, **fields: object) -> hp.Study:
    (folder / "train.py").write_text(TRAIN)
    settings: dict[str, object] = {"n_trials": 81, "metric": "loss", "search_space": {"x": hp.Float(0.0, 1.0)}} | fields
    settings["search_space"] = hp.SearchSpace(settings["search_space"])  # type: ignore[arg-type]
    address = ObjectiveAddress("train.py", name, folder)
    return hp.Study(name="s", objective=address, strategy=hp.Random(), pruner=pruner, **settings)  # type: ignore[arg-type]


def small(folder: Path, pruner: Pruner | None, **fields: object) -> hp.Study:
    space = {"lr": hp.Float(1e-3, 1.0, log=True)}
    return study_of(folder, "Small", pruner, metric="val_loss", search_space=space, **fields)


@contextmanager
def workers_of(on: str, workers: int, lanes: int) -> Iterator[Executor]:
    executor = executor_of(on, workers, "cpu", lanes)
    try:
        yield executor
    finally:
        executor.close()


class Never:
    """Nobody interrupts."""

    level = 0


def run(study: hp.Study, *, on: str = "inline", workers: int = 1, lanes: int = 1, files: str = "files") -> list[Trial]:
    """All trials of a study that was run to its end."""
    folder, record, spec = study.objective.folder, MemoryRecord(), spec_of(study)
    with workers_of(on, workers, lanes) as executor:
        ending = search(
            study,
            StudyRecord(name="s", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64),
            store=MemoryStore(record),
            executor=executor,
            workload=Workload(
                study="s",
                objective=study.objective,
                metric=study.metric,
                direction=str(study.direction),
                seed=study.seed,
                device="cpu",
                lanes=lanes,
                files=folder / f"{files}-{on}-{workers}-{lanes}",
            ),
            holder=this_process(),
            interrupt=Never(),
        )
    assert (ending.state, ending.error) == ("complete", None)
    assert ending.progress.runs_done == ending.progress.runs_total
    return MemoryArchive(record).trials("s")


def trained(folder: Path) -> int:
    """How many epochs were trained since the last call."""
    log = folder / "trained.txt"
    count = len(log.read_text().splitlines()) if log.exists() else 0
    log.unlink(missing_ok=True)
    return count


def fates(trials: list[Trial]) -> list[tuple[object, ...]]:
    return [
        (t.number, t.state, t.value, [(r.state, r.value, r.best_epoch, r.last_epoch) for r in t.runs]) for t in trials
    ]


def test_81_trials_of_a_function_cost_what_the_algorithm_needs_and_the_same_go_on_everywhere(tmp_path: Path) -> None:
    study = study_of(tmp_path, "saving", SuccessiveHalving(max_epochs=EPOCHS))
    inline = run(study)
    cost = trained(tmp_path)
    assert cost <= 1.3 * NEEDED
    states = [t.state for t in inline]
    assert states.count(State.COMPLETE) == 3
    assert states.count(State.DIVERGED) + states.count(State.PRUNED) == 78
    assert {t.runs[0].last_epoch for t in inline if t.state is State.PRUNED} == {0, 2, 8}
    for workers in (1, 3):
        local = run(study, on="local", workers=workers)
        assert fates(local) == fates(inline)
        assert trained(tmp_path) == cost


def test_a_function_that_saves_nothing_starts_over_and_the_same_go_on(tmp_path: Path) -> None:
    pruner = SuccessiveHalving(max_epochs=EPOCHS)
    fields = {"n_trials": 27, "seeds": (0, 5)}
    forgetful = run(study_of(tmp_path, "forgetful", pruner, **fields))
    assert trained(tmp_path) == 2 * (27 * 1 + 9 * 3 + 3 * 9 + 1 * 27)
    rising = run(
        study_of(
            tmp_path, "rising", pruner, metric="score", direction=Direction.MAXIMIZE, **fields
        )
    )  # fmt: skip
    # The same curves upside down: the same trials go on.
    assert [(t.state, -(t.value or 0)) for t in rising] == [(t.state, t.value) for t in forgetful]
    assert [t.state for t in rising].count(State.COMPLETE) == 1


def test_baselines_are_never_pruned_and_a_diverging_trial_is_the_worst(tmp_path: Path) -> None:
    worst = ({"x": 0.85}, {"x": 0.95})
    study = study_of(tmp_path, "saving", SuccessiveHalving(max_epochs=EPOCHS), n_trials=27, baselines=worst)
    trials = run(study, on="local", workers=2)
    assert (trials[0].state, trials[0].runs[0].last_epoch) == (State.COMPLETE, EPOCHS - 1)
    assert trials[1].state is State.DIVERGED
    for t in trials[2:]:
        if t.params["x"] > 0.9:  # type: ignore[operator]
            # It diverges in its second epoch, where it comes so far.
            assert t.state is (State.PRUNED if t.runs[0].last_epoch == 0 and t.value is not None else State.DIVERGED)
    assert sum(t.state is State.COMPLETE for t in trials[2:]) == 1


def test_81_runs_of_a_task_cost_243_epochs_alone_and_fused(tmp_path: Path) -> None:
    study = small(tmp_path, SuccessiveHalving())
    inline = run(study)
    cost = trained(tmp_path)
    assert cost == STEPS * sum((t.runs[0].last_epoch or 0) + 1 for t in inline)
    assert cost <= 1.3 * STEPS * NEEDED
    assert [t.state for t in inline].count(State.COMPLETE) == 3
    # What went on after three pauses is what an unpruned study has.
    last = max(t.number for t in inline if t.state is State.COMPLETE)
    whole = {t.number: t for t in run(small(tmp_path, None, n_trials=1 + last), files="whole")}
    trained(tmp_path)
    for t in inline:
        if t.state is State.COMPLETE:
            assert t.value == whole[t.number].value
    local = run(study, on="local", workers=3)
    assert trained(tmp_path) == cost
    assert fates(local) == fates(inline)
    # Fused: lanes are freed at each rung, and filled with those that go on.
    for on, workers in (("inline", 1), ("local", 2)):
        fused = run(study, on=on, workers=workers, lanes=16)
        # Each group's probe is a step of its lanes, together and alone.
        assert cost <= trained(tmp_path) <= 1.3 * STEPS * NEEDED
        assert [(t.state, t.runs[0].last_epoch) for t in fused] == [(t.state, t.runs[0].last_epoch) for t in inline]
        assert [t.value for t in fused] == pytest.approx([t.value for t in inline], rel=1e-4)
        assert all("vmap" in t.runs[0].engine for t in fused if t.state is State.COMPLETE)


def test_hyperband_with_two_seeds_gives_the_same_with_one_worker_and_three(tmp_path: Path) -> None:
    study = small(tmp_path, Hyperband(), n_trials=30, seeds=(1, 2))
    inline, local = run(study), run(study, on="local", workers=3)
    assert fates(local) == fates(inline)
    states = [t.state for t in inline]
    # The last bracket has no rungs.
    assert states.count(State.COMPLETE) >= 3
    assert states.count(State.PRUNED) >= 10
    assert all(len({r.last_epoch for r in t.runs}) == 1 for t in inline)


STUDY = """
name: killed
objective: train.py:forgetful
search_space: {x: {uniform: [0, 1]}}
strategy: random
pruner: {successive_halving: {max_epochs: 27}}
metric: {loss: minimize}
n_trials: 81
seeds: 2
"""


def start(folder: Path, db: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hpsearch", "run", str(folder / "study.yaml"), "--db", db, "--workers", "2"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def came(db: str) -> tuple[int, int]:
    """How many runs wait at a rung or have ended, and how many of them have ended."""
    try:
        runs = [run for trial in hp.load("killed", db).trials for run in trial.runs]
    except hp.HpsearchError:
        return 0, 0
    final = sum(run.state.final for run in runs)
    return final + sum(run.state is State.PAUSED for run in runs), final


@pytest.mark.timeout(300)
@pytest.mark.full
def test_the_same_trials_go_on_whenever_the_coordinator_is_killed(tmp_path: Path) -> None:
    slow = TRAIN.replace("def loss(run, epoch):", "def loss(run, epoch):\n    import time; time.sleep(0.02)")
    (tmp_path / "train.py").write_text(slow)
    (tmp_path / "study.yaml").write_text(STUDY)
    calm, killed = f"sqlite:///{tmp_path}/calm.db", f"sqlite:///{tmp_path}/killed.db"
    moments, orphans = random.Random(3), []
    # On the way to the first rung, just after its decision, and just after that of the second.
    for wanted in ((40, 0), (0, 2 * 54), (0, 2 * 72)):
        process = start(tmp_path, killed)
        while any(a < b for a, b in zip(came(killed), wanted, strict=True)) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(moments.uniform(0.0, 0.3))
        assert process.poll() is None, "the study ended before it was killed"
        orphans += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for db in (killed, calm):
        process = start(tmp_path, db)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    once, twice = hp.load("killed", calm), hp.load("killed", killed)
    assert fates(list(twice.trials)) == fates(list(once.trials))
    assert [t.state for t in once.trials].count(State.COMPLETE) == 3
    _, alive = psutil.wait_procs(orphans, timeout=5)
    assert not alive
