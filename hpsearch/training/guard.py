"""What training code may change in a process, put back after each run so that nothing leaks into the next."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

#: malloc.h of glibc
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def seed_everything(seed: int) -> None:
    """Seed random, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the body with everything seeded; afterwards random numbers go on where they stood."""
    restore = _generators()
    seed_everything(seed)
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


@contextmanager
def no_garbage() -> Iterator[None]:
    """Collect none within the body, where much is made that stays: to look through it again and again takes long."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def keep_memory() -> None:
    """Let the C library keep freed memory for the next step, where it can be told so (glibc).

    By default every tensor above 128 KiB is given back and faulted in again, page by page, at each step: a quarter of
    a fused step on a CPU.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most it takes
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_TOP_PAD, 64 << 20)


def return_memory() -> None:
    """Undo ``keep_memory`` for blocks of 1 MiB and more: where each batch comes from the host anew, freed ones lie in
    between others and are not found again (glibc's aligned blocks), and the process grows by a gigabyte.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 20)
        mallopt(_M_TOP_PAD, 0)


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
        partial(torch.set_default_dtype, torch.get_default_dtype()),
        partial(torch.set_default_device, plain),
        partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        partial(torch.set_num_threads, torch.get_num_threads()),
        partial(_put_back_determinism, *_determinism()),
        partial(torch.autograd.set_detect_anomaly, torch.is_anomaly_enabled()),
        partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        *[partial(setattr, module, name, getattr(module, name)) for module, name in flags],
        partial(os.chdir, os.getcwd()),  # noqa: PTH109
        partial(sys.path.__setitem__, slice(None), list(sys.path)),
    ]
    return restore + _generators()


def _generators() -> list[Callable[[], object]]:
    restore: list[Callable[[], object]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
        partial(torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        restore.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    return restore


def _determinism() -> tuple[bool, bool]:
    """Whether only deterministic algorithms are allowed, and whether the others merely warn."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _put_back_determinism(mode: bool, warn_only: bool) -> None:
    if _determinism() != (mode, warn_only):  # to say it imports torch's compiler: 2 s of each worker's start
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
