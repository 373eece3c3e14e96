"""Rounds: the page and the API say the same, by round and so far."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient

from hpsearch.written import number


def test_the_page_and_the_api_say_the_same(client: TestClient) -> None:
    told = client.get("/api/v1/studies/fine/rounds").json()["rounds"]
    page = client.get("/s/fine/rounds").text.split('data-live="rounds"')[1].split("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">(\d+)</th><td>(\d+)</td><td>([\d.e-]+).*?>#(\d+)<', page)
    assert len(rows) == len(told) == 2
    assert rows == [
        (str(one["round"]), str(one["trials"]), number(one["interval"]["mean"]), str(one["best"]["trial"]))
        for one in told
    ]


def test_the_best_of_a_round_and_so_far(client: TestClient) -> None:
    told = client.get("/api/v1/studies/fine/rounds").json()["rounds"]
    rows = client.get("/api/v1/studies/fine/trials?limit=1000").json()["trials"]
    best: list[float] = []
    for one in told:
        values = [row["value"] for row in rows if not row["baseline"] and row["batch"] == one["round"] - 1]
        best.append(min(value for value in values if value is not None))
        assert one["best"]["value"] == best[-1]
        assert one["best_so_far"]["value"] == min(best)
        assert one["trials"] == len(values)


def test_a_strategy_that_does_not_narrow_has_no_windows(client: TestClient) -> None:
    assert "No rounds" in client.get("/s/grid/rounds").text
    told = client.get("/api/v1/studies/grid/rounds").json()["rounds"]
    assert told
    assert all(one["windows"] == one["reasons"] == {} for one in told)
