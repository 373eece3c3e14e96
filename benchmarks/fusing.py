"""What fusing gains: the same runs trained together as lanes, and one after the other.

    python benchmarks/fusing.py                         the digits MLP, 64 runs of 20 epochs, on the CPU
    python benchmarks/fusing.py --task cnn --lanes 8,16,32,64 --dropout 0
    python benchmarks/fusing.py --study                 hpsearch run studies/digits_random.yaml, --fuse auto and off
    python benchmarks/fusing.py --start [--device cuda] where the time before a group's first epoch goes
    python benchmarks/fusing.py --device cuda           models of MNIST's size on a GPU, with and without fusing

On the CPU each way has processes of its own, of one thread; first one process of each way works at a time, then one a
core. A round passes over the runs once each way, the next round in the opposite order, so that drift cancels; a ratio
is of one round, against solo, and the table has the median of the rounds. CPU time is the processes'
(``time.process_time``) and means something on a busy machine too; wall time needs a quiet one.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from contextlib import nullcontext
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusing_runs import Pass

STUDIES = Path(__file__).parent.parent / "studies"
TASKS = {"mlp": "DigitsMLP", "cnn": "DigitsCNN"}
#: of a validation loss, that fused and solo may differ by, relative to it; more, where one rounding makes a tenth of it
TOLERANCE = 1e-4


def passes(pipe: Connection, way: str, task: str, dropout: float | None) -> None:
    """A process that trains as many runs as it is told, over and over; None ends it."""
    import fusing_runs

    from hpsearch.objective import ObjectiveAddress

    address = ObjectiveAddress("digits.py", task, STUDIES)
    fixed = {} if dropout is None else {"dropout": dropout}
    while (job := pipe.recv()) is not None:
        runs = fusing_runs.drawn(job["runs"], epochs=job["epochs"], **fixed)
        if way.startswith("optuna"):
            import fusing_peer

            pipe.send(fusing_peer.train(address, runs, loader=way == "optuna, DataLoader"))
        else:
            lanes = 1 if way == "solo" else int(way.split()[1])
            with fusing_runs.one_rounding_off() if job["bent"] else nullcontext():
                pipe.send(fusing_runs.train(address, runs, lanes=lanes))


class Way:
    """The processes of one way to train."""

    def __init__(self, name: str, options: argparse.Namespace, cores: int) -> None:
        self.name = name
        self.pipes: list[Any] = []
        self.processes = []
        context = get_context("spawn")
        for _ in range(cores):
            mine, theirs = context.Pipe()
            arguments = (theirs, name, TASKS[options.task], options.dropout)
            process = context.Process(target=passes, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def train(self, cores: int, runs: int, epochs: int, *, bent: bool = False) -> tuple[float, list[Pass]]:
        """So many processes at once, each with all the runs: wall seconds, and what each did.

        ``bent``: from weights one rounding off.
        """
        began = perf_counter()
        for pipe in self.pipes[:cores]:
            pipe.send({"runs": runs, "epochs": epochs, "bent": bent})
        try:
            done = [pipe.recv() for pipe in self.pipes[:cores]]
        except EOFError:
            sys.exit(f"{self.name}: its process ended; its error is above")
        return perf_counter() - began, done

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def measure(ways: list[Way], cores: int, options: argparse.Namespace) -> dict[str, list[tuple[float, list[Pass]]]]:
    """Rounds over all ways, every second one in the opposite order."""
    table: dict[str, list[tuple[float, list[Pass]]]] = {way.name: [] for way in ways}
    for number in range(options.repeats):
        for way in ways if number % 2 == 0 else reversed(ways):
            table[way.name].append(way.train(cores, options.runs, options.epochs))
    return table


def show(table: dict[str, list[tuple[float, list[Pass]]]], cores: int) -> None:
    """Print a table: rates in the sum of the processes, and the ratios to solo."""

    def rates(name: str) -> tuple[list[float], list[float]]:
        steps = [(wall, sum(p.cpu_s for p in done), sum(p.steps for p in done)) for wall, done in table[name]]
        return [n / wall for wall, _, n in steps], [n / cpu for _, cpu, n in steps]

    at_once = f"{cores} process{'es' if cores > 1 else ''} at once"
    print(f"\n{at_once}, each with all runs (median of {len(table['solo'])} rounds)")
    heads = ("steps a CPU s", "times solo", "steps/s wall", "times solo", "CPU s a run", "wall s")
    print(f"{'':<20}" + "".join(f"{head:>15}" for head in heads))
    solo_wall, solo_cpu = rates("solo")
    for name, rounds in table.items():
        wall, cpu = rates(name)
        runs = sum(len(p.curves) for p in rounds[0][1])
        cells = [
            f"{statistics.median(cpu):,.0f}",
            spread([a / b for a, b in zip(cpu, solo_cpu, strict=True)]),
            f"{statistics.median(wall):,.0f}",
            spread([a / b for a, b in zip(wall, solo_wall, strict=True)]),
            f"{statistics.median(sum(p.cpu_s for p in done) / runs for _, done in rounds):.3f}",
            f"{statistics.median(seconds for seconds, _ in rounds):.2f}",
        ]
        print(f"{name:<20}" + "".join(f"{cell:>15}" for cell in cells))


def spread(ratios: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.1f}-{max(ratios):.1f})"


def difference(one: Pass, other: Pass) -> float:
    """The largest difference of a validation loss, relative to it, over all epochs of all runs."""
    if one.states != other.states or {k: len(c) for k, c in one.curves.items()} != {
        k: len(c) for k, c in other.curves.items()
    }:
        return math.inf
    pairs = [(a, b) for k, curve in one.curves.items() for a, b in zip(curve, other.curves[k], strict=True)]
    return max(abs(a - b) / abs(b) for a, b in pairs)


def on_cpu(options: argparse.Namespace) -> int:
    """Measure, print, and compare the results; the exit status."""
    cores = options.processes or len(os.sched_getaffinity(0))
    names = ["solo", *(f"fused {k}" for k in options.lanes)]
    if options.peer:
        names += ["optuna, slices", "optuna, DataLoader"]
    what = f"{TASKS[options.task]}, {options.runs} runs of {options.epochs} epochs"
    print(f"{what}, dropout {'searched' if options.dropout is None else options.dropout:}, one thread a process")
    ways = [Way(name, options, cores) for name in names]
    for way in ways:  # imports, the data, torch's own first times
        way.train(cores, min(options.runs, 64), 1)
    tables = {n: measure(ways, n, options) for n in dict.fromkeys((1, cores))}
    bent = ways[0].train(1, options.runs, options.epochs, bent=True)[1][0]
    for way in ways:
        way.close()
    for n, table in tables.items():
        show(table, n)
    return compare(tables, bent)


def compare(tables: dict[int, dict[str, list[tuple[float, list[Pass]]]]], bent: Pass) -> int:
    """Print how far fused and solo are apart, and solo from itself one rounding off; 1 where it is too far."""
    alone = tables[1]["solo"][0][1][0]
    worst, reasons = 0.0, set()
    for table in tables.values():
        for name in table:
            if name.startswith("fused"):
                worst = max([worst, *(difference(p, alone) for _, done in table[name] for p in done)])
                reasons |= {(name, p.engine, *p.reasons) for _, done in table[name] for p in done}
    least = difference(bent, alone)
    print(f"\nlargest relative difference of val_loss, of all epochs of all runs: fused against solo {worst:.1e},")
    print(f"solo against solo from weights one rounding (2**-23) off {least:.1e}")
    for said in sorted(reasons):
        print(": ".join(said))
    return int(worst > max(TOLERANCE, 10 * least))


def whole(text: str) -> list[int]:
    """``8,16,32``."""
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--task", choices=TASKS, default=None, help="mlp by default; on a GPU both")
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=None, help="20; 5 on a GPU")
    parser.add_argument("--lanes", type=whole, default=None, help="8,16,32,64: 64 by default; 16,64,256 on a GPU")
    parser.add_argument(
        "--precision", type=lambda text: text.split(","), default=None, help="float32,tf32,bf16: GPU only"
    )
    parser.add_argument("--dropout", type=float, default=None, help="the same for all runs; searched by default")
    parser.add_argument("--repeats", type=int, default=None, help="rounds; 2 by default")
    parser.add_argument("--processes", type=int, default=None, help="at once: one a core by default; 16 on a GPU")
    parser.add_argument("--ahead", type=int, default=1, help="GPU rows made ready side by side, then timed in turn")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without Optuna")
    parser.add_argument("--study", action="store_true", help="time the command instead, on a GPU with 1,024 runs")
    parser.add_argument("--start", action="store_true", help="where a group's start goes, instead; --lanes, --task")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.start:
        import fusing_start

        device = "cuda:0" if options.device == "cuda" else "cpu"
        return fusing_start.main(options.task or "mlp", (options.lanes or [256])[0], device)
    if options.device == "cuda":
        import fusing_gpu

        status: int = fusing_gpu.main(options)
        return status
    if options.study:
        import fusing_study

        return fusing_study.on_cpu(options.repeats or 2)
    options.task, options.epochs = options.task or "mlp", options.epochs or 20
    options.lanes, options.repeats = options.lanes or [64], options.repeats or 2
    return on_cpu(options)


if __name__ == "__main__":
    sys.exit(main())
