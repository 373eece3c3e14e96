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


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_that_is_shown_has_a_table(client: TestClient, name: str) -> None:
    studies = {"layers": "digits/figures/layers", "searches": "fine/figures/searches?with=grid"}
    address = f"/api/v1/studies/{studies.get(name, f'fine/figures/{name}')}"
    answer = answer_of(client, f"{address}{'&' if '?' in address else '?'}format=table")
    assert answer["shown"]
    heads, rows = answer["heads"], answer["rows"]
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(heads)}
    assert any(isinstance(cell, int | float) for row in rows for cell in row)


def test_the_table_of_all_hyperparameters_is_the_record(client: TestClient) -> None:
    answer = client.get(f"{API}/parallel?format=table").json()
    assert answer["heads"] == ["trial", "lr", "x", "loss", "state"]
    stored = {f"#{one['number']}": one for one in client.get("/api/v1/studies/fine/trials").json()["trials"]}
    assert len(answer["rows"]) == len(stored)
    for trial, lr, x, loss, state in answer["rows"]:
        one = stored[trial]
        assert (lr, x, loss, state) == (one["params"]["lr"], one["params"]["x"], one["value"], one["state"])
    told = [row[3] for row in answer["rows"] if row[3] is not None]
    assert told == sorted(told)  # the best first
    assert len(told) < len(answer["rows"])


def test_the_table_of_rounds_has_the_windows(client: TestClient) -> None:
    answer = client.get(f"{API}/rounds?format=table").json()
    told = client.get("/api/v1/studies/fine/rounds").json()["rounds"]
    windows = {(name, one["round"]): ends for one in told for name, ends in one["windows"].items()}
    assert len(windows) == 4
    assert {(row[0], row[1]): row[2:4] for row in answer["rows"]} == windows
    number = client.get("/api/v1/studies/fine").json()["best"]["trial"]
    best = client.get(f"/api/v1/studies/fine/trials/{number}").json()["params"]
    assert {row[0]: row[4] for row in answer["rows"] if row[1] == 2} == {name: best[name] for name in ("lr", "x")}


def test_the_table_of_a_projection_has_the_trials(client: TestClient) -> None:
    answer = client.get(f"{API}/grid_or_random?format=table&x=lr&y=x&with=grid").json()
    assert answer["heads"] == ["study", "lr", "x", "loss", "state"]
    for study in ("fine", "grid"):
        stored = client.get(f"/api/v1/studies/{study}/trials").json()["trials"]
        wanted = sorted((one["params"]["lr"], one["params"]["x"]) for one in stored if not one["baseline"])
        assert sorted((row[1], row[2]) for row in answer["rows"] if row[0] == study) == wanted


def test_the_table_of_layers_has_both_norms_of_each(client: TestClient) -> None:
    answer = client.get("/api/v1/studies/digits/figures/layers?format=table").json()
    assert answer["heads"] == ["layer", "epoch", "gradient (log10)", "weights (log10)"]
    layers, epochs = ({row[k] for row in answer["rows"]} for k in (0, 1))
    assert len(layers) > 1
    assert len(answer["rows"]) == len(layers) * len(epochs)
    assert all(-9 < norm < 3 for row in answer["rows"] for norm in row[2:])


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
