"""From which size on lanes of convolutions are slower than runs alone on a CPU (``measure.LARGEST_CONVOLUTIONS``).

    python benchmarks/convolutions.py [--lanes 16]

Small networks of two convolutions; a worker trains runs one after the other, and as lanes, each for some epochs, by
CPU time. Probing and stacking the lanes count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from pathlib import Path

import torch
from torch import nn

from hpsearch.executor import Assignment
from hpsearch.objective import Data, ObjectiveAddress, TrainingTask, Workload
from hpsearch.space import Params
from hpsearch.training.groups import Trainer
from hpsearch.training.measure import LARGEST_CONVOLUTIONS, counted
from hpsearch.trial import RunKey

#: name -> channels, side of the image, channels of the image, examples, batch, one dimension only
SIZES = {
    "tiny": (4, 8, 1, 1200, 32, False),
    "signal": (8, 32, 4, 1200, 64, True),
    "digits": (8, 8, 1, 1200, 64, False),
    "colour": (8, 16, 3, 600, 32, False),
    "digits, wide": (16, 8, 1, 1200, 64, False),
    "signal, wide": (32, 64, 4, 1200, 64, True),
    "MNIST": (8, 28, 1, 600, 64, False),
}


class Images(TrainingTask):
    """Noise: what is learned of it is of no account."""

    epochs = 15

    def data(self) -> Data:
        _, side, depth, examples, _, flat = SIZES[str(self.params["size"])]
        numbers = torch.Generator().manual_seed(0)
        inputs = torch.randn(examples, depth, *[side] * (1 if flat else 2), generator=numbers)
        return Data(inputs, torch.randint(0, 10, (examples,), generator=numbers))

    def model(self, params: Params) -> nn.Module:
        return network(str(params["size"]))


def network(size: str) -> nn.Module:
    """Of two convolutions and a linear layer."""
    width, side, depth, _, _, flat = SIZES[size]
    layer, pool = (nn.Conv1d, nn.MaxPool1d) if flat else (nn.Conv2d, nn.MaxPool2d)
    rest = 2 * width * (side // 4) ** (1 if flat else 2)
    first = [layer(depth, width, 3, padding=1), nn.ReLU(), pool(2)]
    second = [layer(width, 2 * width, 3, padding=1), nn.ReLU(), pool(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(rest, 10))


def seconds(size: str, runs: int, lanes: int) -> float:
    """CPU seconds a run."""
    batch = SIZES[size][4]
    waiting = deque(
        Assignment(run=RunKey(k, 0), params={"size": size, "batch_size": batch, "lr": 1e-3 * (k + 1)}, attempt=1)
        for k in range(runs)
    )
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(
            study="convolutions",
            objective=ObjectiveAddress(Path(__file__).name, "Images", Path(__file__).parent),
            metric="val_loss",
            direction="minimize",
            seed=0,
            lanes=lanes,
            fixed_lanes=True,
            files=Path(folder),
        )

        def more() -> list[Assignment]:
            return [waiting.popleft() for _ in range(min(len(waiting), lanes))]

        began = time.process_time()
        Trainer("cpu").train(more(), workload, send=lambda reports: None, stopped=lambda run: False, more=more)
        return (time.process_time() - began) / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=16)
    lanes = parser.parse_args().lanes
    torch.set_num_threads(1)
    print(f"| | millions a batch | alone s | {lanes} lanes s | times alone | by default |\n|---|---|---|---|---|---|")
    for size, (_, side, depth, _, batch, flat) in SIZES.items():
        model = network(size)
        with counted(model) as found, torch.no_grad():
            model(torch.zeros(batch, depth, *[side] * (1 if flat else 2)))
        seconds(size, 1, 1)  # the first one pays for what is made once
        alone, together = seconds(size, 4, 1), seconds(size, lanes, lanes)
        how = "alone" if found[0] > LARGEST_CONVOLUTIONS else "lanes"
        print(
            f"| {size} | {found[0] / 1e6:.2g} | {alone:.2f} | {together:.2f} | {alone / together:.2f} | {how} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
