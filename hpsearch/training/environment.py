"""Where a run was trained: versions, device, commit. No environment variables, no secrets."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from hpsearch.trial import Environment

#: packages that decide a result, or the suggestions that led to it
PACKAGES = ("hpsearch", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "optuna")
GIT_TIMEOUT_S = 5.0


@lru_cache
def environment(study_dir: Path, device: str) -> Environment:
    """The environment of this process, looked up once. Without git, or outside a checkout, the commit is empty."""
    commit = _git(study_dir, "rev-parse", "HEAD")
    changes = _git(study_dir, "status", "--porcelain", "--untracked-files=no") if commit else ""
    name = f" ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") and torch.cuda.is_available() else ""
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        device=f"{device}{name}",
        machine=f"{platform.platform()}, {_cpu_model()}",
        git_commit=commit,
        git_dirty=bool(changes),
        packages={name: found for name in PACKAGES if (found := _version(name))},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    # Without optional locks: reading the status must not disturb a user's git in the same folder.
    command = [git, "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
