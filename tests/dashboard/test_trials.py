"""The table of trials: found, sorted, paged, chosen columns; the address says all of it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r'<tr data-trial="(\d+)"', text)]


def following(text: str) -> str:
    found = re.search(r'rel="next" href="([^"]+)"', text)
    return found[1].replace("&amp;", "&") if found else ""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory):
    """A study of 130 trials that tie in threes, and a client."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "t.py").write_text("def f(run):\n    return round(run['x'] * 40) / 40\n")
    url = f"sqlite:///{folder}/record.db"
    space = {"x": {"uniform": [0, 1]}, "how": ["<b>one", "two"], "fixed": 3}
    study = hp.define(
        name="many", objective=f"{folder}/t.py:f", search_space=space, metric={"loss": "minimize"}, strategy="random",
        n_trials=130,
    )  # fmt: skip
    hp.run(study, db=url, on="inline")
    with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1") as client:
        yield client, hp.load("many", url)


@pytest.mark.parametrize("sort", ["rank", "-rank", "number", "-x", "how", "-loss"])
def test_pages_hold_every_trial_once_in_order(many, sort: str) -> None:
    client, results = many
    seen, address = [], f"?sort={sort}"
    while address:
        text = client.get(f"/s/many/trials{address}").text
        seen.append(numbers(text))
        address = following(text)
    assert [len(page) for page in seen] == [50, 50, len(results.trials) - 100]
    got = [n for page in seen for n in page]
    assert sorted(got) == list(range(len(results.trials)))
    if sort == "rank":
        assert got == [t.number for t in results.top(len(results.trials))]


def test_the_next_page_begins_after_the_last_row_whatever_came_in(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("def f(run):\n    return run['x']\n")
    url = f"sqlite:///{tmp_path}/record.db"
    fields = {
        "name": "s", "objective": f"{tmp_path}/t.py:f", "search_space": {"x": {"uniform": [0, 1]}},
        "strategy": "random", "metric": {"loss": "minimize"}, "baseline": False,
    }  # fmt: skip
    hp.run(hp.define(n_trials=60, **fields), db=url, on="inline")
    with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1") as client:
        first = client.get("/s/s/trials").text
        hp.run(hp.define(n_trials=90, **fields), db=url, on="inline", extend=True)
        second = client.get(f"/s/s/trials{following(first)}").text
        third = client.get(f"/s/s/trials{following(second)}").text if following(second) else ""
    seen = numbers(first) + numbers(second) + numbers(third)
    assert len(seen) == len(set(seen)), "no trial twice"
    assert set(range(60)) <= set(seen), "and none of the first is lost"


def test_heads_sort_and_say_how(many) -> None:
    client, _ = many
    text = client.get("/s/many/trials?where=x<0.5&col=x&col=value").text
    heads = re.findall(r'<th scope="col"( aria-sort="\w+")?><a href="\?([^"]+)">(\w+)', text)
    assert [(word, sort.strip()) for sort, _, word in heads] == [
        ("trial", ""), ("x", ""), ("loss", 'aria-sort="ascending"'),
    ]  # fmt: skip
    assert unquote(heads[2][1]) == "where=x<0.5&amp;col=x&amp;col=value&amp;sort=-rank"
    again = client.get("/s/many/trials?sort=-x").text
    assert 'aria-sort="descending"><a href="?sort=x">x' in again


def test_the_count_says_what_is_shown(many) -> None:
    client, results = many
    text = client.get("/s/many/trials?where=how=two&sort=number").text
    fitting = [t.number for t in results.trials if t.params["how"] == "two"]
    assert f"1 to 50 of {len(fitting)} trials that fit; {len(results.trials)} in all" in text
    assert numbers(text) == fitting[:50]
    assert 'action="/s/many/compare"' in text
    assert f'form="compare" name="t" value="{fitting[0]}"' in text
    assert "style=" not in text


def test_what_was_typed_is_kept_with_its_mistake(many) -> None:
    client, results = many
    answer = client.get("/s/many/trials?where=y<3&where=x<0.2")
    assert answer.status_code == 200
    assert 'value="y&lt;3" ' in answer.text
    assert "the trials have no &#39;y&#39;; they have number" in answer.text
    assert f"of {sum(t.params['x'] < 0.2 for t in results.trials)} trials that fit" in answer.text
    assert "format=csv&amp;where=x%3C0.2" in answer.text, "what is downloaded leaves the mistake out"


def test_columns_are_chosen(many) -> None:
    client, _ = many
    text = client.get("/s/many/trials?col=fixed&col=nonsense").text
    assert re.findall(r'<th scope="col"[^>]*><a [^>]*>(\w+)', text) == ["trial", "fixed"]
    usual = client.get("/s/many/trials").text
    assert re.findall(r'<th scope="col"[^>]*>(?:<a [^>]*>)?(\w+)', usual) == [
        "trial",
        "state",
        "loss",
        "seeds",
        "x",
        "how",
    ]
    assert "<b>one" not in usual
    assert "&lt;b&gt;one" in usual


def test_states_are_words_and_values_have_intervals(client: TestClient) -> None:
    text = client.get("/s/fine/trials").text
    assert '<span class="state diverged">diverged</span>' in text
    assert "±" in text
    alone = client.get("/s/fine/trials?state=diverged").text
    assert "±" not in re.sub(r"<caption.*?</caption>", "", alone)


def test_a_place_that_is_none_is_refused(client: TestClient) -> None:
    assert client.get("/s/fine/trials?cursor=nonsense").status_code == 422
    assert client.get("/s/fine/trials?sort=nonsense").status_code == 422
    assert client.get("/s/nothing/trials").status_code == 404
