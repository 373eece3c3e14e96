"""Pages of studies of every odd kind: each says what there is in words, whatever there is not."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from tests.dashboard.odd import LONG, ODD

#: below a study
PAGES = ["", "/trials", "/params", "/rounds", "/grid-vs-random", "/compare", "/diagnostics", "/workers", "/ship"]
#: of a trial that there is
OF_ONE = ["/t/0", "/t/0/0", "/ship?t=0"]
#: what Python or a number says where a page should have words
BARE = re.compile(r"\b(nan(?! result)|NaN|inf|Infinity|None(?! of)|True|False|undefined|Traceback \(most)\b")
EMPTY = {"meta", "link", "input", "br", "polyline", "circle"}


class Page(HTMLParser):
    """What a reader sees of a page's main part, and what its elements are called. Code and errors are quoted as is."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = self.heading = ""
        self.ids: Counter[str] = Counter()
        self.values: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in EMPTY:
            self.open.append(tag)
        given = dict(attributes)
        self.ids.update(filter(None, [given.get("id")]))
        self.values += filter(None, (given.get(name) for name in ("value", "href", "title", "aria-label", "data-best")))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "h1" in self.open:
            self.heading += data
        if "main" in self.open and not {"pre", "code", "h1"} & {*self.open}:
            self.text += data


def seen(odd: TestClient, address: str) -> Page:
    """A page that is as it should be."""
    answer = odd.get(address)
    assert answer.status_code == 200, address
    page = Page(answer.text)
    assert answer.text.count("<h1") == 1
    assert page.heading.strip()
    assert not BARE.search(page.text), BARE.search(page.text)
    assert [value for value in page.values if BARE.search(value)] == []
    assert [name for name, n in page.ids.items() if n > 1] == []
    return page


@pytest.mark.parametrize("study", ["empty", *ODD])
def test_every_page_of_an_odd_study_says_it_in_words(odd: TestClient, study: str) -> None:
    for path in PAGES if study == "empty" else PAGES + OF_ONE:
        seen(odd, f"/s/{study}{path}")
    if study not in ("empty", "one"):
        seen(odd, f"/s/{study}/compare?a=0&b=1")


def test_the_studies_page_has_all_odd_studies(odd: TestClient) -> None:
    text = seen(odd, "/").text
    assert all(study in text for study in ["empty", *ODD])
    seen(odd, "/compare?s=empty&s=diverged&s=alone")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("empty", "No trial is complete."), ("empty/trials", "No trial yet."),
        ("empty/ship", "there is nothing to ship"),
        ("empty/compare", "There are no two trials yet."), ("empty/rounds", "there are no rounds to show"),
        ("empty/workers", "No run has been trained yet."), ("empty/diagnostics", "No run has failed."),
        ("failed", "The one trial that ended is not complete"), ("failed/diagnostics", "<script>alert(1)</script>"),
        ("diverged/diagnostics", "8 runs of 4 trials diverged"), ("diverged/ship", "there is nothing to ship"),
        ("alone", "(one seed)"), ("one/compare", "There are no two trials yet."),
        (f"{LONG}/trials", "v" * 300), (f"{LONG}", "n" * 300), (f"{LONG}/t/0", "n" * 300),
    ],
)  # fmt: skip
def test_what_there_is_not_is_said(odd: TestClient, address: str, words: str) -> None:
    assert words in seen(odd, f"/s/{address}").text


def test_one_seed_has_no_interval_on_any_page(odd: TestClient) -> None:
    for path in ("", "/trials", "/t/0"):
        assert "±" not in seen(odd, f"/s/alone{path}").text.replace("± half", ""), path
