"""Every route on a real record: its model holds all that it says, and it says what the record and the CLI say."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

import hpsearch as hp
from hpsearch.dashboard.api import conclusions, courses, models
from hpsearch.verdict import spread
from tests.dashboard.conftest import answer_of, printed, without

API = "/api/v1"
ROUTES: dict[str, type] = {
    "/studies": models.StudyPage,
    "/studies/{s}": models.WholeStudy,
    "/studies/{s}/trials": models.TrialPage,
    "/studies/{s}/trials?format=columns": models.TrialColumns,
    "/studies/{s}/trials/1": models.WholeTrial,
    "/studies/{s}/trials/1/curves": models.TrialCurves,
    "/studies/{s}/trials/1/layers": models.LayerNorms,
    "/studies/{s}/compare?a=0&b=1": conclusions.TrialComparison,
    "/compare?s={s}&s=grid&s=digits": conclusions.StudyComparison,
    "/studies/{s}/importance": conclusions.ImportancesTold,
    "/studies/{s}/rounds": courses.Rounds,
    "/studies/{s}/workers": courses.Workers,
    "/studies/{s}/losses": courses.Losses,
    "/studies/{s}/diagnostics": courses.Diagnostics,
    "/studies/{s}/ship": courses.ShippingTold,
    "/studies/{s}/trials/1/log": courses.RunLog,
    "/studies/{s}/decisions": conclusions.Decisions,
}


def asked(client: TestClient, path: str) -> Any:
    assert client.get(API + path).status_code == 200
    return answer_of(client, API + path)


@pytest.mark.parametrize("study", ["digits", "fine"])
@pytest.mark.parametrize("path", ROUTES)
def test_an_answer_is_what_its_model_says_and_nothing_else(client: TestClient, path: str, study: str) -> None:
    answer = asked(client, path.format(s=study))
    adapter = TypeAdapter(ROUTES[path])
    assert adapter.dump_python(adapter.validate_python(answer), mode="json") == answer


def test_the_command_line_says_the_same(
    client: TestClient, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSEARCH_DB", url)

    def cli(*words: str) -> Any:
        return printed(capsys, monkeypatch, *words)

    page = asked(client, "/studies")
    assert without(page, "total", "next") == cli("list")
    for one in page["studies"]:
        assert {"schema": 2, **one} == cli("status", one["study"])
        whole, decisions = (asked(client, f"/studies/{one['study']}{path}") for path in ("", "/decisions"))
        assert without(whole, "revision") | without(decisions, "study") == cli("show", one["study"])
        assert without(whole, "schema", "revision", "interval", "spec") == one
    diverged = next(trial.number for trial in hp.load("fine", url).trials if trial.state == "diverged")
    for study, number in (("digits", 2), ("fine", diverged)):
        told = cli("show", f"{study}/{number}")
        assert all(isinstance(run.pop("curves"), dict) for run in told["runs"])  # the API has a route for them
        assert asked(client, f"/studies/{study}/trials/{number}") == told
    best = cli("best", "digits")["best"][0]
    found = asked(client, f"/studies/digits/trials/{best['trial']}")
    assert best == {key: found[key] for key in best}
    assert asked(client, "/studies/digits/compare?a=1&b=2") == cli("compare", "digits/1", "digits/2")
    assert asked(client, "/compare?s=fine&s=grid") == cli("compare", "fine", "grid")
    assert asked(client, "/studies/fine/importance") == cli("importance", "fine")
    ship = asked(client, f"/studies/digits/ship?trial={best['trial']}")
    assert without(ship, "seen", "confirmed", "weights") == cli("ship", f"digits/{best['trial']}")


def test_a_trial_has_every_metric_with_its_interval(client: TestClient, url: str) -> None:
    stored = hp.load("digits", url).trial(2).trial
    found = asked(client, "/studies/digits/trials/2")
    expected = spread(list(stored.values().values()))
    metric = found["metrics"]["val_loss"]
    assert (metric["mean"], metric["low"], metric["high"], metric["n"]) == (
        expected.mean,
        expected.low,
        expected.high,
        3,
    )
    assert metric["mean"] == pytest.approx(stored.value)
    assert {"val_accuracy", "train_loss"} <= found["metrics"].keys()
    assert found["runs"][0]["environment"]["torch"]
    assert found["commands"]["rerun"].splitlines()[-1] == f"hpsearch rerun digits/2 --verify --db {url}"
    assert "attempt(study, {}, seed=seed" in found["commands"]["python"]


def test_a_trial_that_diverged_says_so(client: TestClient) -> None:
    diverged = asked(client, "/studies/fine/trials?state=diverged")["trials"]
    assert diverged
    assert all(row["value"] is None and row["diverged"] for row in diverged)
    found = asked(client, f"/studies/fine/trials/{diverged[0]['number']}")
    assert found["diverged"]
    assert found["metrics"]["loss"]["mean"] is None
    assert found["metrics"]["loss"]["diverged"] == 3


def test_curves_are_thinned_and_their_ends_kept(client: TestClient, url: str) -> None:
    whole = asked(client, "/studies/fine/trials/1/curves")
    stored = {c.run.seed: c for c in hp.load("fine", url).archive.curves("fine", [1]) if c.metric == "loss"}
    for run in whole["runs"]:
        assert run["values"] == list(stored[run["seed"]].values)
    assert whole["shown"] == whole["total"] == sum(len(run["epochs"]) for run in whole["runs"])
    few = asked(client, "/studies/fine/trials/1/curves?max_points=6")
    assert few["shown"] == 6 < few["total"] == whole["total"]
    for run, long in zip(few["runs"], whole["runs"], strict=True):
        assert run["epochs"] == [long["epochs"][0], long["epochs"][-1]]
    column = [run["values"][0] for run in whole["runs"]]
    expected = spread(column)
    band = whole["band"]
    assert (band["low"][0], band["high"][0], band["n"]) == (expected.low, expected.high, 3)
    assert band["mean"][0] == pytest.approx(math.fsum(column) / 3)
    spanned = asked(client, "/studies/fine/trials/1/curves?band=range")["band"]
    assert (spanned["low"][0], spanned["high"][0]) == (min(column), max(column))
    assert asked(client, "/studies/fine/trials/1/curves?band=none")["band"] is None


def test_an_unknown_metric_is_told_the_known_ones(client: TestClient) -> None:
    answer = client.get(f"{API}/studies/digits/trials/1/curves?metric=nope")
    assert answer.status_code == 404
    assert "val_accuracy" in answer.json()["hint"]


def test_rounds_are_told_with_their_best(client: TestClient, url: str) -> None:
    stored = hp.load("fine", url)
    own = [trial for trial in stored.trials if not trial.baseline]
    found = asked(client, "/studies/fine/rounds")["rounds"]
    assert found[0]["windows"] == {"lr": [1e-4, 1.0], "x": [0.0, 1.0]}
    assert sum(one["trials"] for one in found) == len(own)
    assert found[-1]["best_so_far"]["value"] == min(trial.value for trial in own if trial.value is not None)
    assert found[0]["diverged"]


def test_workers_of_a_time(client: TestClient) -> None:
    found = asked(client, "/studies/fine/workers")["workers"]
    runs = [run for worker in found for run in worker["runs"]]
    n = sum(asked(client, "/studies/fine")["trials"].values())
    assert len(runs) == sum(worker["total"] for worker in found) == 3 * n
    assert all(0 < worker["busy"] <= 1 for worker in found)
    middle = sorted(run["ended"] for run in runs)[len(runs) // 2]
    later = asked(client, f"/studies/fine/workers?from={middle}")["workers"]
    expected = [run for run in runs if run["ended"] > middle]
    assert expected
    assert [run for worker in later for run in worker["runs"]] == expected
    assert asked(client, "/studies/digits/workers?to=2001-01-01T00:00:00Z")["workers"] == []
    backwards = client.get(f"{API}/studies/digits/workers?from=2001-01-02T00:00:00Z&to=2001-01-01T00:00:00Z")
    assert backwards.status_code == 422


def test_times_are_utc(client: TestClient) -> None:
    assert asked(client, "/studies/digits")["created"].endswith("Z")
    assert asked(client, "/studies/digits/trials/1")["runs"][0]["started"].endswith("Z")


@pytest.mark.parametrize("path", [p for p in ROUTES if p.startswith("/studies/{s}") and p[-4:] != "/log"])
def test_what_is_known_is_not_sent_again(client: TestClient, path: str) -> None:
    asked(client, path.format(s="fine"))
    first = client.get(API + path.format(s="fine"))
    while "retry-after" in first.headers:  # it is being computed
        time.sleep(0.2)
        first = client.get(API + path.format(s="fine"))
    again = client.get(API + path.format(s="fine"), headers={"if-none-match": f'"x", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(API + path.format(s="fine"), headers={"if-none-match": 'W/"other"'})
    assert other.json() == first.json()


def test_the_report_is_a_file(client: TestClient) -> None:
    answer = client.get(f"{API}/studies/grid/report")
    assert answer.headers["content-disposition"] == 'attachment; filename="grid.html"'
    assert "The best trial is" in answer.text
    assert answer.headers["content-encoding"] == "gzip"


def test_metrics_for_prometheus(client: TestClient) -> None:
    lines = client.get("/metrics").text.splitlines()
    assert 'hpsearch_studies{state="complete"} 3.0' in lines
    counts = asked(client, "/studies/fine")["trials"]
    for state, n in counts.items():
        assert f'hpsearch_trials{{study="fine",state="{state}"}} {n}.0' in lines


def test_the_documentation_has_every_route(client: TestClient) -> None:
    page = client.get("/docs").text
    schema = client.get(f"{API}/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}<" in page
            assert operation["description"].split(":")[0].split("'")[0][:30] in page
            assert {"401", "422"} <= operation["responses"].keys()
            assert "application/problem+json" in operation["responses"]["401"]["content"]
    assert "curl &#39;http://127.0.0.1:8787/api/v1/studies/" in page
