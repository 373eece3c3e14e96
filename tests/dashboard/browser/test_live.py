"""While a study runs: pages follow, keep what the reader did, and miss nothing."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.dashboard.browser.conftest import Server, Watched, served, until


@pytest.fixture
def record(url: str, tmp_path: Path) -> str:
    """A copy of the record, to write to."""
    shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "record.db")
    return f"sqlite:///{tmp_path}/record.db"


def add_trial(record: str, study: str = "fine", value: float = 0.5) -> int:
    """A complete trial, as a coordinator's turn would write it; its number."""
    connection = sqlite3.connect(record.removeprefix("sqlite:///"))
    with connection:
        (key,) = connection.execute("SELECT id FROM study WHERE name = ?", (study,)).fetchone()
        (number,) = connection.execute("SELECT max(number) + 1 FROM trial WHERE study = ?", (key,)).fetchone()
        for table, changes in (
            ("trial", {"number": number, "value": value, "tell_seq": number + 1}),
            ("run", {"trial": number, "value": value}),
        ):
            found = connection.execute(
                f"SELECT * FROM {table} WHERE study = ? AND state = 'complete' ORDER BY 2 LIMIT 1", (key,)
            )
            names = [column[0] for column in found.description]
            row = {**dict(zip(names, found.fetchone(), strict=True)), **changes}
            marks = ", ".join("?" for _ in names)
            connection.execute(f"INSERT INTO {table} VALUES ({marks})", [row[name] for name in names])
        connection.execute("UPDATE study SET rev = rev + 1, tell_seq = tell_seq + 1 WHERE id = ?", (key,))
    connection.close()
    return number


def wait_for_live(page) -> None:
    until(page, "document.querySelector('#link')?.textContent.includes('live')")


def test_a_row_in_the_database_appears_and_the_reader_is_left_alone(record: str, opened) -> None:
    with served(record) as server:
        page = opened(f"{server.root}/s/fine/trials?sort=-number").page
        wait_for_live(page)
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("x")
        here = page.locator("tr.here").get_attribute("data-trial")
        page.mouse.wheel(0, 200)
        page.wait_for_timeout(300)
        before = page.evaluate("scrollY")
        number = add_trial(record)
        page.locator(f"tr[data-trial='{number}']").wait_for(timeout=3000)
        assert page.locator("tr.here").get_attribute("data-trial") == here
        assert page.locator(f"tr[data-trial='{here}'] input").is_checked()
        assert page.evaluate("scrollY") == before


def test_ten_tabs_are_all_live(record: str, opened, chromium) -> None:
    with served(record) as server:
        context = chromium.new_context()
        tabs = [opened(f"{server.root}/s/fine", context=context) for _ in range(10)]
        for tab in tabs:
            wait_for_live(tab.page)
        number = add_trial(record)
        for tab in tabs:
            tab.page.locator(f"[data-live=top] tr[data-trial='{number}']").wait_for(timeout=10_000)
        context.close()


def test_a_server_that_comes_back_is_caught_up_with(record: str, opened) -> None:
    with served(record) as server:
        shown: Watched = opened(f"{server.root}/s/fine")
        page = shown.page
        wait_for_live(page)
        server.stop(signal.SIGKILL)
        until(page, "document.querySelector('#link').textContent.includes('reconnecting')")
        number = add_trial(record)
        server.start()
        page.locator(f"[data-live=top] tr[data-trial='{number}']").wait_for(timeout=15_000)
        # That the server was gone is no mistake of the page.
        shown.wrong[:] = [text for text in shown.wrong if not re.search("ERR_CONNECTION_REFUSED|ERR_|net::", text)]


def test_nothing_is_sent_where_nothing_happens(record: str) -> None:
    import http.client

    with served(record) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=2.5)
        connection.request("GET", "/api/v1/events?study=fine")
        answer = connection.getresponse()
        text = ""
        while "data:" not in text or not text.endswith("\n\n"):
            text += answer.readline().decode()
        with pytest.raises(TimeoutError):
            answer.read(1)
        connection.close()


def test_without_a_shared_worker_the_page_asks(record: str, opened, chromium) -> None:
    with served(record) as server:
        context = chromium.new_context()
        context.add_init_script("delete window.SharedWorker")
        page = opened(f"{server.root}/s/fine", context=context).page
        wait_for_live(page)
        number = add_trial(record)
        page.locator(f"[data-live=top] tr[data-trial='{number}']").wait_for(timeout=8000)
        context.close()


def test_a_server_with_streams_open_ends_at_once(record: str, opened) -> None:
    server = Server(record)
    shown: Watched = opened(f"{server.root}/s/fine")
    wait_for_live(shown.page)
    server.stop(signal.SIGTERM)
    assert server.process is not None
    assert server.process.returncode in (0, 143)
    shown.wrong.clear()
