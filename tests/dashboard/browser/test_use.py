"""What a person does: filter, come back, compare without a mouse, copy a command and run it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

from tests.dashboard.browser.conftest import until


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


def test_two_trials_are_compared_without_a_mouse(server, opened) -> None:
    page = opened(f"{server.root}/s/fine/trials").page
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.closest('.filters') !== null")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    for key in "jxjxc":
        page.keyboard.press(key)
    page.wait_for_url("**/compare?**")
    query = parse_qs(urlsplit(page.url).query)
    assert query["a"] != query["b"]
    assert "not shown" in page.content() or "beats" in page.content() or "better" in page.content()


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


def test_nothing_moves_for_who_asked_for_stillness(server, opened) -> None:
    page = opened(f"{server.root}/s/fine/rounds", reduced_motion="reduce").page
    page.wait_for_timeout(500)
    assert page.evaluate("document.getAnimations().filter((one) => one.playState === 'running').length") == 0
