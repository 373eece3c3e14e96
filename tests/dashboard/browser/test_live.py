"""While a study runs: pages follow, keep what the reader did, and miss nothing."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from hpsearch.dashboard.live import STREAMS_OF_ONE
from tests.dashboard.browser.conftest import Server, Watched, served, until


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
        page.set_viewport_size({"width": 1400, "height": 500})
        wait_for_live(page)
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("x")
        here = page.locator("tr.here").get_attribute("data-trial")
        page.mouse.wheel(0, 200)
        page.wait_for_timeout(300)
        before = page.evaluate("scrollY")
        assert before > 0
        number = add_trial(record)
        page.locator(f"tr[data-trial='{number}']").wait_for(timeout=3000)
        assert page.locator("tr.here").get_attribute("data-trial") == here
        assert page.locator(f"tr[data-trial='{here}'] input").is_checked()
        assert page.evaluate("scrollY") == before


def test_ten_tabs_are_all_live(record: str, opened, chromium) -> None:
    with served(record) as server:
        context = chromium.new_context()
        tabs = [opened(f"{server.root}/s/fine/trials?sort=-number", context=context) for _ in range(10)]
        for tab in tabs:
            wait_for_live(tab.page)
        number = add_trial(record)
        for tab in tabs:
            tab.page.locator(f"tr[data-trial='{number}']").wait_for(timeout=10_000)
        context.close()


def test_a_server_that_comes_back_is_caught_up_with(record: str, opened) -> None:
    with served(record) as server:
        shown: Watched = opened(f"{server.root}/s/fine/trials?sort=-number")
        page = shown.page
        wait_for_live(page)
        server.stop(signal.SIGKILL)
        until(page, "document.querySelector('#link').textContent.includes('reconnecting')")
        number = add_trial(record)
        server.start()
        page.locator(f"tr[data-trial='{number}']").wait_for(timeout=15_000)
        # That the server was gone is no mistake of the page.
        shown.wrong[:] = [text for text in shown.wrong if not re.search("ERR_CONNECTION_REFUSED|ERR_|net::", text)]


@pytest.mark.parametrize("first", ["overtaken", "refused"])
def test_the_last_change_is_shown_whatever_became_of_the_first(record: str, opened, first: str) -> None:
    with served(record) as server:
        shown: Watched = opened(f"{server.root}/s/fine/trials?sort=-number")
        page, held = shown.page, []
        wait_for_live(page)

        def hold(route) -> None:
            if held or route.request.resource_type != "fetch":
                return route.continue_()
            return held.append((route, route.fetch()))

        page.route("**/s/fine/trials?*", hold)
        numbers = [add_trial(record)]
        while not held:
            page.wait_for_timeout(50)
        page.wait_for_timeout(400)
        numbers.append(add_trial(record))
        page.wait_for_timeout(1500)  # the second is heard of while the page of the first is still to come
        route, answer = held[0]
        if first == "overtaken":
            route.fulfill(response=answer)
        else:
            route.fulfill(status=503, body="not now")
        page.locator(f"tr[data-trial='{numbers[1]}']").wait_for(timeout=5000)
        assert page.locator(f"tr[data-trial='{numbers[0]}']").count() == 1
        wait_for_live(page)
        shown.wrong[:] = [text for text in shown.wrong if "503" not in text]


def stream(server: Server, **headers: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream that is open, or refused."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=2.5)
    connection.request("GET", "/api/v1/events?study=fine", headers=headers)
    return connection, connection.getresponse()


def event(answer: http.client.HTTPResponse) -> dict[str, str]:
    """The next event of a stream."""
    found: dict[str, str] = {}
    while "data" not in found:
        found.clear()  # of what came before: how soon to come back
        while line := answer.readline().decode().strip():
            name, _, text = line.partition(": ")
            found[name] = text
    return found


def test_nothing_is_sent_where_nothing_happens(record: str) -> None:
    with served(record) as server:
        connection, answer = stream(server)
        with closing(connection):
            told = event(answer)
            assert list(json.loads(told["data"])) == ["fine"]
            with pytest.raises(TimeoutError):
                answer.read(1)


def test_who_names_the_last_event_hears_what_came_after_it_alone(record: str) -> None:
    with served(record) as server:
        connection, answer = stream(server)
        with closing(connection):
            known = event(answer)
        connection, answer = stream(server, **{"Last-Event-ID": known["id"]})
        with closing(connection):
            assert answer.readline().startswith(b"retry:")
            assert answer.readline() == b"\n"
            with pytest.raises(TimeoutError):
                answer.read(1)
        add_trial(record)
        connection, answer = stream(server, **{"Last-Event-ID": known["id"]})
        with closing(connection):
            missed = event(answer)
            assert missed["id"] != known["id"]
            assert missed["data"] != known["data"]
            with pytest.raises(TimeoutError):
                answer.read(1)


def test_a_stream_too_many_is_refused_and_the_page_asks_instead(record: str, opened) -> None:
    with served(record) as server:
        held = [stream(server) for _ in range(STREAMS_OF_ONE)]
        assert {answer.status for _, answer in held} == {200}
        connection, refused = stream(server)
        with closing(connection):
            assert refused.status == 429
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert "/api/v1/changes" in json.loads(refused.read())["hint"]
        shown: Watched = opened(f"{server.root}/s/fine/trials?sort=-number")
        wait_for_live(shown.page)
        number = add_trial(record)
        shown.page.locator(f"tr[data-trial='{number}']").wait_for(timeout=8000)
        shown.wrong[:] = [text for text in shown.wrong if "429" not in text]
        for connection, _ in held:
            connection.close()
        end = time.monotonic() + 5
        while True:  # their places are free again
            connection, answer = stream(server)
            connection.close()
            if answer.status == 200:
                break
            assert time.monotonic() < end
            time.sleep(0.1)


def test_without_a_shared_worker_the_page_asks(record: str, opened, chromium) -> None:
    with served(record) as server:
        context = chromium.new_context()
        context.add_init_script("delete window.SharedWorker")
        shown: Watched = opened(f"{server.root}/s/fine/trials?sort=-number", context=context)
        page = shown.page
        page.route("**/api/v1/changes?*", lambda route: route.fulfill(status=401))
        until(page, "document.querySelector('#link').textContent.includes('reconnecting')")
        page.unroute("**/api/v1/changes?*")
        wait_for_live(page)
        number = add_trial(record)
        page.locator(f"tr[data-trial='{number}']").wait_for(timeout=8000)
        shown.wrong[:] = [text for text in shown.wrong if "401" not in text]
        context.close()


def test_a_server_with_streams_open_ends_at_once(record: str, opened) -> None:
    server = Server(record)
    shown: Watched = opened(f"{server.root}/s/fine")
    wait_for_live(shown.page)
    server.stop(signal.SIGTERM)
    assert server.process is not None
    assert server.process.returncode in (0, 143)
    shown.wrong.clear()
