"""The whole command, for ``fusing.py --study``: ``hpsearch run`` with and without fusing, each into a fresh database.

Wall time is from the command to the prompt. CPU time is that of the command and of all processes it has started and
waited for: coordinator, workers and their guards.
"""

from __future__ import annotations

import math
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

import fusing_runs

import hpsearch as hp
from hpsearch.objective import ObjectiveAddress
from hpsearch.results import Results
from hpsearch.trial import Run, RunKey

STUDY = Path(__file__).parent.parent / "studies" / "digits_random.yaml"
#: the stated tolerance: values are the same, relative to them, to ``TOLERANCE``; where they are not, its curve is,
#: to ``ROUNDED`` times what a rounding at each of its updates makes of it alone, the most of ``ROUNDINGS`` tries.
#: Curves, since a value is a best epoch: of two curves that have nothing in common it may yet be the same one.
TOLERANCE = 1e-4
ROUNDINGS = 5
ROUNDED = 3
#: seconds between two looks whether the first epoch is recorded
LOOK_S = 0.1


@dataclass(frozen=True)
class Timed:
    """One command."""

    wall_s: float
    cpu_s: float
    #: from the command to the first epoch in the database; nan where nobody looked
    first_s: float
    results: Results
    #: run -> the metric of each epoch
    curves: Mapping[RunKey, list[float]]
    #: how groups were trained, and why not otherwise
    grouped: Sequence[str] = ()

    @property
    def epochs(self) -> int:
        """Epochs of all runs."""
        runs = [run for trial in self.results.trials for run in trial.runs]
        return sum(run.last_epoch + 1 for run in runs if run.last_epoch is not None)

    @property
    def engines(self) -> str:
        """How its runs were trained."""
        return "; ".join(sorted({run.engine for trial in self.results.trials for run in trial.runs}))


def run(
    study: Path, name: str, folder: Path, *, arguments: Sequence[str], env: Mapping[str, str], look: bool = False
) -> Timed:
    """Run a study's command into a fresh database in the folder."""
    url = f"sqlite:///{folder / 'hpsearch.db'}"
    fixed = ["--db", url, "--name", name, "--progress", "none", "--yes", "--quiet"]
    command = [sys.executable, "-m", "hpsearch", "run", str(study), *fixed, *arguments]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **env})
    first_s = math.nan
    while process.poll() is None:
        if look and math.isnan(first_s) and has_epoch(folder / "hpsearch.db"):
            first_s = time.perf_counter() - began
        time.sleep(LOOK_S if look and math.isnan(first_s) else 0.01)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    results = hp.load(name, url)
    return Timed(wall_s, cpu_s, first_s, results, curves_of(results), groups_in(folder / "hpsearch.db"))


def groups_in(database: Path) -> list[str]:
    """What the record says of how groups were trained."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT reason, details ->> 'reason' FROM decision WHERE kind = 'grouped'")
        return [": ".join(filter(None, row)) for row in rows]


def has_epoch(database: Path) -> bool:
    """Whether a metric is recorded."""
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM metric LIMIT 1").fetchone() is not None
    except sqlite3.Error:  # not made yet, or just being written
        return False


def differences(one: Results, other: Results) -> tuple[bool, dict[RunKey, float]]:
    """Whether the trials are the same; of each run, the relative difference of its values (inf: another end)."""
    ends = [{run.key: run for trial in results.trials for run in trial.runs} for results in (one, other)]
    same = [t.params for t in one.trials] == [t.params for t in other.trials] and ends[0].keys() == ends[1].keys()
    return same, {key: apart(ends[0][key], ends[1][key]) for key in ends[0].keys() & ends[1].keys()}


def apart(one: Run, other: Run) -> float:
    """The relative difference of two runs' values; inf where they ended in different states."""
    if one.state != other.state:
        return math.inf
    if one.value is None or other.value is None:
        return 0.0
    return abs(one.value - other.value) / abs(other.value)


def on_cpu(repeats: int) -> int:
    """Alternate ``--fuse auto`` and ``--fuse off``, print a table, and compare what they found; the exit status."""
    times: dict[str, list[Timed]] = {"auto": [], "off": []}
    for number in range(repeats):
        for fuse in ("auto", "off") if number % 2 == 0 else ("off", "auto"):
            with tempfile.TemporaryDirectory() as folder:
                arguments = ["--fuse", fuse, "--device", "cpu"]
                times[fuse].append(run(STUDY, f"digits-{fuse}", Path(folder), arguments=arguments, env={}))
    print(f"hpsearch run {STUDY.name}, {len(times['auto'][0].results.trials)} trials, best of {repeats}")
    print(f"{'':<12}{'wall s':>10}{'CPU s':>10}{'epochs':>10}  trained")
    for fuse, each in times.items():
        wall, cpu = min(t.wall_s for t in each), min(t.cpu_s for t in each)
        print(f"{'--fuse ' + fuse:<12}{wall:>10.1f}{cpu:>10.1f}{each[0].epochs:>10,}  {each[0].engines}")
    return compare(times["auto"][0], times["off"][0])


def compare(together: Timed, one_by_one: Timed) -> int:
    """Print how far the two studies agree; 0 where trials are the same and values are within the tolerance."""
    fused, solo = together.results, one_by_one.results
    same, apart = differences(fused, solo)
    far = {key: value for key, value in apart.items() if value > TOLERANCE}
    best = [results.best.number if results.best else None for results in (fused, solo)]
    print(f"trials: {'the same' if same else 'NOT the same'}; best: trial {best[0]} fused, {best[1]} solo")
    print(f"values of {len(apart) - len(far)} of {len(apart)} runs within {TOLERANCE:g} of each other")
    once = again(solo, sorted(apart), fusing_runs.one_rounding_off(0))
    count = sum(farthest([min(curve)], [solo_value(solo, key)]) > TOLERANCE for key, curve in once.items())
    print(f"one rounding of the first weights, alone, takes {count} of them farther than that from themselves")
    return int(not same or beyond(together, one_by_one, far) > 0)


def beyond(fused: Timed, solo: Timed, far: Mapping[RunKey, float]) -> int:
    """Print of each run how far its curves are apart, fused from alone, and alone from itself with roundings.

    Returns:
        How many are beyond the tolerance.
    """
    if not far:
        return 0
    print(
        f"the others: how far values, and curves, are apart; how far curves are with roundings, in {ROUNDINGS} tries:"
    )
    tries = [again(solo.results, sorted(far), fusing_runs.roundings_off(number)) for number in range(ROUNDINGS)]
    count = 0
    for key, value in sorted(far.items()):
        params, alone = fused.results.trials[key.trial].params, solo.curves[key]
        mine, most = farthest(fused.curves[key], alone), max(farthest(curve[key], alone) for curve in tries)
        setting = f"lr {params['lr']:.3g}, momentum {params['momentum']:.3g}"
        print(f"  run {key}: {setting}: {value:.1e}, {mine:.1e}; {most:.1e}")
        count += mine > ROUNDED * most
    print(f"beyond {ROUNDED} times that: {count}")
    return count


def farthest(curve: Sequence[float], other: Sequence[float]) -> float:
    """The largest relative difference of an epoch; inf where one has ended before the other."""
    if len(curve) != len(other):
        return math.inf
    return max(abs(a - b) / abs(b) for a, b in zip(curve, other, strict=True))


def curves_of(results: Results) -> dict[RunKey, list[float]]:
    """Run -> the metric of each epoch."""
    frame = results.curves_dataframe()
    groups = frame[frame["metric"] == "val_loss"].sort_values("epoch").groupby(["trial", "seed"])["value"]
    return {RunKey(int(trial), int(seed)): list(values) for (trial, seed), values in groups}


def solo_value(solo: Results, key: RunKey) -> float:
    """What a run alone is worth."""
    values = [run.value for run in solo.trials[key.trial].runs if run.key == key]
    return math.nan if values[0] is None else values[0]


def again(solo: Results, keys: Sequence[RunKey], bent: AbstractContextManager[None]) -> dict[RunKey, list[float]]:
    """The curves of runs that train alone once more, bent."""
    address = ObjectiveAddress("digits.py", "DigitsMLP", STUDY.parent)
    params = [solo.trials[key.trial].params for key in keys]
    with bent:
        passed = fusing_runs.train(address, params, lanes=1, seeds=[key.seed for key in keys])
    return {key: passed.curves.get(number, [math.nan]) for number, key in enumerate(keys)}
