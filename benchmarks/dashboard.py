"""The dashboard on a large study beside optuna-dashboard: bytes, CPU, first paint, drawn charts, memory.

    python -m benchmarks.dashboard                                  10,000 trials x 3 seeds x 20 epochs, hpsearch alone
    python -m benchmarks.dashboard --optuna venv/bin/python         a Python that has optuna-dashboard: beside it
    python -m benchmarks.dashboard --db sqlite:////tmp/large.db     a record that benchmarks/dashboard_record.py made

Each server is a process of its own on 127.0.0.1. CPU is the server's (what it starts aside), wall time is the caller's:
with other work on the machine CPU is what counts. Memory is the server's peak (VmHWM). Pages are opened in headless
Chromium (playwright, ``--chromium``); charts count as drawn when no picture of the page is missing.

Ends with 1 where ours misses an aim, and says which: 150 kB of a page, and of an answer as it is sent; 0.5 s an answer;
1 s to the first paint and 5 s to all charts; 250 MB of the server.
"""

from __future__ import annotations

import argparse
import gzip
import math
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

from benchmarks.dashboard_record import OPTUNA, STUDY, fill, for_optuna
from hpsearch.pictures import PICTURES

PAGES = ("/", *(f"/s/{STUDY}{path}" for path in ("", "/trials", "/params", "/rounds", "/grid-vs-random",
         "/compare?t=5&t=9", "/diagnostics", "/workers", "/ship", "/t/7", "/t/7/0")))  # fmt: skip
API = f"/api/v1/studies/{STUDY}"
ANSWERS = ("/api/v1/studies", *(f"{API}{path}" for path in ("", "/trials", "/trials?format=columns", "/importance",
           "/rounds", "/workers")), *(f"{API}/figures/{name}" for name in PICTURES))  # fmt: skip
#: opened in a browser, with the pictures that are far down
SEEN = (f"/s/{STUDY}", f"/s/{STUDY}/params", f"/s/{STUDY}/workers")
DRAWN = "[...document.querySelectorAll('figure[data-figure]')].every((f) => f.dataset.drawn)"
#: a plot with data in it: empty axes are there before the trials are
OPTUNA_DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].some((p) => p.data?.some((t) => t.x?.length > 999))"
LONGEST_S = 120
#: kB of a page's HTML, or of an answer on the wire; seconds of an answer, to the first paint, to the last chart; MB
MOST_KB, ANSWER_S, PAINT_S, CHARTS_S, MOST_MB = 150, 0.5, 1.0, 5.0, 250


class Server:
    """A server process, and what it costs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.base = psutil.Process(process.pid), f"http://127.0.0.1:{port}"

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def peak_mb(self) -> float:
        told = Path(f"/proc/{self.process.pid}/status").read_text()
        return float(next(line for line in told.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e3

    def get(self, path: str) -> tuple[float, float, int, int]:
        """(CPU ms, wall ms, bytes on the wire, bytes of the content) of an answer."""
        cpu, wall = self.cpu(), time.perf_counter()
        with urlopen(Request(self.base + path, headers={"Accept-Encoding": "gzip"}), timeout=LONGEST_S) as answer:
            sent = answer.read()
            whole = gzip.decompress(sent) if answer.headers.get("Content-Encoding") == "gzip" else sent
        return (self.cpu() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3, len(sent), len(whole)


@contextmanager
def serving(command: list[str], port: int, ready: str) -> Iterator[Server]:
    """A server, from its first answer."""
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(process, port)
    try:
        until = time.monotonic() + LONGEST_S
        while True:
            try:
                server.get(ready)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{' '.join(command)} does not answer") from None
                time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def above(found: float, aim: float, unit: str, what: str) -> list[str]:
    """The aim that is missed, in words; [] where it is met."""
    return [f"{what}: {found:.4g} {unit}, and {aim:g} {unit} is the aim"] if found > aim else []


def show(server: Server, what: str, paths: tuple[str, ...], *, html: bool) -> list[str]:
    """Ask for each twice, and print what it took: at a new revision, and then again.

    Returns:
        the aims that are missed; of ``html`` the size before it is compressed counts, and no time.
    """
    print(f"\n{what:<52}{'CPU ms':>8}{'again':>7}{'wall ms':>9}{'kB':>8}{'kB gz':>8}", flush=True)
    missed = []
    for path in paths:
        first, again = server.get(path), server.get(path)
        print(f"{path:<52}{first[0]:>8.0f}{again[0]:>7.0f}{first[1]:>9.0f}{first[3] / 1e3:>8.1f}{first[2] / 1e3:>8.1f}")
        missed += above(first[3 if html else 2] / 1e3, MOST_KB, "kB", path)
        missed += [] if html else above(first[1] / 1e3, ANSWER_S, "s", path)
    return missed


def look(base: str, paths: tuple[str, ...], drawn: str, chromium: str) -> list[str]:
    """Open pages in a browser, each in a new one; the aims that are missed."""
    from playwright.sync_api import Error, sync_playwright

    print(f"\n{'in Chromium':<52}{'first paint':>12}{'charts':>9}{'kB':>9}   ms")
    missed = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for path in paths:
            # asking for what is drawn is a script, which the page itself would not allow
            page = browser.new_page(viewport={"width": 1400, "height": 4000}, bypass_csp=True)
            page.goto(base + path, wait_until="commit")
            try:
                page.wait_for_function(drawn, timeout=LONGEST_S * 1000)
                took = page.evaluate("performance.now()") / 1e3
            except Error:
                took = math.inf
            seen: Any = page.evaluate(
                "[performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1, "
                "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)]"
            )
            words = f"{took * 1e3:.0f}" if took < math.inf else f"> {LONGEST_S} s"
            print(f"{path:<52}{seen[0]:>12.0f}{words:>9}{seen[1] / 1e3:>9.0f}", flush=True)
            missed += above(seen[0] / 1e3 if seen[0] >= 0 else math.inf, PAINT_S, "s", f"{path}, first paint")
            missed += above(took, CHARTS_S, "s", f"{path}, charts")
            page.close()
        browser.close()
    return missed


def optunas(python: str, url: str, trials: int, seeds: int, epochs: int) -> None:
    """Store the same trials with Optuna."""
    process = subprocess.Popen([python, "-c", OPTUNA, url], stdin=subprocess.PIPE, text=True)
    assert process.stdin
    process.stdin.writelines(for_optuna(trials, seeds, epochs))
    process.stdin.close()
    if process.wait():
        raise SystemExit("Optuna did not take the trials")


def ours(url: str, trials: int, chromium: str) -> list[str]:
    """Measure our own; the aims that are missed."""
    command = [sys.executable, "-m", "hpsearch", "dashboard", "--db", url]
    with serving(command, free_port(), "/healthz") as server:
        print(f"hpsearch dashboard, {trials:,} trials: {server.peak_mb():.0f} MB before the first page")
        missed = show(server, "pages", PAGES, html=True)
        missed += show(server, "API", ANSWERS, html=False)
        if chromium:
            missed += look(server.base, SEEN, DRAWN, chromium)
        print(f"server: {server.peak_mb():.0f} MB at most, {server.cpu():.1f} s of CPU", flush=True)
        missed += above(server.peak_mb(), MOST_MB, "MB", "server")
    for words in missed:
        print(f"missed: {words}")
    print(f"{len(missed) or 'no'} aim{'s' * (len(missed) != 1)} missed", flush=True)
    return missed


def main() -> int:
    """Measure what was asked for; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", default="", help="a record that is there already")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--optuna", default="", help="a Python that has optuna-dashboard")
    parser.add_argument("--optuna-db", default="", help="a storage of Optuna that is there already")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="empty: without a browser")
    options = parser.parse_args()
    chromium = options.chromium if Path(options.chromium).is_file() else ""
    if not chromium:
        print("without a browser: --chromium names one")
    with tempfile.TemporaryDirectory() as folder:
        size = (options.trials, options.seeds, options.epochs)
        url = options.db or f"sqlite:///{folder}/large.db"
        if not options.db:
            fill(url, *size)
        missed = ours(url, options.trials, chromium)
        if not options.optuna:
            print("\nwithout optuna-dashboard: --optuna names a Python that has it")
            return int(bool(missed))
        if not options.optuna_db:
            optunas(options.optuna, f"sqlite:///{folder}/optuna.db", *size)
        storage = options.optuna_db or f"sqlite:///{folder}/optuna.db"
        command = [str(Path(options.optuna).with_name("optuna-dashboard")), storage]
        with serving(command, free_port(), "/api/meta") as server:
            print(f"\noptuna-dashboard: {server.peak_mb():.0f} MB before the first page")
            show(server, "pages and API", ("/dashboard", "/api/studies", "/api/studies/1"), html=False)
            if chromium:
                look(server.base, ("/dashboard/studies/1",), OPTUNA_DRAWN, chromium)
            print(f"server: {server.peak_mb():.0f} MB at most, {server.cpu():.1f} s of CPU")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
