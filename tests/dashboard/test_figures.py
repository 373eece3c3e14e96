"""Pictures over HTTP are those of ``pictures``, in the page's colours, filtered as the URL says."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from hpsearch.pictures import PICTURES
from tests.dashboard.conftest import answer_of

API = "/api/v1/studies/fine/figures"


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_drawn_or_says_why_not(client: TestClient, name: str) -> None:
    answer = answer_of(client, f"{API}/{name}")
    assert answer["sentence"].endswith(".")
    assert answer["shown"] == ("data" in answer)
    assert name in ("layers", "searches") or answer["shown"]
    if answer["shown"]:
        assert "title" not in answer["layout"]


def test_dark_is_the_same_picture_in_other_colours(client: TestClient) -> None:
    light, dark = (client.get(f"{API}/history?theme={theme}").json() for theme in ("light", "dark"))
    assert [trace["y"] for trace in light["data"]] == [trace["y"] for trace in dark["data"]]
    assert light["layout"]["font"]["color"] != dark["layout"]["font"]["color"]
    parallel = client.get(f"{API}/parallel?theme=dark").json()
    assert {note["bgcolor"] for note in parallel["layout"]["annotations"]} == {"rgba(29,33,38,0.75)"}


def test_a_filter_reaches_the_picture(client: TestClient) -> None:
    def trials(query: str) -> set[int]:
        answer = client.get(f"{API}/history?{query}").json()
        return {n for trace in answer["data"] if trace.get("mode") == "markers" for n in trace["x"]}

    everything, some, diverged = trials(""), trials("where=lr<0.1"), trials("state=diverged")
    assert some < everything
    assert diverged
    assert not diverged & some


def test_a_table_has_the_numbers_of_the_picture(client: TestClient) -> None:
    answer = client.get(f"{API}/history?format=table").json()
    drawn = client.get(f"{API}/history").json()
    line = next(trace for trace in drawn["data"] if trace["name"] == "best so far")
    assert {row[2] for row in answer["rows"] if row[0] == "best so far"} == set(line["y"])
