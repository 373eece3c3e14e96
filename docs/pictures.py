"""The README's pictures of the dashboard, taken of a real study: ``python docs/pictures.py``.

Runs ``studies/digits_random.yaml`` and a race of its best trials on fresh seeds (a minute on two cores; with
``--folder`` the hpsearch.db that lies there is shown as it is), serves it with ``hpsearch dashboard`` and lets the
system's Chromium draw the pages into docs/overview.png and docs/compare.png. Needs playwright
(``pip install -e '.[dev]'``) and Chromium.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STUDY = "digits-random"
#: pixels
WIDTH, HEIGHT = 1280, 1500
#: a README's column is narrower than a page
SCALE = 0.72
#: bytes of a picture: a README is read on slow lines too
MOST = 160_000
#: ms for the slowest picture of a page
PATIENCE = 120_000


def main() -> None:
    """Both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help=f"where an hpsearch.db with a study {STUDY} is; else one is made")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the folder for the pictures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as fresh:
        # Commands run where the database is: what the pages print then needs no --db.
        folder = given.folder or made(Path(fresh))
        best = json.loads(hpsearch(folder, "best", STUDY, "-k", "2", "--json"))
        first, second = (trial["trial"] for trial in best["best"])
        with served(folder) as address:
            shoot(f"{address}s/{STUDY}", given.out / "overview.png", last="/lr_curve")
            shoot(f"{address}s/{STUDY}/compare?a={first}&b={second}", given.out / "compare.png", last="/curves")


def hpsearch(folder: Path, *words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "hpsearch", *words]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def made(folder: Path) -> Path:
    """The study, and the race of its best trials, in a new database."""
    hpsearch(folder, "run", str(ROOT / "studies" / "digits_random.yaml"), "--quiet")
    hpsearch(folder, "confirm", STUDY, "--quiet")
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The dashboard's address while it serves."""
    command = [sys.executable, "-m", "hpsearch", "dashboard", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        found = next((m for line in process.stdout if (m := re.search(r"http://127\.0\.0\.1:\d+/", line))), None)
        try:
            if found is None:
                raise SystemExit("the dashboard did not start")
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)


def shoot(address: str, file: Path, last: str) -> None:
    """One page with its pictures drawn, from its top to the card of the picture ``last``."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        # --no-sandbox: it would not start as root, and shows nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page: Any = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE, color_scheme="light"
        )
        page.goto(address)
        # Pictures are drawn when they come near to what is seen.
        for figure in page.locator("figure[data-figure]").all():
            figure.scroll_into_view_if_needed()
            figure.and_(page.locator("[data-drawn]")).wait_for(state="attached", timeout=PATIENCE)
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(500)
        card = page.locator(".card", has=page.locator(f"figure[data-figure*='{last}']")).first.bounding_box()
        height = card["y"] + card["height"] + 12
        page.screenshot(path=file, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        browser.close()
    size = file.stat().st_size
    print(f"{file}: {size:,} bytes")
    if size > MOST:
        raise SystemExit(f"{file} is larger than {MOST:,} bytes")


if __name__ == "__main__":
    main()
