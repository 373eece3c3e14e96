"""Every page of a real study answers, and says what it is about."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.trial import State
from hpsearch.written import number


@pytest.mark.parametrize("study", ["digits", "fine", "grid"])
def test_the_overview_says_the_best(client: TestClient, study: str) -> None:
    answer = client.get(f"/s/{study}")
    assert answer.status_code == 200
    assert f"<title>{study} · hpsearch</title>" in answer.text
    assert "±" in answer.text


def test_the_overview_says_what_the_report_says(client: TestClient, url: str) -> None:
    import html

    from hpsearch.findings import verdict_of

    text = html.unescape(client.get("/s/fine").text)
    said = verdict_of(hp.load("fine", url))
    assert len(said) > 2
    for sentence in said:
        assert sentence.text in text
        assert sentence.way_out in text


def test_the_tiles_say_how_far_it_is_for_who_comes_back(client: TestClient, url: str) -> None:
    results = hp.load("fine", url)
    text = client.get("/s/fine").text
    done, diverged = len(results.trials), results.study.counts[State.DIVERGED]
    assert results.best is not None
    assert f'data-done="{done}" data-failed="0" data-best="{results.best.value:.4g}"' in text
    assert f"{done} / {done}" in text
    assert f"0 / 0 / {diverged}" in text
    assert 'id="since"' in text


def test_the_best_trials_are_held_against_the_first(client: TestClient) -> None:
    text = client.get("/s/fine").text
    table = text.partition('aria-labelledby="top"')[2].partition("</table>")[0]
    numbers = [trial["number"] for trial in client.get("/api/v1/studies/fine/trials?sort=rank").json()["trials"]]
    best = [client.get(f"/api/v1/studies/fine/trials/{n}").json() for n in numbers[:2]]
    first, second = ({run["seed"]: run["value"] for run in trial["runs"]} for trial in best)
    behind = sum(second[seed] - first[seed] for seed in first) / len(first)
    rows = table.split("<tr")[2:]
    assert [row.rpartition("<td>")[2].partition("</td>")[0] for row in rows[:2]] == ["–", number(behind, 2)]
    assert "who is better, <code>hpsearch confirm</code> shows" in table
    none = client.get("/s/fine?where=lr<0").text
    assert "No trial that fits is complete." in none
