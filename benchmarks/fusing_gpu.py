"""The GPU's part of ``fusing.py``: how many steps of training a second one GPU makes, over all runs it trains at once.

Models of MNIST's size (``mnist_size.py``), batches of 128, SGD with momentum, 60,000 images as bytes on the GPU, each
run with an order, dropout masks and hyperparameters of its own. Every row has fresh processes.

eager              a plain PyTorch loop: an index, a forward, a backward, ``torch.optim.SGD``
compiled + graph   the same: gather, forward, loss and backward compiled; with a fused SGD captured in one CUDA graph
N processes        so many of them at once, begun together; the sum
fused K            ``hpsearch`` with K lanes, as a worker trains them, after the first epoch: each epoch with its
                   validation on 10,000 images, norms and reports, which the plain loops do without
study              ``hpsearch run`` of 1,024 runs of 5 epochs, from the command to the prompt

float32: no tf32 anywhere; tf32: in matrix products and convolutions; bf16: ``TrainingTask.precision = "bfloat16"``,
the forward under autocast, weights in float32; the plain loops by the same function.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fusing_peer
import fusing_runs
import fusing_study
import torch
from mnist_size import FASHION_MNIST
from torch import Tensor
from torch.nn import functional

from hpsearch.objective import ObjectiveAddress, TrainingTask
from hpsearch.training.data import prepare
from hpsearch.training.load import load
from hpsearch.training.precision import output_of
from hpsearch.training.recipe import ModelParams

HERE = Path(__file__).parent
PRECISIONS = ("float32", "tf32", "bf16")
#: task -> its name in float32, and in mixed precision
TASKS = {"mlp": ("MLP", "MixedMLP"), "cnn": ("CNN", "MixedCNN")}
#: seconds that a plain loop is timed, after a warm-up of so many steps; steps between two looks at the clock
TIMED_S, WARM, CHUNK = 5.0, 50, 100
#: seconds that a row may take
LIMIT_S = 900.0
ABSENT = """fusing.py --device cuda: there is no CUDA device here. On one it would measure trial-steps a second of an
MLP 784-512-512-10 and of a CNN (convolutions 32-64 of 3 x 3, pool, 128, 10), batches of 128, in float32, tf32 and bf16:
eager, compiled in a CUDA graph, 16 processes of each, and fused lanes of 16, 64 and 256; then a whole study of 1,024
runs of 5 epochs through hpsearch run."""
#: a step of a plain training, by the rows of its batch
Step = Callable[[Tensor], None]


@dataclass(frozen=True)
class Row:
    """What a process is to time."""

    task: str
    precision: str
    #: ``eager``, ``graph`` or ``fused``
    way: str
    #: processes at once
    processes: int = 1
    lanes: int = 1
    #: of fused lanes: how many are trained; the first is not timed
    epochs: int = 2
    device: str = "cuda:0"

    @property
    def address(self) -> ObjectiveAddress:
        """Its task."""
        return ObjectiveAddress("mnist_size.py", TASKS[self.task][self.precision == "bf16"], HERE)

    def __str__(self) -> str:
        if self.way == "fused":
            return f"fused {self.lanes}"
        how = "compiled + graph" if self.way == "graph" else "eager"
        return f"{how}, {self.processes} processes" if self.processes > 1 else how


@dataclass(frozen=True)
class Timed:
    """What a process has found."""

    #: a second
    steps: float = 0.0
    #: before the first step that is timed, without imports
    start_s: float = 0.0
    #: the most memory of the device, GiB
    memory: float = 0.0
    note: str = ""


class Plain:
    """One model, trained in plain PyTorch on data that is on the device."""

    def __init__(self, row: Row, number: int) -> None:
        params = fusing_runs.drawn(number + 1, images=FASHION_MNIST)[number]
        torch.manual_seed(fusing_runs.seed_of(number))
        task = load(row.address)
        assert isinstance(task, TrainingTask)
        self.device = torch.device(row.device)
        self._output = partial(output_of, task)
        part = prepare(task, 0, row.device, ModelParams(params))[0]
        self._split, self._transform = part.train, part.transform
        self.model = task.model(params).to(self.device).train()
        self.optimizer = fusing_peer.sgd(self.model, params, fused=True if row.way == "graph" else None)
        self.size = task.batch_size

    def batches(self) -> Iterator[Tensor]:
        """Rows of whole batches, without end, in a new order each epoch."""
        count = len(self._split.targets) // self.size
        while True:
            order = torch.randperm(len(self._split.targets), device=self.device)
            yield from order[: count * self.size].view(count, self.size)

    def loss(self, rows: Tensor) -> Tensor:
        """Of a batch."""
        inputs = self._split.inputs[rows]
        inputs = inputs if self._transform is None else self._transform(inputs)
        return functional.cross_entropy(self._output(self.model, inputs), self._split.targets[rows])

    def step(self, loss: Callable[[Tensor], Tensor], rows: Tensor) -> None:
        """One update."""
        self.optimizer.zero_grad(set_to_none=True)
        loss(rows).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def eager(plain: Plain) -> Step:
    """A step as one writes it."""
    return lambda rows: plain.step(plain.loss, rows)


def graphed(plain: Plain) -> Step:
    """A step compiled and captured (torch's notes on CUDA semantics, "Whole-network capture")."""
    loss = torch.compile(plain.loss, fullgraph=True, dynamic=False)
    rows = next(plain.batches()).clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            plain.step(loss, rows)
    torch.cuda.current_stream().wait_stream(side)
    plain.optimizer.zero_grad(set_to_none=True)  # so that the gradients are in the graph's memory
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plain.step(loss, rows)

    def replay(batch: Tensor) -> None:
        rows.copy_(batch)
        graph.replay()

    return replay


def time_plain(row: Row, number: int, turn: Callable[[], None]) -> Timed:
    """Steps a second of a plain loop."""
    began = time.perf_counter()
    plain = Plain(row, number)
    step = graphed(plain) if row.way == "graph" else eager(plain)
    batches = plain.batches()
    for _ in range(WARM):
        step(next(batches))
    wait_for(plain.device)
    start_s = time.perf_counter() - began
    turn()
    began, steps, spent = time.perf_counter(), 0, 0.0
    while spent < TIMED_S:
        for _ in range(CHUNK):
            step(next(batches))
        wait_for(plain.device)
        steps, spent = steps + CHUNK, time.perf_counter() - began
    return Timed(steps=steps / spent, start_s=start_s, memory=peak(plain.device))


def time_fused(row: Row, turn: Callable[[], None]) -> Timed:
    """Steps a second of lanes, all together."""
    # As a run of five epochs or more would train: fewer steps are not compiled for.
    runs = fusing_runs.drawn(row.lanes, images=FASHION_MNIST, epochs=max(5, row.epochs))
    try:
        passed = fusing_runs.train(
            row.address,
            runs,
            lanes=row.lanes,
            device=row.device,
            stop_after=row.epochs,
            only_fused=True,
            first=turn,
        )
    except fusing_runs.NotFusedError as error:
        return Timed(note=f"not offered: {error}")
    first, last = passed.marks[0], passed.marks[-1]
    after = sum(len(curve) - 1 for curve in passed.curves.values())
    steps = passed.steps // sum(len(curve) for curve in passed.curves.values()) * after
    epoch_s = (last - first) / (len(passed.marks) - 1)
    note = "; ".join([passed.engine, *passed.reasons])
    return Timed(steps / (last - first), passed.first_s - epoch_s, peak(torch.device(row.device)), note)


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device) -> float:
    """GiB that tensors have taken at most."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def work(row: Row, number: int, pipe: Any) -> None:
    """The body of a process: make a row ready, wait for its turn, and time it."""
    torch.set_float32_matmul_precision("highest" if row.precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = row.precision != "float32"

    def turn() -> None:
        wait_for(torch.device(row.device))
        pipe.send(None)
        pipe.recv()

    try:
        pipe.send(time_fused(row, turn) if row.way == "fused" else time_plain(row, number, turn))
    except Exception as error:  # noqa: BLE001 - one row's failure is that row's
        traceback.print_exc()
        pipe.send(Timed(note=f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"))


class Made:
    """A row that its processes, fresh ones, make ready."""

    def __init__(self, row: Row) -> None:
        self.row, self._deadline = row, time.monotonic() + LIMIT_S
        context = get_context("spawn")
        self._pipes, self._processes = [], []
        for number in range(row.processes):
            mine, theirs = context.Pipe()
            process = context.Process(target=work, args=(row, number, theirs))
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def wait(self) -> None:
        """Until all of its processes are ready, or have failed."""
        self._early = [self._heard(pipe) for pipe in self._pipes]

    def time(self) -> Timed:
        """Let them begin at once: the sum of their rates, the longest start."""
        found = [early for early in self._early if early is not None]
        if not found:
            for pipe in self._pipes:
                with suppress(OSError):  # it has died since
                    pipe.send(None)
            found = [self._heard(pipe) or Timed() for pipe in self._pipes]
        for process in self._processes:
            process.join(10 if len(found) == len(self._pipes) else 0)
        self.end()
        failed = [timed for timed in found if timed.steps == 0]
        if failed:
            return next((timed for timed in failed if timed.note), Timed(note="its processes died"))
        return replace(
            found[0],
            steps=sum(timed.steps for timed in found),
            start_s=max(timed.start_s for timed in found),
            memory=sum(timed.memory for timed in found),
        )

    def end(self) -> None:
        """End what is left of it."""
        for process in self._processes:
            process.kill()

    def _heard(self, pipe: Any) -> Timed | None:
        """What a process says next: None where it is ready; nothing found where it died."""
        try:
            if not pipe.poll(max(0.0, self._deadline - time.monotonic())):
                return Timed(note=f"took more than {LIMIT_S:g} s")
            said: Timed | None = pipe.recv()
        except EOFError:
            return Timed()
        return said


def rows_of(options: argparse.Namespace) -> Iterator[Row]:
    """The table's rows: of each model and precision, alone first."""
    for task in [options.task] if options.task else TASKS:
        epochs = options.epochs or (5 if task == "mlp" else 2)
        for precision in options.precision or PRECISIONS:
            for processes in (1, options.processes or 16):
                for way in ("eager", "graph"):
                    yield Row(task, precision, way, processes)
            for lanes in options.lanes or (16, 64, 256):
                yield Row(task, precision, "fused", lanes=lanes, epochs=max(2, epochs))


def main(options: argparse.Namespace) -> int:
    """Measure and print; the exit status."""
    if not torch.cuda.is_available():
        print(ABSENT, file=sys.stderr)
        return 2
    data = f"Fashion-MNIST of {FASHION_MNIST}" if Path(FASHION_MNIST).is_dir() else "random bytes of its shape"
    cores = len(os.sched_getaffinity(0))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {cores} cores; data: {data}", flush=True)
    if not options.study:
        show(options)
    return study(options)


def show(options: argparse.Namespace) -> None:
    """Measure the rows and print each as it comes."""
    print(f"{'':<6}{'':<10}{'':<32}{'steps/s':>10}{'x eager':>9}{'start s':>9}{'GiB':>7}")
    alone: dict[tuple[str, str], float] = {}
    for row, timed in measured(list(rows_of(options)), options.ahead):
        key = row.task, row.precision
        if str(row) == "eager":
            alone[key] = timed.steps
        head = f"{row.task:<6}{row.precision:<10}{row!s:<32}"
        if timed.steps == 0:
            print(f"{head}{timed.note}", flush=True)
            continue
        times = f"{timed.steps / alone[key]:.1f}" if alone.get(key) else "?"
        numbers = f"{timed.steps:>10,.0f}{times:>9}{timed.start_s:>9.1f}{timed.memory:>7.1f}"
        print(f"{head}{numbers}  {timed.note}", flush=True)


def measured(rows: Sequence[Row], ahead: int) -> Iterator[tuple[Row, Timed]]:
    """Each row with what was found; so many are made ready side by side, and timed one after the other."""
    for start in range(0, len(rows), ahead):
        made = [Made(row) for row in rows[start : start + ahead]]
        try:
            for one in made:
                one.wait()
            for one in made:
                yield one.row, one.time()
        finally:
            for one in made:
                one.end()


def study(options: argparse.Namespace) -> int:
    """Time the command for a whole study, with empty compilers' caches and with the same filled."""
    arguments = ["--device", "cuda", "--workers", "1", "--fuse", "auto"]
    if options.runs != 64:
        arguments += ["--n-trials", str(options.runs)]
    if options.epochs:
        arguments += ["--set", f"search_space.epochs={options.epochs}"]
    print("\nhpsearch run fusing_1024.yaml, tf32, from the command to the prompt")
    print(f"{'caches':<8}{'wall s':>8}{'CPU s':>8}{'first epoch s':>15}{'runs':>7}{'epochs':>8}  groups")
    with tempfile.TemporaryDirectory() as caches:
        env = {"TORCHINDUCTOR_CACHE_DIR": caches, "TRITON_CACHE_DIR": caches, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
        for state in ("empty", "filled"):
            with tempfile.TemporaryDirectory() as folder:
                timed = fusing_study.run(
                    HERE / "fusing_1024.yaml", state, Path(folder), arguments=arguments, env=env, look=True
                )
            runs = sum(len(trial.runs) for trial in timed.results.trials)
            numbers = f"{timed.wall_s:>8.1f}{timed.cpu_s:>8.1f}{timed.first_s:>15.1f}{runs:>7,}{timed.epochs:>8,}"
            print(f"{state:<8}{numbers}  {'; '.join(timed.grouped)}", flush=True)
    return 0
