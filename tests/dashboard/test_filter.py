"""The filter is in the address of every page of a study: its links keep it, and a page that shows all says so."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi.testclient import TestClient

from hpsearch.dashboard.query import STATES

FILTER = [("state", "complete"), ("where", "lr<0.1")]
ASKED = "state=complete&where=lr%3C0.1"
HAS_BAR = ["", "/trials", "/params", "/grid-vs-random", "/diagnostics"]
SHOWS_ALL = ["/rounds", "/compare", "/compare?a=1&b=2", "/workers", "/ship", "/t/3", "/t/3/0"]


def asking(path: str) -> str:
    return f"/s/fine{path}{'&' if '?' in path else '?'}{ASKED}"


def sent(form: str) -> list[tuple[str, str]]:
    """What a form sends of the filter."""
    found = []
    for field in re.findall(r"<input[^>]*>", form):
        said = dict(re.findall(r'(\w+)="([^"]*)"', field))
        left = said.get("type") == "checkbox" and " checked" not in field
        if said.get("name") in ("state", "where") and said["value"] and not left:
            found.append((said["name"], unescape(said["value"])))
    return sorted(found)


@pytest.mark.parametrize("path", HAS_BAR + SHOWS_ALL)
def test_every_link_and_form_keeps_the_filter(client: TestClient, path: str) -> None:
    html = client.get(asking(path)).text
    links = [urlsplit(unescape(link)) for link in re.findall(r'(?:href|data-href)="(/s/fine[^"]*|\?[^"]*)"', html)]
    cleared = [link for link in links if not {*FILTER} <= {*parse_qsl(link.query)}]
    assert len(links) > 9
    assert len(cleared) == 1
    assert not {"state", "where"} & dict(parse_qsl(cleared[0].query)).keys()
    assert cleared[0].path == ""
    for form in re.findall(r'<form[^>]*method="get".*?</form>', html, re.DOTALL):
        assert sent(form) == FILTER


@pytest.mark.parametrize("path", HAS_BAR)
def test_where_the_filter_applies_there_is_its_bar(client: TestClient, path: str) -> None:
    html = client.get(asking(path)).text
    assert 'aria-label="Filter the trials"' in html
    assert "does not apply" not in html
    assert re.findall(r'type="checkbox" name="state" value="(\w+)"', html) == list(STATES)
    fitting, every = (client.get(f"/api/v1/studies/fine/trials{q}").json()["total"] for q in (f"?{ASKED}", ""))
    assert 0 < fitting < every
    assert f'<span class="quiet">{fitting} of {every} trials</span>' in html


@pytest.mark.parametrize("path", SHOWS_ALL)
def test_where_it_does_not_the_page_says_so(client: TestClient, path: str) -> None:
    html = client.get(asking(path)).text
    assert 'aria-label="Filter the trials"' not in html
    line = re.search(r"The filter does not apply here: .*", html)
    assert line
    assert "<code>lr&lt;0.1</code> <code>state: complete</code>" in line[0]
    assert f'href="?{path.partition("?")[2].replace("&", "&amp;")}"' in line[0]
    assert "does not apply" not in client.get(f"/s/fine{path}").text


def test_what_the_projection_is_seen_through_is_kept_beside_the_filter(client: TestClient) -> None:
    html = client.get("/s/grid/grid-vs-random?x=lr&y=x&with=fine&where=lr<0.1").text
    for name, text in (("x", "lr"), ("y", "x"), ("with", "fine")):
        assert f'<input type="hidden" name="{name}" value="{text}">' in html
    assert '<a class="button" href="?x=lr&amp;y=x&amp;with=fine">Clear</a>' in html
    assert "The filter is on the trials of grid alone." in html
    assert "with=fine&amp;where=lr%3C0.1" in html  # and in the picture's address


def test_a_filter_that_cannot_be_read_is_not_carried(client: TestClient) -> None:
    html = client.get("/s/fine/workers?where=nope<1&state=nowhere").text
    assert "nope" not in html
    assert "does not apply" not in html


def test_the_head_says_the_round_of_a_search_that_narrows(client: TestClient, odd: TestClient) -> None:
    assert "coarse to fine · round 2/2" in client.get("/s/fine/workers").text
    assert "round 1" not in client.get("/s/grid").text
    assert "coarse to fine · round 2/2" in odd.get("/s/narrow").text
