"""One attempt, whatever the training code does."""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.executor import Assignment
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.training.worker import ERROR_LENGTH, execute
from hpsearch.trial import EpochReport, Finished, PausedReport, RunKey, State

KEY = RunKey(4, 7)

TASK = """
import torch
from torch import nn
from hpsearch.objective import Data, TrainingTask

class Task(TrainingTask):
    epochs = 3
    def model(self, params):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(8, 2))
    def data(self):
        x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        return Data(x, (x[:, 0] > 0).long())

class NoData(TrainingTask):
    def model(self, params): ...

class Broken(Task):
    def model(self, params):
        return nn.Linear(3, 2 + 0 * len(dict(params)))
"""


def attempt(
    folder: Path, source: str, name: str = "train", *, params=None, stopped=lambda: False, device="cpu", **changes
):
    """Every report of an attempt at ``source``."""
    (folder / "code.py").write_text(source)
    workload = Workload(
        study="s",
        objective=ObjectiveAddress("code.py", name, folder),
        metric=changes.pop("metric", "val_loss"),
        direction="minimize",
        seed=0,
        timeout_s=changes.pop("timeout_s", None),
        files=folder / "files",
    )
    key = changes.pop("key", KEY)
    assignment = Assignment(run=key, params={"lr": 0.1} if params is None else params, attempt=2, **changes)
    reports = []
    execute(assignment, workload, send=reports.append, stopped=stopped, device=device)
    assert all(report.run == key and report.attempt == 2 for report in reports)
    assert all(isinstance(report, EpochReport) for report in reports[:-1])
    return reports


def is_pause(last, epoch: int) -> bool:
    """Whether it is a pause after that epoch, and says who trained it, where and how long."""
    assert isinstance(last, PausedReport)
    assert last.engine == "solo, cpu"
    assert last.worker.endswith(f":{os.getpid()}")
    return (last.run, last.attempt, last.epoch, last.seconds > 0) == (KEY, 2, epoch, True)


def body(*lines: str) -> str:
    return "def train(run):\n" + "\n".join(f"    {line}" for line in lines)


def test_a_training_function_is_given_its_run_and_its_result_is_recorded(tmp_path):
    source = body(
        "import torch",
        "assert run['lr'] == 0.1 and dict(run.params) == {'lr': 0.1} and run.seed == 7 and run.device == 'cpu'",
        "assert torch.initial_seed() == 7 and torch.get_num_threads() == 1",
        "(run.checkpoint_dir / 'mine').write_text('x')",
        "assert (run.study_dir / 'code.py').exists()",
        "for epoch in range(3): run.report(epoch, val_loss=[3, 1, 2][epoch], other=float('nan'))",
        "return {'val_loss': 2.0, 'size': 10, 'test_accuracy': 0.5, 'bad': float('inf')}",
    )
    *epochs, last = attempt(tmp_path, source)
    assert [(report.epoch, report.metrics["val_loss"]) for report in epochs] == [(0, 3), (1, 1), (2, 2)]
    assert isinstance(last, Finished)
    assert (last.state, last.value, last.best_epoch, last.last_epoch) == (State.COMPLETE, 2.0, 1, 2)
    assert (last.metrics, last.sealed, last.reason, last.error) == ({"size": 10.0}, {"test_accuracy": 0.5}, "", "")
    assert last.seconds > 0
    assert last.worker.endswith(f":{os.getpid()}")
    assert last.environment.torch == torch.__version__
    assert last.environment.packages["numpy"] == np.__version__
    assert (tmp_path / "files/4/7/checkpoint/mine").read_text() == "x"


def test_a_repeat_has_a_folder_of_its_own(tmp_path):
    attempt(tmp_path, body("return 1"), key=RunKey(4, 7, 2))
    assert (tmp_path / "files/4/7.2/checkpoint").is_dir()


@pytest.mark.parametrize("result", ["1.5", "__import__('numpy').float32(1.5)", "{'val_loss': 1.5}"])
def test_numbers_are_results(tmp_path, result):
    (last,) = attempt(tmp_path, body(f"return {result}"))
    assert (last.state, last.value, last.best_epoch) == (State.COMPLETE, 1.5, None)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("None", "NoneType"),
        ("'0.5'", "str '0.5'"),
        ("b'1'", "bytes"),
        ("True", "bool True"),
        ("__import__('numpy').bool_(True)", "bool"),
        ("[0.5]", "list"),
        ("1 + 2j", "complex"),
        ("__import__('torch').tensor(0.5)", "use value.item()"),
        ("__import__('torch').zeros(3)", "shape (3,)"),
        ("__import__('numpy').zeros(2)", "ndarray"),
        ("{}", "without 'val_loss' (it has nothing)"),
        ("{'loss': 1}", "without 'val_loss' (it has loss)"),
        ("{'val_loss': None}", "'val_loss': NoneType"),
        ("{'val_loss': 1, 'x': 'y'}", "'x': str"),
        ("{'val_loss': 1, 3: 4}", "3: int"),
        ("{'val_loss': 1, 'n' * 201: 4}", "a name of 201 characters"),
        ("type('Odd', (), {'__repr__': lambda s: 1 / 0})()", "Odd ?"),
    ],
)
def test_nonsense_is_an_invalid_result(tmp_path, result, words):
    (last,) = attempt(tmp_path, body(f"return {result}"))
    assert (last.state, last.reason, last.value) == (State.FAILED, "invalid_result", None)
    assert words in last.error
    assert "val_loss as a number" in last.error


@pytest.mark.parametrize(
    ("result", "reason"),
    [("float('nan')", "nan result"), ("-float('inf')", "inf result"), ("10**400", "inf result"),
     ("{'val_loss': float('nan'), 'size': 1}", "nan result")],
)  # fmt: skip
def test_a_result_that_is_not_finite_is_diverged(tmp_path, result, reason):
    *_, last = attempt(tmp_path, body("run.report(0, val_loss=float('nan'))", f"return {result}"))
    assert (last.state, last.reason, last.value, last.last_epoch) == (State.DIVERGED, reason, None, 0)


def test_a_reported_nan_does_not_end_a_run(tmp_path):
    source = body("for e in (0, 5): run.report(e, val_loss=[float('nan'), 0, 0, 0, 0, 2][e])", "return 2")
    first, _, last = attempt(tmp_path, source)
    assert math.isnan(first.metrics["val_loss"])
    assert (last.state, last.best_epoch, last.last_epoch) == (State.COMPLETE, 5, 5)


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        ("raise ValueError('my \\ud800 words')", "exception", "my \\ud800 words"),
        ("raise KeyboardInterrupt", "exception", "KeyboardInterrupt"),
        ("raise GeneratorExit", "exception", "GeneratorExit"),
        ("run['momentum']", "exception", "no hyperparameter 'momentum' in this study; it has lr"),
        ("import sys; sys.exit(3)", "exit:3", "SystemExit"),
        ("exit()", "exit:0", "SystemExit"),
        ("raise SystemExit('bye')", "exit:1", "bye"),
        ("raise MemoryError", "oom", "MemoryError"),
        ("import torch; raise torch.OutOfMemoryError('CUDA out of memory.')", "oom", "CUDA out of memory"),
        ("import torch; torch.empty(2**58)", "oom", "allocate"),
        ("(lambda f: f(f))(lambda f: f(f))", "exception", "RecursionError"),
        ("raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})()", "exception", "<exception str() failed>"),
    ],
)
def test_what_it_raises_costs_this_run_only(tmp_path, line, reason, words):
    (last,) = attempt(tmp_path, body(line))
    assert (last.state, last.reason) == (State.FAILED, reason)
    assert words in last.error
    assert "code.py" in last.error
    assert "worker.py" not in last.error
    last.error.encode()


def test_a_long_error_is_cut_in_the_middle(tmp_path):
    (last,) = attempt(tmp_path, body("raise ValueError('a' * 100_000 + 'the end')"))
    assert len(last.error) < ERROR_LENGTH + 100
    assert last.error.startswith("Traceback")
    assert last.error.endswith("the end")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run.report(1.5, val_loss=1)", "whole epoch"),
        ("run.report(-1, val_loss=1)", "whole epoch"),
        ("run.report(True, val_loss=1)", "whole epoch"),
        ("run.report(0, val_loss='1')", "val_loss is str '1'"),
        ("run.report(0, val_loss=__import__('torch').tensor(1.))", "use value.item()"),
        ("run.report(2, val_loss=1); run.report(2, val_loss=1)", "2 comes after 2"),
        ("run.report(2**31, val_loss=1)", "epochs up to 2147483647, not 2147483648"),
        ("run.report(0, val_loss=1, **{'n' * 300: 2})", "names of at most 200 characters, not the 300"),
    ],
)
def test_a_wrong_report_says_what_is_right(tmp_path, line, words):
    *_, last = attempt(tmp_path, body(line))
    assert last.reason == "exception"
    assert words in last.error


def test_a_reported_test_metric_stays_sealed(tmp_path):
    epoch, last = attempt(tmp_path, body("run.report(0, val_loss=1, test_accuracy=0.9)", "return 1"))
    assert (epoch.metrics, last.sealed) == ({"val_loss": 1.0}, {"test_accuracy": 0.9})


LOOP = body("for epoch in range(10): run.report(epoch, val_loss=epoch)", "return 9")
STUBBORN = body(
    "for epoch in range(10):",
    "    try: run.report(epoch, val_loss=epoch)",
    "    except BaseException: pass",
    "return 9",
)


@pytest.mark.parametrize("source", [LOOP, STUBBORN])
def test_a_stopped_run_is_cancelled_even_if_it_swallows_the_exception(tmp_path, source):
    asked = iter([False, False, True, True])
    *epochs, last = attempt(tmp_path, source, stopped=lambda: next(asked))
    assert [report.epoch for report in epochs] == [0, 1, 2]
    assert (last.state, last.value, last.last_epoch) == (State.CANCELLED, None, 2)


@pytest.mark.parametrize("source", [LOOP, STUBBORN])
def test_a_function_is_paused_at_its_epoch(tmp_path, source):
    *epochs, last = attempt(tmp_path, source, until_epoch=4)
    assert is_pause(last, 3)
    assert len(epochs) == 4


@pytest.mark.parametrize("ending", ["raise", "return"])
@pytest.mark.parametrize(("value", "until", "reason"), [
    ("nan", 4, "nan val_loss at epoch 3"), ("-inf", 4, "inf val_loss at epoch 3"),
    ("nan", 5, None), ("nan", None, None),
])  # fmt: skip
def test_a_function_whose_metric_is_no_number_where_it_is_to_pause_has_diverged(tmp_path, value, until, reason, ending):
    source = body(
        "for epoch in range(10):",
        f"    try: run.report(epoch, val_loss=float('{value}') if epoch == 3 else epoch)",
        f"    except BaseException: {'raise' if ending == 'raise' else 'return 9'}",
        "return 9",
    )
    *epochs, last = attempt(tmp_path, source, until_epoch=until)
    if reason:
        assert (last.state, last.reason, last.value, last.last_epoch) == (State.DIVERGED, reason, None, 3)
        assert len(epochs) == 4
    elif until:
        assert is_pause(last, 4)
    else:
        assert (last.state, last.last_epoch) == (State.COMPLETE, 9)


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("signal", ["Paused", "Stopped"])
def test_a_stop_that_nobody_asked_for_is_an_exception(tmp_path, signal, reported):
    lines = ["from hpsearch.errors import Paused, Stopped", *(["run.report(0, loss=1.0)"] if reported else [])]
    *_, last = attempt(tmp_path, body(*lines, f"raise {signal}"))
    assert (last.state, last.reason) == (State.FAILED, "exception")
    assert f"raise {signal}" in last.error


def test_a_run_may_prune_itself(tmp_path):
    source = body(
        "import hpsearch.errors as e", "run.report(0, val_loss=2)", "run.report(1, val_loss=3)", "raise e.Pruned"
    )
    *_, last = attempt(tmp_path, source)
    assert (last.state, last.value, last.best_epoch, last.last_epoch) == (State.PRUNED, 2.0, 0, 1)


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("def trane(run): ...", "train", "did you mean trane?"),
        ("import nothing_of_this_name\ndef train(run): ...", "train", "No module named 'nothing_of_this_name'"),
        ("import sys; sys.exit(4)\ndef train(run): ...", "train", "SystemExit: 4"),
        ("def train(run:", "train", "is no Python"),
        ("train = 3", "train", "is a int, neither"),
        ("class train: ...", "train", "no TrainingTask"),
        (TASK, "NoData", "lacks data"),
        (TASK, "Missing", "defines no 'Missing'"),
    ],
)
def test_an_objective_that_does_not_fit_is_the_studys_mistake(tmp_path, source, name, words):
    (last,) = attempt(tmp_path, source, name)
    assert (last.state, last.reason) == (State.FAILED, "study")
    assert words in last.error


def test_sister_files_are_imported_also_late_and_the_path_is_left_as_it_was(tmp_path):
    (tmp_path / "sister_one.py").write_text("x = 1")
    (tmp_path / "sister_two.py").write_text("y = 2")
    path = list(sys.path)
    source = "from sister_one import x\n" + body("from sister_two import y", "return x + y")
    (last,) = attempt(tmp_path, source)
    assert last.value == 3, last.error
    assert sys.path == path
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_file_is_imported_once_and_again_after_a_change(tmp_path):
    source = "seen = []\n" + body("seen.append(1)", "return len(seen)")
    assert attempt(tmp_path, source)[-1].value == 1
    os.utime(tmp_path / "code.py", ns=(1, 1))
    changed = (tmp_path / "code.py").stat().st_mtime_ns
    assert changed == 1
    assert attempt(tmp_path, source)[-1].value == 1
    workload = Workload(
        study="s", objective=ObjectiveAddress("code.py", "train", tmp_path), metric="x", direction="minimize", seed=0,
        files=tmp_path,
    )  # fmt: skip
    reports = []
    for _ in range(2):
        assignment = Assignment(run=KEY, params={}, attempt=1)
        execute(assignment, workload, send=reports.append, stopped=lambda: False, device="cpu")
    assert [report.value for report in reports] == [2, 3]


def test_dataclasses_and_pickle_work_in_an_objective(tmp_path):
    source = "import pickle\nfrom dataclasses import dataclass\n@dataclass\nclass Point:\n    x: 'int'\n" + body(
        "return pickle.loads(pickle.dumps(Point(3))).x"
    )
    (last,) = attempt(tmp_path, source)
    assert last.value == 3, last.error


def test_nothing_leaks_into_the_next_run(tmp_path):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), Path.cwd()
    threads = torch.get_num_threads()
    source = body(
        "import os, random, numpy, torch",
        "torch.set_default_dtype(torch.float64); torch.set_default_device('meta'); torch.set_grad_enabled(False)",
        "torch.set_num_threads(2); torch.backends.cudnn.deterministic = True; torch.backends.cudnn.benchmark = True",
        "torch.use_deterministic_algorithms(True); torch.set_float32_matmul_precision('medium'); os.chdir('/')",
        "random.random(); numpy.random.rand(); return 1",
    )
    (last,) = attempt(tmp_path, source)
    assert last.state is State.COMPLETE, last.error
    assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(1).device.type == "cpu"
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert not torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert (random.getstate(), np.random.get_state()[1].tolist(), Path.cwd()) == (before[0], before[1], before[3])
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_what_a_process_allows_comes_back(tmp_path, before):
    """Of a user's own process, in which runs train inline."""
    mode, warn_only = before
    torch.use_deterministic_algorithms(mode, warn_only=warn_only)
    try:
        (last,) = attempt(tmp_path, body("import torch; torch.use_deterministic_algorithms(True); return 1"))
        after = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert last.state is State.COMPLETE, last.error
    assert after == before


def test_a_cpu_worker_does_not_import_torchs_compiler(tmp_path):
    """It is half of a worker's start, and a hundred megabytes."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.training.fusing import MLP, assignments, together\n"
        "told = together(MLP, Path(sys.argv[1]), assignments([{'dropout': 0.1 * k} for k in range(3)]))\n"
        "print(told.grouped[0].engine, 'torch._dynamo' in sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vmap", "False"]


def test_every_run_is_seeded_alike(tmp_path):
    source = body(
        "import random, numpy, torch",
        "return random.random() + numpy.random.rand() + torch.rand(()).item()",
    )
    values = {attempt(tmp_path, source)[-1].value for _ in range(3)}
    assert len(values) == 1
    assert values != {attempt(tmp_path, source, key=RunKey(4, 8))[-1].value}


def test_a_task_reports_its_epochs_and_completes(tmp_path):
    *epochs, last = attempt(tmp_path, TASK, "Task", params={"dropout": 0.2, "lr": 0.1})
    assert [(report.epoch, report.epochs) for report in epochs] == [(0, 3), (1, 3), (2, 3)]
    assert set(epochs[0].metrics) == {"train_loss", "val_loss", "val_accuracy", "lr"}
    assert set(epochs[0].layers) == {"0", "3"}
    assert last.state is State.COMPLETE, last.error
    assert last.value == min(report.metrics["val_loss"] for report in epochs)


def test_a_task_diverges_fails_and_pauses_as_a_function_does(tmp_path):
    *_, last = attempt(tmp_path, TASK, "Task", params={"dropout": 0.0, "lr": 1e30})
    assert last.state is State.DIVERGED
    assert "loss at epoch" in last.reason
    *_, last = attempt(tmp_path, TASK, "Broken")
    assert (last.state, last.reason) == (State.FAILED, "exception")
    assert "mat1 and mat2" in last.error
    *_, last = attempt(tmp_path, TASK, "Task", params={"dropout": 0.0}, until_epoch=2)
    assert is_pause(last, 1)
    epoch, last = attempt(tmp_path, TASK, "Task", params={"dropout": 0.0})
    assert (epoch.epoch, last.state) == (2, State.COMPLETE)
    (last,) = attempt(tmp_path, TASK, "Task", params={"dropout": 0.0, "unknown": 1})
    assert (last.reason, "unknown" in last.error) == ("study", True)
    *_, last = attempt(tmp_path, TASK, "Task", params={"dropout": 0.0}, metric="accuracy")
    assert (last.reason, "val_accuracy" in last.error) == ("study", True)


def test_values_are_equal_to_the_bit_in_another_process_and_after_other_runs(tmp_path):
    params = {"dropout": 0.3, "lr": 0.05}
    here = attempt(tmp_path, TASK, "Task", params=params)
    attempt(tmp_path, TASK, "Task", params={"dropout": 0.1, "optimizer": "adam"})
    again = attempt(tmp_path, TASK, "Task", params=params)
    code = (
        "import sys; from pathlib import Path\n"
        "from hpsearch.executor import Assignment\n"
        "from hpsearch.objective import ObjectiveAddress, Workload\n"
        "from hpsearch.training.worker import execute\n"
        "from hpsearch.trial import RunKey\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "w = Workload(study='s', objective=ObjectiveAddress('code.py', 'Task', folder), metric='val_loss',\n"
        "             direction='minimize', seed=0, files=folder / 'elsewhere')\n"
        f"a = Assignment(run=RunKey(4, 7), params={params!r}, attempt=1)\n"
        "reports = []\n"
        "execute(a, w, send=reports.append, stopped=lambda: False, device='cpu')\n"
        "print([sorted(r.metrics.items()) for r in reports[:-1]])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [sorted(report.metrics.items()) for report in here[:-1]]
    assert [sorted(report.metrics.items()) for report in again[:-1]] == expected
    assert done.stdout.strip() == str(expected)


def test_a_task_that_is_too_old_at_an_epoch_has_timed_out(tmp_path):
    """The guard cannot tell where a worker has other runs in hand."""
    reports = attempt(tmp_path, TASK, "Task", params={"dropout": 0.1}, timeout_s=1e-9)
    assert [report.epoch for report in reports[:-1]] == [0]
    assert (reports[-1].state, reports[-1].reason) == (State.FAILED, "timeout")


def test_flags_that_the_file_sets_when_it_is_imported_are_set_for_every_run(tmp_path):
    source = (
        "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.set_float32_matmul_precision('high')\n"
        + body(
            "x = torch.zeros(1)",
            "return float(x.dtype == torch.float64) + 2 * (torch.get_float32_matmul_precision() == 'high')",
        )
    )
    assert [attempt(tmp_path, source)[-1].value for _ in range(3)] == [3, 3, 3]
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_task_that_cannot_be_made_is_named(tmp_path):
    source = TASK + "\nclass Wide(Task):\n    def __init__(self, width): self.width = width\n"
    (last,) = attempt(tmp_path, source, "Wide")
    assert (last.state, last.reason) == (State.FAILED, "study")
    assert "Wide() raises TypeError" in last.error
    assert "made without arguments" in last.error


def test_a_gpu_that_there_is_not_is_named(tmp_path):
    (last,) = attempt(tmp_path, TASK, "Task", params={"dropout": 0.1}, device="cuda:77")
    assert (last.state, last.reason) == (State.FAILED, "study")
    assert "device cuda:77: torch" in last.error
