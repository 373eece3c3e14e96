"""A real Chromium before a real server process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: every picture is there, or says why it is not
DRAWN = "[...document.querySelectorAll('figure[data-figure]')].every((one) => one.dataset.drawn)"
#: where continuous integration runs, a missing browser is a failure
CI = "CI" in os.environ or "README_RAN_IN" in os.environ


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """The system's browser. While it is there, an event loop runs in this thread: so no longer than for a module."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        if CI:
            pytest.fail("there is no Chromium here: apt-get install chromium")
        pytest.skip("there is no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # --no-sandbox: it would not start as root, and shows nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Server:
    """``hpsearch dashboard`` as a process."""

    def __init__(self, url: str, *options: str) -> None:
        self.db = url
        self.options = options
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        #: as it was printed, with the one-time code where there is one
        self.printed = ""
        self.start()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """On the port that it had, if it had one."""
        command = [sys.executable, "-m", "hpsearch", "dashboard", "--db", self.db, "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *self.options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:(\d+)\S*", line):
                self.port, self.printed = int(found[1]), found[0]
                return
        raise AssertionError(f"it did not start: {said}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=20)
        self.process.stdout.close()


@contextmanager
def served(url: str, *options: str) -> Iterator[Server]:
    """A server over this record."""
    server = Server(url, *options)
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def server(url: str) -> Iterator[Server]:
    """Over the record that all tests share; nobody writes to it."""
    with served(url) as made:
        yield made


@pytest.fixture
def record(url: str, tmp_path: Path) -> str:
    """A copy of the record, to write to."""
    shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "record.db")
    return f"sqlite:///{tmp_path}/record.db"


def until(page: object, condition: str, seconds: float = 10.0) -> None:
    """Wait until a JavaScript expression holds (Playwright's own waiting would need what our pages forbid)."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"after {seconds:g} s, still not: {condition}"
        page.wait_for_timeout(50)


class Watched:
    """A page, and what went wrong in it."""

    def __init__(self, page: object) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("console", lambda said: said.type in ("error", "warning") and self.wrong.append(said.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: object) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.wrong.append(f"asked for {request.url}")

    def drawn(self) -> None:
        """Wait until every picture is there."""
        self.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        until(self.page, DRAWN, 60)


@pytest.fixture
def opened(chromium: object) -> Iterator[Callable[..., Watched]]:
    """Opens pages, each in a profile of its own unless told otherwise; nothing may go wrong in any of them."""
    contexts, pages = [], []

    def open_page(url: str = "", *, context: object = None, **options: object) -> Watched:
        if context is None:
            context = chromium.new_context(viewport={"width": 1400, "height": 900}, **options)
            contexts.append(context)
        watched = Watched(context.new_page())
        pages.append(watched)
        if url:
            watched.page.goto(url)
        return watched

    yield open_page
    wrong = [text for page in pages for text in page.wrong]
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core (MPL 2.0, Deque Systems): checks a page for what keeps people out."""
    return (Path(__file__).parent / "axe.min.js").read_text("utf-8")
