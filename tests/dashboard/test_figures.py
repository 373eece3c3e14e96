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

    everything, some, complete = trials(""), trials("where=lr<0.1"), trials("state=complete")
    assert some < everything
    assert complete < everything
    diverged = client.get(f"{API}/history?state=diverged").json()
    assert (diverged["shown"], diverged["sentence"]) == (False, "No trial has a value.")


def test_what_is_said_beside_a_picture_is_a_sentence(client: TestClient) -> None:
    note = client.get(f"{API}/history").json()["note"]
    assert note == "Band: 95 % interval of the mean over seeds (t)."


def test_on_a_phone_panels_lie_one_below_the_other(client: TestClient) -> None:
    for name in ("rounds", "layers"):
        study = API if name == "rounds" else API.replace("fine", "digits")
        wide, narrow = (client.get(f"{study}/{name}?narrow={flag}").json()["layout"] for flag in ("false", "true"))
        assert wide["xaxis2"]["domain"][0] > 0.5, name
        assert narrow["xaxis2"]["domain"] == [0.0, 1.0], name
        assert narrow["height"] > wide["height"], name


def test_long_names_do_not_take_the_pictures_room(client: TestClient) -> None:
    from hpsearch.dashboard.drawing import WORDS, drawn
    from hpsearch.figures import theme

    figure = theme.new("one").update_xaxes(**theme.axis("x" * 100))
    assert drawn(figure)["layout"]["xaxis"]["title"]["text"] == "x" * (WORDS - 1) + "…"


def test_a_picture_that_only_says_why_it_is_none_is_a_sentence(client: TestClient) -> None:
    found = client.get(f"{API}/interaction?where=lr<0.0002").json()
    assert (found["shown"], found["sentence"]) == (False, "Too few trials have a value.")


def test_a_table_has_the_numbers_of_the_picture(client: TestClient) -> None:
    answer = client.get(f"{API}/history?format=table").json()
    drawn = client.get(f"{API}/history").json()
    line = next(trace for trace in drawn["data"] if trace["name"] == "best so far")
    assert {row[2] for row in answer["rows"] if row[0] == "best so far"} == set(line["y"])
