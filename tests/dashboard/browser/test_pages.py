"""Every page in a browser: nothing goes wrong, nothing sticks out, nobody is kept out."""

from __future__ import annotations

import pytest

from tests.dashboard.browser.conftest import DRAWN, Watched, until

#: a page of each kind, of studies with something to show there
PAGES = [
    "/",
    "/s/digits",
    "/s/fine",
    "/s/fine/trials",
    "/s/digits/t/1",
    "/s/digits/t/1/0",
    "/s/fine/params",
    "/s/fine/rounds",
    "/s/grid/rounds",
    "/s/grid/grid-vs-random?with=fine",
    "/s/digits/compare?a=1&b=2",
    "/s/fine/compare",
    "/compare?s=fine&s=grid",
    "/s/fine/diagnostics",
    "/s/fine/workers",
    "/s/digits/ship?t=1",
    "/docs",
]
#: the elements that stick out of the page, or pictures out of their cards
OUT = """() => {
  const width = document.documentElement.scrollWidth;
  const wide = width > innerWidth + 1 ? [`the page is ${width} wide`] : [];
  for (const drawn of document.querySelectorAll("svg.main-svg")) {
    const [a, b] = [drawn, drawn.closest(".card")].map((one) => one.getBoundingClientRect());
    const out = a.right > b.right + 1 || a.left < b.left - 1 || a.bottom > b.bottom + 1;
    if (out) wide.push(drawn.closest("figure").dataset.figure);
  }
  return wide;
}"""
#: what counts as broken; "best practice" rules are opinions
AXE = "async () => (await axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})).violations"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_every_width_and_keeps_nobody_out(server, opened, axe, path: str) -> None:
    shown: Watched = opened(server.root + path)
    page = shown.page
    shown.drawn()
    assert page.title().endswith("hpsearch")
    failed = page.eval_on_selector_all("figure[data-drawn=failed]", "all => all.map((one) => one.dataset.figure)")
    assert failed == []
    for width in (1400, 800, 390):
        page.set_viewport_size({"width": width, "height": 800})
        for _ in range(50):  # pictures are drawn anew for the width
            page.wait_for_timeout(150)
            if not page.evaluate(OUT):
                break
        assert (width, page.evaluate(OUT)) == (width, [])
    page.evaluate(axe)
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        found = page.evaluate(AXE)
        broken = [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"]]
        assert (colours, broken) == (colours, [])


def test_printing_shows_every_picture(server, opened) -> None:
    shown: Watched = opened(server.root + "/s/fine")
    page = shown.page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, DRAWN, 60)
    assert page.pdf().startswith(b"%PDF")
    assert page.locator("figure[data-figure]").count() == page.locator("figure[data-drawn=yes]").count()


def test_a_picture_as_a_table(server, opened) -> None:
    page = opened(server.root + "/s/fine").page
    card = page.locator(".card", has=page.locator("figure[data-figure*='/history']"))
    card.get_by_role("button", name="as table").click()
    rows = card.locator("tbody tr")
    rows.first.wait_for()
    assert rows.count() >= 17  # 16 trials and the baseline
    card.get_by_role("button", name="as table").click()
    assert card.locator("table").count() == 0


def test_dark_is_kept(server, opened) -> None:
    page = opened(server.root + "/s/digits").page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == dark


def test_a_mark_leads_to_its_trial(server, opened) -> None:
    shown: Watched = opened(server.root + "/s/digits")
    shown.drawn()
    page = shown.page
    point = page.locator("figure[data-figure*='/history'] .scatterlayer .point").nth(2)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**/s/digits/t/*")


def test_the_trial_under_the_mouse_is_lit_in_tables_and_pictures(server, opened) -> None:
    shown: Watched = opened(server.root + "/s/digits")
    shown.drawn()
    page = shown.page
    row = page.locator("tr[data-trial]").first
    row.scroll_into_view_if_needed()
    row.hover()
    assert row.get_attribute("class") == "lit"
    until(page, "document.querySelectorAll('figure .hoverlayer .hovertext').length > 1")
    page.locator(".brand").hover()
    until(page, "document.querySelectorAll('tr.lit, figure .hoverlayer .hovertext').length === 0")


def test_a_picture_is_saved_as_svg(server, opened, tmp_path) -> None:
    shown: Watched = opened(server.root + "/s/digits")
    shown.drawn()
    page = shown.page
    with page.expect_download() as saved:
        page.locator(".card", has=page.locator("figure[data-figure*='/history']")).get_by_role(
            "button", name="as svg"
        ).click()
    saved.value.save_as(tmp_path / "history.svg")
    assert saved.value.suggested_filename == "history.svg"
    assert (tmp_path / "history.svg").read_text("utf-8").startswith("<svg")


def test_what_is_new_since_the_last_look_is_said(server, opened) -> None:
    page = opened(server.root + "/s/digits").page
    assert page.locator("#since").text_content() == ""
    page.evaluate("""() => localStorage.setItem("seen:digits", JSON.stringify({done: "1", best: "9", failed: "0"}))""")
    page.reload()
    said = page.locator("#since").text_content()
    assert said.startswith("Since you last looked: 5 more trials, best 9 → ")
