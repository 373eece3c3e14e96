"""``fusing.py --start``: where the time goes until a group's first epoch is reported, and until its second one is.

Wall seconds of each part, without the parts that it contains; on a GPU the device is waited for at the end of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: part -> where its functions are, and their names
PARTS = {
    "data": [("fusing_runs", "prepare"), ("hpsearch.training.member", "prepare")],
    "runs prepared": [("hpsearch.training.groups", "prepare_member")],
    "models made": [("hpsearch.training.member", "build")],
    "models compared": [
        ("hpsearch.training.member", "structure_of"),
        ("hpsearch.training.member", "shared_state"),
    ],
    "lanes entered": [("hpsearch.training.group", "Group._enter")],
    "probe": [("hpsearch.training.group", "probe")],
    "how many lanes pay": [("hpsearch.training.group", "lanes_that_pay")],
    "compiled": [("hpsearch.training.step", "Steps._compiled")],
    "captured": [("hpsearch.training.step", "Steps._graph")],
    "trained": [("hpsearch.training.fused", "FusedTraining.train_epoch")],
    "validated": [("hpsearch.training.validation", "Validation.of")],
    "files written": [("hpsearch.training.group", "_at_once")],
}


class Clock:
    """Seconds by part, each without those inside it."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._inside = device, [0.0]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the body."""
        began = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            if self._device != "cpu":
                import torch

                torch.cuda.synchronize()
            whole = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._inside.pop()
            self._inside[-1] += whole

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed


def put_on(clock: Clock) -> None:
    """Time the parts of this process."""
    from importlib import import_module

    for name, places in PARTS.items():
        for module, path in places:
            holder: Any = import_module(module)
            *outer, last = path.split(".")
            for one in outer:
                holder = getattr(holder, one)
            setattr(holder, last, clock.wrap(name, getattr(holder, last)))


def main(task: str, lanes: int, device: str) -> int:
    """Train two epochs of so many lanes and print the parts; the exit status."""
    clock = Clock(device)
    began = time.perf_counter()
    with clock.part("torch imported"):
        import torch
    if device != "cpu":
        with clock.part("device made ready"):
            torch.zeros(1, device=device)
    with clock.part("hpsearch imported"):
        import fusing_gpu
        import fusing_runs
        from mnist_size import FASHION_MNIST
    put_on(clock)
    torch.set_float32_matmul_precision("high")
    row = fusing_gpu.Row(task, "tf32", "fused", lanes=lanes, device=device)
    runs = fusing_runs.drawn(lanes, images=FASHION_MNIST, epochs=5)
    offset = time.perf_counter() - began
    passed = fusing_runs.train(row.address, runs, lanes=lanes, device=device, stop_after=2, only_fused=True)
    print(f"{task}, {passed.engine}, {fusing_gpu.TASKS[task][0]} of MNIST's size; wall seconds, two epochs")
    for name, seconds in clock.seconds.items():
        print(f"  {name:<22}{seconds:>8.2f}")
    print(f"  first epoch reported after {passed.first_s:.2f} s, the second after {passed.marks[1]:.2f} s")
    print(f"  of {offset + passed.wall_s:.2f} s in all")
    for reason in passed.reasons:
        print(f"  {reason}")
    return 0
