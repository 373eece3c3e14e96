"""The way in, in a real browser: what its headers are, no client of ours can know."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.dashboard.server import _Server, listen

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def served(url: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, Access]]:
    """The dashboard in a thread: its address and its policy."""
    access: Access = request.param
    listener = listen("127.0.0.1", 0)
    app = make_app(Record(url), access)
    server = _Server(app, app.state.ending, lambda: None)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener.socket])))
    thread.start()
    yield listener.url, access
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def serve(page: Page, body: str) -> None:
    """Another site's page, without a network."""
    page.route("http://evil.test/*", lambda route: route.fulfill(body=body, content_type="text/html"))


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("served", [Access(token=TOKEN)], indirect=True)
def test_the_form_leads_to_the_page_that_was_wanted(
    served: tuple[str, Access], chromium: Browser, script: bool
) -> None:
    base, _ = served
    context = chromium.new_context(java_script_enabled=script)
    page = context.new_page()
    page.goto(f"{base}s/digits?state=complete")
    page.fill("#token", "not the token at all")
    page.click("main button")
    assert "this is not the token" in page.inner_text("main")
    page.fill("#token", TOKEN)
    page.click("main button")
    assert page.url == f"{base}s/digits?state=complete"
    page.get_by_text("Best trials").first.wait_for()  # the click waits for the answer's beginning alone
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    # A page of another site with a link here: the browser holds the cookie back, and our page asks once more.
    other = context.new_page()
    serve(other, f"<a href='{base}s/digits'>x</a>")
    other.goto("http://evil.test/")
    other.click("a")
    other.wait_for_url(f"{base}s/digits")
    other.wait_for_selector("table.rows")
    context.close()


@pytest.mark.parametrize("served", [Access(allow_actions=True)], indirect=True)
def test_the_printed_address_logs_in_and_another_sites_form_does_nothing(
    served: tuple[str, Access], chromium: Browser
) -> None:
    base, access = served
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{base}login?code={access.new_code()}")
    assert page.url == base
    (cookie,) = context.cookies()
    assert access.is_session(cookie["value"])
    answers = {}
    page.on("response", lambda answer: answers.update({(answer.request.method, answer.url): answer.status}))
    framed = f"<iframe src='{base}s/digits'></iframe><img src='{base}static/icon.svg'>"
    serve(page, f"{framed}<form method=post action='{base}logout'><button>x</button></form>")
    page.goto("http://evil.test/", wait_until="networkidle")
    assert page.evaluate("document.images[0].naturalWidth") == 0
    assert len(page.frames) == 2
    assert not any("Best trials" in frame.content() for frame in page.frames)
    page.click("button")
    page.wait_for_url(f"{base}logout")
    assert answers["POST", f"{base}logout"] == 403
    assert access.is_session(context.cookies()[0]["value"])
    context.close()
