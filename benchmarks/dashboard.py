"""The dashboard on a large study, beside optuna-dashboard on the same trials: bytes, milliseconds, memory.

    python benchmarks/dashboard.py                                       10,000 trials x 3 seeds x 20 epochs
    python benchmarks/dashboard.py --trials 1000
    python benchmarks/dashboard.py --optuna VENV/bin/optuna-dashboard    (pip install optuna-dashboard there)

Both serve an SQLite file to one headless Chromium on this machine. Optuna has no seeds: it gets each trial's mean, and
the mean curve over the seeds. First paint is the browser's own entry; charts are there when the first page's pictures
are drawn (ours: every one of them; theirs: the first plot). A chart that is not there after two minutes is given up.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import hpsearch as hp
from hpsearch.objective import ObjectiveAddress
from hpsearch.store import Claim, Score, StudyRecord, Turn, this_process
from hpsearch.stores.sql import open_store
from hpsearch.study import fingerprint, spec_of
from hpsearch.trial import EpochReport, Finished, Run, RunKey, State, Trial, score

SPACE = hp.SearchSpace(
    {
        "lr": hp.Float(1e-5, 1.0, log=True),
        "momentum": hp.Float(0.5, 0.999, reverse_log=True),
        "dropout": hp.Float(0.0, 0.5),
        "weight_decay": hp.Float(1e-6, 1e-1, log=True),
    }
)
SEEDS, EPOCHS, EACH = 3, 20, 200
#: what an address answers is given up after so many seconds
PATIENCE_S = 120
PAGES = ["", "/trials", "/t/7", "/t/7/0", "/params", "/compare?a=7&b=8", "/diagnostics", "/workers", "/ship?t=7"]
ANSWERS = [
    "", "/trials", "/trials?format=columns", "/trials/7", "/figures/history", "/figures/curves", "/figures/lr_curve",
    "/figures/parallel", "/figures/seeds", "/figures/timeline", "/importance",
]  # fmt: skip


def curve_of(params: Any, seed: int, number: int) -> list[float]:
    """A made-up learning curve: a U over the learning rate, with noise by trial and seed."""
    source = random.Random(f"{number} {seed}")
    floor = 0.05 + 0.02 * (math.log10(params["lr"]) + 2) ** 2 + 0.05 * params["dropout"] + source.gauss(0, 0.01)
    return [floor + math.exp(-epoch / 4) + abs(source.gauss(0, 0.005)) for epoch in range(EPOCHS)]


def make_record(url: str, folder: Path, n: int) -> None:
    """A study of ``n`` complete trials, written by turns as a coordinator would."""
    address = ObjectiveAddress("noop.py", "train", folder)
    study = hp.Study(
        name="large", objective=address, search_space=SPACE, strategy=hp.Random(), metric="val_loss", n_trials=n,
        seeds=tuple(range(SEEDS)),
    )  # fmt: skip
    spec = spec_of(study)
    store = open_store(url)
    record = StudyRecord(name="large", spec=spec, fingerprint=fingerprint(spec), code_hash="0" * 64)
    store.open(record, this_process(), lease_s=600)
    points = random.Random(0)
    for first in range(0, n, EACH):
        trials = []
        for number in range(first, min(first + EACH, n)):
            params = {name: p.from_unit(points.random()) for name, p in SPACE.searched.items()}
            runs = tuple(Run(key=RunKey(number, seed)) for seed in range(SEEDS))
            trials.append(Trial(number=number, params=params, batch=first // EACH, history_seq=first, runs=runs))
        store.write(Turn(trials=trials, claims=[Claim(run=run.key, attempt=1) for t in trials for run in t.runs]))
        store.write(finished(trials))
    store.close("complete")


def finished(trials: list[Trial]) -> Turn:
    """All runs of these trials have ended."""
    epochs, ends, scores = [], [], []
    for trial in trials:
        runs = []
        for run in trial.runs:
            told = curve_of(trial.params, run.key.seed, trial.number)
            epochs += [
                EpochReport(run=run.key, attempt=1, epoch=epoch, metrics={"val_loss": value})
                for epoch, value in enumerate(told)
            ]
            end = {"value": min(told), "best_epoch": told.index(min(told)), "last_epoch": EPOCHS - 1, "seconds": 1.0}
            ends.append(
                Finished(run=run.key, attempt=1, state=State.COMPLETE, worker=f"host:{trial.number % 4}", **end)
            )
            runs.append(Run(key=run.key, state=State.COMPLETE, value=min(told)))
        state, value, sd = score(runs)
        scores.append(Score(number=trial.number, state=state, value=value, sd=sd, tell_seq=trial.number + 1))
    return Turn(epochs=epochs, finished=ends, scores=scores)


IMPORT = """
import json, sys, optuna
from optuna.distributions import FloatDistribution as F
from optuna.trial import create_trial
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(study_name="large", storage=sys.argv[1])
space = {"lr": F(1e-5, 1, log=True), "momentum": F(0.5, 0.999), "dropout": F(0, 0.5)}
space["weight_decay"] = F(1e-6, 0.1, log=True)
study.add_trials([
    create_trial(params=params, distributions=space, value=value, intermediate_values=dict(enumerate(curve)))
    for params, value, curve in map(json.loads, sys.stdin)
])
"""


def make_optuna(url: str, python: Path, results: hp.Results) -> None:
    """The same trials in Optuna's storage: each trial's mean over the seeds."""
    lines = []
    for trial in results.trials:
        curves = [curve_of(trial.params, seed, trial.number) for seed in range(SEEDS)]
        lines.append(
            json.dumps([dict(trial.params), trial.value, [sum(at) / SEEDS for at in zip(*curves, strict=True)]])
        )
    subprocess.run([python, "-c", IMPORT, url], input="\n".join(lines), text=True, check=True)


@contextmanager
def serving(command: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """A server, its address and its process."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0], psutil.Process(process.pid)
                return
        raise SystemExit(f"{command[0]} did not start")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def get(url: str) -> tuple[float, float, int, int]:
    """(milliseconds, the same when asked again, bytes, bytes gzipped)."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            body = answer.read()
        times.append(1000 * (time.perf_counter() - start))
    return times[0], times[1], len(body), len(gzip.compress(body, 6))


def looked_at(url: str, drawn: str) -> str:
    """First paint and the charts of a page, in a browser."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        page.goto(url, wait_until="commit")
        there = False
        while not there and time.perf_counter() - start < PATIENCE_S:
            page.wait_for_timeout(100)
            there = bool(page.evaluate(drawn))
        seconds = time.perf_counter() - start
        paint = page.evaluate("performance.getEntriesByName('first-paint').map((one) => one.startTime)[0] ?? NaN")
        browser.close()
    return f"first paint {paint:,.0f} ms, charts {f'{seconds:.1f} s' if there else f'not within {PATIENCE_S} s'}"


def memory(process: psutil.Process) -> str:
    """Resident now and at its largest, of the server alone."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    now, most = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) // 1024 for name in ("VmRSS", "VmHWM"))
    return f"{now} MB, at most {most} MB; CPU {sum(process.cpu_times()[:2]):.1f} s"


def measure_ours(url: str) -> None:
    """Pages, answers, browser, memory."""
    with serving([sys.executable, "-m", "hpsearch", "dashboard", "--db", url, "--port", "0"]) as (root, process):
        print("hpsearch dashboard: ms first, ms again, kB, kB gzipped")
        for address in [*(f"/s/large{page}" for page in PAGES), *(f"/api/v1/studies/large{path}" for path in ANSWERS)]:
            first, again, size, small = get(root + address)
            print(f"  {address:48} {first:7.0f} {again:7.0f} {size / 1000:8.1f} {small / 1000:7.1f}")
        # Those in sight; what mattered is found out meanwhile, in another process.
        drawn = "document.querySelectorAll('figure[data-drawn=yes]').length >= 3"
        print("  overview:", looked_at(f"{root}/s/large", drawn))
        print("  memory:", memory(process))


def measure_optuna(url: str, program: str) -> None:
    """The same of optuna-dashboard."""
    with serving([program, url, "--host", "127.0.0.1", "--port", "8899"]) as (root, process):
        print("optuna-dashboard: ms first, ms again, kB, kB gzipped")
        for _ in range(100):  # it says where it is before it is there
            with contextlib.suppress(OSError):
                urllib.request.urlopen(root, timeout=5).close()
                break
            time.sleep(0.2)
        for address in ["/dashboard", "/api/studies", "/api/studies/1"]:
            try:
                first, again, size, small = get(root + address)
            except OSError as error:
                print(f"  {address:48} no answer: {error}")
                continue
            print(f"  {address:48} {first:7.0f} {again:7.0f} {size / 1000:8.1f} {small / 1000:7.1f}")
        print(
            "  study:", looked_at(f"{root}/dashboard/studies/1", "document.querySelector('.main-svg .trace') !== null")
        )
        print("  memory:", memory(process))


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--optuna", type=Path, help="the program optuna-dashboard; without it, ours alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/record.db"
        start = time.process_time()
        make_record(url, folder, options.trials)
        spent = time.process_time() - start
        print(f"{options.trials:,} trials x {SEEDS} seeds x {EPOCHS} epochs, written in {spent:.0f} CPU s")
        measure_ours(url)
        if options.optuna is not None:
            theirs = f"sqlite:///{folder}/optuna.db"
            make_optuna(theirs, options.optuna.parent / "python", hp.load("large", url))
            measure_optuna(theirs, str(options.optuna))


if __name__ == "__main__":
    main()
