"""What a person does: filter, come back, compare without a mouse, copy a command and run it."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from hpsearch.store import this_process
from tests.dashboard.browser.conftest import DRAWN, Watched, served, until

#: what of a page's words and axes is lighter than the middle
LIGHT_INK = """
[...document.querySelectorAll("main h2, main td, figure[data-drawn=yes] .main-svg text.xtitle")]
    .map((one) => (one.matches("text") ? getComputedStyle(one).fill : getComputedStyle(one).color))
    .filter((ink) => !(Math.max(...(ink.match(/\\d+/g) ?? [255]).slice(0, 3)) < 128))
"""


def numbers(page) -> list[str]:
    return page.eval_on_selector_all("tr[data-trial]", "all => all.map((row) => row.dataset.trial)")


def test_a_filter_is_the_url(server, opened) -> None:
    page = opened(f"{server.root}/s/fine/trials").page
    everything = numbers(page)
    page.locator(".filters input[name=where]").first.fill("lr<0.01")
    page.keyboard.press("Enter")
    page.wait_for_url("**where=*")
    some = numbers(page)
    assert set(some) < set(everything)
    assert some
    page.reload()
    assert numbers(page) == some
    page.go_back()
    assert numbers(page) == everything


def test_two_trials_are_compared_and_a_command_copied_by_keys_alone(server, opened) -> None:
    page = opened(f"{server.root}/s/fine/trials", permissions=["clipboard-read", "clipboard-write"]).page
    page.keyboard.press("/")
    page.keyboard.type("lr<0.1")
    page.keyboard.press("Enter")
    page.wait_for_url("**where=lr*")
    some = numbers(page)
    page.keyboard.press("/")
    page.keyboard.type("j")  # into the field
    page.keyboard.press("Escape")
    for key in "jxjx":
        page.keyboard.press(key)
    assert page.locator("tr[aria-selected=true]").count() == 2
    page.keyboard.press("c")
    page.wait_for_url("**/compare?**")
    query = parse_qs(urlsplit(page.url).query)
    assert [*query["a"], *query["b"]] == some[:2]
    assert "not shown" in page.content() or "beats" in page.content() or "better" in page.content()
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.locator("button[data-copy]:focus")
        if focused.count():
            break
    command = focused.get_attribute("data-copy")
    page.keyboard.press("Enter")
    page.get_by_text("copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_studies_are_compared_by_keys_alone(server, opened) -> None:
    page = opened(f"{server.root}/").page
    for key in "jxjxkc":
        page.keyboard.press(key)
    page.wait_for_url("**/compare?s=*&s=*")
    assert len(set(parse_qs(urlsplit(page.url).query)["s"])) == 2
    page.goto(f"{server.root}/?q=fine")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/s/fine")
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert page.locator("tr[aria-selected=true]").count() == 1


def test_what_is_selected_stays_on_the_next_page_and_in_a_copied_link(server, opened) -> None:
    shown: Watched = opened(f"{server.root}/s/fine/trials")
    page = shown.page
    first = numbers(page)[0]
    page.locator(f"tr[data-trial='{first}'] input").check()
    page.locator("thead a", has_text="lr").click()
    page.wait_for_url("**sort=lr*")
    second = next(number for number in numbers(page) if number != first)
    page.locator(f"tr[data-trial='{second}'] input").check()
    page.locator(".filters input[name=where]").first.fill("lr<0.1")
    page.keyboard.press("Enter")
    page.wait_for_url("**where=*")
    assert parse_qs(urlsplit(page.url).query)["selected"] == [first, second]
    copy = opened(page.url).page
    picked = copy.eval_on_selector_all("tr[data-trial] input:checked", "all => all.map((one) => one.value)")
    assert set(picked) == {first, second} & set(numbers(copy))
    page.get_by_role("button", name="Compare the selected").click()
    page.wait_for_url("**/compare?**")
    assert parse_qs(urlsplit(page.url).query)["t"] == [first, second]


def test_what_a_form_has_done_is_not_in_the_link(server, opened) -> None:
    page = opened(f"{server.root}/s/fine?done=note").page
    assert page.locator(".done").inner_text() == "The note is written."
    assert page.url == f"{server.root}/s/fine"


def test_a_copied_command_runs(server, opened) -> None:
    page = opened(f"{server.root}/s/digits/t/1", permissions=["clipboard-read", "clipboard-write"]).page
    commands = page.eval_on_selector_all("[data-copy]", "all => all.map((one) => one.dataset.copy)")
    command = next(text for text in commands if "\nhpsearch rerun" in text)
    page.locator("[data-copy]").nth(commands.index(command)).click()
    until(page, "document.querySelector('#said').textContent === 'copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == command
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(copied, comments=True)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_narrow_phone_reads_and_opens(server, opened) -> None:
    page = opened(f"{server.root}/s/fine", has_touch=True).page
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("nav a", has_text="Trials").tap()
    page.wait_for_url("**/trials*")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


#: what the pictures show, and how many things move
TRACES = """JSON.stringify([...document.querySelectorAll("figure svg.main-svg .trace")].map((one) => one.outerHTML))"""
MOVING = "document.getAnimations().filter((one) => one.playState === 'running').length"


def test_nothing_moves_for_who_asked_for_stillness(record: str, opened) -> None:
    with closing(sqlite3.connect(record.removeprefix("sqlite:///"))) as db, db:
        holder = this_process()
        db.execute(
            "UPDATE study SET state = 'running', lease_until = ?, host = ?, pid = ?, boot_id = ?, started = ? "
            "WHERE name = 'fine'",
            (time.time() + 600, holder.host, holder.pid, holder.boot_id, holder.started),
        )
    with served(record) as server:
        for wish in ("no-preference", "reduce"):
            shown: Watched = opened(f"{server.root}/s/fine/rounds", reduced_motion=wish)
            page = shown.page
            assert "running" in page.locator("header .state").inner_text()
            shown.drawn()
            # the mark of a running study
            assert (page.evaluate(MOVING) > 0) == (wish == "no-preference")
            before = page.evaluate(TRACES)
            page.wait_for_timeout(1500)
            assert page.evaluate(TRACES) == before
        page.locator(".updatemenu-button").click()  # it is played for who asks for it
        end = time.monotonic() + 5
        while page.evaluate(TRACES) == before:
            assert time.monotonic() < end


def test_the_report_is_one_file_that_asks_for_nothing(server, opened, chromium, tmp_path: Path) -> None:
    page = opened(f"{server.root}/s/fine").page
    with page.expect_download(timeout=60_000) as saved:
        page.get_by_role("link", name="Report").click()
    saved.value.save_as(tmp_path / "fine.html")
    assert saved.value.suggested_filename == "fine.html"
    context = chromium.new_context()
    shown, asked, wrong = context.new_page(), [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.goto(f"file://{tmp_path}/fine.html")
    shown.locator("svg.main-svg").first.wait_for()
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [f"file://{tmp_path}/fine.html"]
    assert wrong == []
    context.close()


def test_paper_has_all_pictures_in_the_colours_of_the_day(server, opened) -> None:
    page = opened(f"{server.root}/s/fine").page
    page.locator("#theme").click()  # dark
    until(page, DRAWN, 60)  # nobody has scrolled, and nothing has said that it will be printed
    assert page.pdf().startswith(b"%PDF")
    assert page.locator("figure[data-figure]").count() == page.locator("figure[data-drawn=yes]").count()
    page.emulate_media(media="print")
    assert page.locator("figure[data-drawn=yes] .main-svg text.xtitle").count()
    until(page, f"({LIGHT_INK.strip()}).length === 0")  # a picture that is drawn once more has no ink for a moment


def test_the_button_prints_when_every_picture_is_there(server, opened, chromium) -> None:
    context = chromium.new_context(viewport={"width": 1400, "height": 500})
    # A browser without a screen has no window for it: what it would print is looked at.
    pending = "document.querySelectorAll('figure[data-figure]:not([data-drawn])').length"
    context.add_init_script(f"window.print = () => {{ window.printed = {pending}; }}")
    page = opened(f"{server.root}/s/fine", context=context).page
    page.locator("[data-print]").click()
    until(page, "window.printed === 0", 60)
    context.close()
