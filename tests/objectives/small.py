"""Training functions that behave: what the conformance of executors is tested with."""

import os
import subprocess
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset


def quadratic(run):
    """Three epochs of gradient descent on a square; deterministic in (lr, seed)."""
    weight = torch.randn(4, requires_grad=True)
    for epoch in range(3):
        loss = weight.square().sum()
        loss.backward()
        with torch.no_grad():
            weight -= run["lr"] * weight.grad
            weight.grad = None
        run.report(epoch, loss=loss.item())
    return loss.item()


def nothing(run):
    return 0.5


def endless(run):
    """Reports until it is stopped."""
    for epoch in range(100_000):
        time.sleep(0.01)
        run.report(epoch, loss=1.0)


def naps(run):
    time.sleep(1000)


def family(run):
    """A DataLoader with workers and a child in a session of its own, their process ids in a file; then it waits."""
    loader = DataLoader(TensorDataset(torch.arange(1000.0)), num_workers=2)
    batches = iter(loader)
    next(batches)
    child = subprocess.Popen(["sleep", "1234.5"], start_new_session=True)
    pids = [os.getpid(), os.getppid(), child.pid, *(worker.pid for worker in batches._workers)]
    Path(run["pids"]).write_text(" ".join(map(str, pids)) + "\n")
    time.sleep(1000)
