"""Every page in a browser: nothing goes wrong, nothing sticks out, nobody is kept out."""

from __future__ import annotations

import re

import pytest

from hpsearch.dashboard import login
from hpsearch.dashboard.pages import ROUTERS
from tests.dashboard.browser.conftest import DRAWN, Watched, served, until
from tests.dashboard.odd import LONG

#: the study of a page, where another one than ``fine`` has more to show there, and what its address asks for
STUDIES = {f"/s/{{study}}{path}": "digits" for path in ("/t/{number}", "/t/{number}/{seed}", "/ship")}
STUDIES["/s/{study}/grid-vs-random"] = "grid"
QUERIES = {"/s/{study}/grid-vs-random": "?with=fine", "/s/{study}/ship": "?t=1", "/compare": "?s=fine&s=grid"}
#: the same pages with something else, or nothing, to show; the way in; an address where there is nothing
FURTHER = [
    "/s/digits",
    "/s/grid/rounds",
    "/s/digits/compare?a=1&b=2",
    "/s/fine/workers?where=lr<0.1",
    "/s/fine/trials?where=lr<0&where=nope",
    "/s/fine/nowhere",
]
#: pictures that rightly show nothing: of functions whose layers nobody watches; of too few trials to say what mattered
NOTHING = {("fine", "layers"), ("grid", "layers"), ("digits", "importances")}


def addresses() -> list[str]:
    """A page of each route that there is, whatever is added."""
    found = []
    for route in (route for router in (*ROUTERS, login.router) for route in router.routes if "GET" in route.methods):
        study = STUDIES.get(route.path, "fine")
        found.append(route.path.format(study=study, number=1, seed=0) + QUERIES.get(route.path, ""))
    return found + FURTHER


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
#: what another colour scheme can break
CONTRAST = "async () => (await axe.run({runOnly: {type: 'rule', values: ['color-contrast']}})).violations"


def fits(page: object, width: int) -> None:
    """At this width nothing sticks out."""
    page.set_viewport_size({"width": width, "height": 800})
    for _ in range(50):  # pictures are drawn anew for the width
        page.wait_for_timeout(150)
        if not page.evaluate(OUT):
            break
    assert (width, page.evaluate(OUT)) == (width, [])


def keeps_nobody_out(page: object, rules: str = AXE) -> None:
    """axe-core finds nothing."""
    found = page.evaluate(rules)
    broken = [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"]]
    assert broken == []


def figures(page: object, drawn: str) -> set[tuple[str, str]]:
    """(study, picture) of those that were drawn so."""
    told = page.eval_on_selector_all(f"figure[data-drawn={drawn}]", "all => all.map((one) => one.dataset.figure)")
    return {tuple(re.search(r"/studies/([^/]+)/figures/(\w+)", address).groups()) for address in told}


@pytest.mark.parametrize("path", addresses())
def test_a_page_fits_every_width_and_keeps_nobody_out(server, opened, axe, path: str) -> None:
    shown: Watched = opened()
    page = shown.page
    status = page.goto(server.root + path).status
    if path.endswith("/nowhere"):
        assert (status, len(shown.wrong)) == (404, 1)  # the browser says so in its console
        shown.wrong.clear()
    else:
        assert status == 200
    shown.drawn()
    assert page.title().endswith("hpsearch")
    assert figures(page, "failed") == set()
    assert figures(page, "none") <= NOTHING
    for width in (1600, 800, 390):
        fits(page, width)
    page.evaluate(axe)
    page.emulate_media(color_scheme="dark")
    keeps_nobody_out(page, CONTRAST)
    page.emulate_media(color_scheme="light")
    keeps_nobody_out(page)
    fits(page, 1400)
    keeps_nobody_out(page)


def test_pages_of_odd_studies_fit_a_phone_and_keep_nobody_out(odd_url, opened, axe) -> None:
    with served(odd_url) as odd:
        shown: Watched = opened()
        page = shown.page
        for path in (
            "/", "/s/empty", "/s/empty/params", "/s/one", "/s/diverged", "/s/failed/diagnostics", f"/s/{LONG}",
            f"/s/{LONG}/trials", f"/s/{LONG}/params", f"/s/{LONG}/t/0", f"/s/{LONG}/compare?a=0&b=1",
            f"/s/{LONG}/diagnostics", f"/s/{LONG}/grid-vs-random", f"/s/{LONG}/ship",
        ):  # fmt: skip
            page.goto(odd.root + path)
            shown.drawn()
            assert (path, figures(page, "failed")) == (path, set())
            fits(page, 390)
            page.evaluate(axe)
            keeps_nobody_out(page)


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
