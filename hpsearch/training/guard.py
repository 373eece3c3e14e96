"""What training code may change in a process, put back after each run so that nothing leaks into the next."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed random, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def clean_process(threads: int) -> Iterator[None]:
    """Run the body with so many torch threads; afterwards everything of the process is as it was before."""
    restore = _restorers()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


def _restorers() -> list[Callable[[], object]]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    flags: list[tuple[object, str]] = [(cudnn, n) for n in ("enabled", "deterministic", "benchmark", "allow_tf32")]
    flags += [(matmul, "allow_tf32")]
    device = torch.get_default_device()
    # "cpu" is what get_default_device says when nothing is set; None sets nothing, and costs no call per operation.
    plain = None if device.type == "cpu" else device
    restore: list[Callable[[], object]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(torch.set_default_dtype, torch.get_default_dtype()),
        partial(torch.set_default_device, plain),
        partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        partial(torch.set_num_threads, torch.get_num_threads()),
        partial(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled()),
        partial(torch.autograd.set_detect_anomaly, torch.is_anomaly_enabled()),
        partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        *[partial(setattr, module, name, getattr(module, name)) for module, name in flags],
        partial(os.chdir, os.getcwd()),  # noqa: PTH109
        partial(sys.path.__setitem__, slice(None), list(sys.path)),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        restore.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    return restore
