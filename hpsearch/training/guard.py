"""What training code may change in a process, put back after each run so that nothing leaks into the next."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

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
    restore: list[Callable[[], object]] = [
        partial(put_flags, flags()),
        partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        partial(torch.set_num_threads, torch.get_num_threads()),
        partial(os.chdir, os.getcwd()),  # noqa: PTH109
        partial(sys.path.__setitem__, slice(None), list(sys.path)),
    ]
    return restore + _generators()


def flags() -> dict[str, Any]:
    """What torch has for the whole process: types, devices, precision, determinism."""
    return {name: get() for name, (get, _) in _FLAGS.items()}


def put_flags(values: Mapping[str, Any]) -> None:
    """Set some of them."""
    for name, value in values.items():
        _FLAGS[name][1](value)


def _generators() -> list[Callable[[], object]]:
    restore: list[Callable[[], object]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
        partial(torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        restore.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    return restore


def _default_device() -> torch.device | None:
    device = torch.get_default_device()
    # "cpu" is what get_default_device says when nothing is set; None sets nothing, and costs no call per operation.
    return None if device.type == "cpu" else device


def _determinism() -> tuple[bool, bool]:
    """Whether only deterministic algorithms are allowed, and whether the others merely warn."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _put_back_determinism(found: tuple[bool, bool]) -> None:
    if _determinism() != found:  # to say it imports torch's compiler: 2 s of each worker's start
        torch.use_deterministic_algorithms(found[0], warn_only=found[1])


def _flag(module: object, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return partial(getattr, module, name), partial(setattr, module, name)


_FLAGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default_device": (_default_device, torch.set_default_device),
    "deterministic": (_determinism, _put_back_determinism),
    "anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    **{
        f"cudnn.{name}": _flag(torch.backends.cudnn, name)
        for name in ("enabled", "deterministic", "benchmark", "allow_tf32")
    },
    "matmul.allow_tf32": _flag(torch.backends.cuda.matmul, "allow_tf32"),
}
