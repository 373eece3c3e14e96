from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from hpsearch.errors import UsageError
from hpsearch.export import export, format_of
from hpsearch.results import load
from hpsearch.store import StudyRecord, Turn, this_process
from hpsearch.stores.sql import open_store
from hpsearch.trial import EpochReport, Finished, Run, RunKey, State, Trial

PARAMS: Sequence[Mapping[str, object]] = [
    {"lr": -0.1, "mode": "=cmd|' /C calc'!A0", "kind": 1},
    {"lr": 1e-5, "mode": "+1", "kind": "all"},
    {"lr": 0.2, "mode": "@x", "kind": None},
    {"lr": 0.3, "mode": 'a,"b"\nc — ü', "kind": True},
]


@pytest.fixture
def results(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'h.db'}"
    spec = {"metric": "loss", "direction": "minimize", "strategy": {"name": "random"}, "seeds": [0], "tags": []}
    store = open_store(url)
    store.open(StudyRecord(name="s", spec=spec, fingerprint="f", code_hash="c"), this_process(), lease_s=60)
    keys = [RunKey(k, 0) for k in range(len(PARAMS))]
    trials = [Trial(number=k, params=p, runs=(Run(key=keys[k]),)) for k, p in enumerate(PARAMS)]
    from hpsearch.store import Claim

    store.write(Turn(trials=trials, claims=[Claim(run=key, attempt=1) for key in keys]))
    epochs = [EpochReport(run=keys[0], attempt=1, epoch=e, metrics={"loss": 1.5 - e, "-x": e}) for e in range(2)]
    ends = [
        Finished(run=keys[0], attempt=1, state=State.COMPLETE, value=0.1 + 0.2, best_epoch=1, last_epoch=1,
                 sealed={"test_loss": 9.0}),
        *(Finished(run=key, attempt=1, state=State.FAILED, reason="=1+1") for key in keys[1:]),
    ]  # fmt: skip
    store.write(Turn(epochs=epochs, finished=ends))
    store.close("complete")
    return load("s", url)


def test_csv_keeps_numbers_and_disarms_formulas(results, tmp_path: Path) -> None:
    assert export(results, tmp_path / "x.csv", "csv") == 4
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["lr"]) for row in rows] == [-0.1, 1e-5, 0.2, 0.3]
    assert [row["mode"] for row in rows] == ["'=cmd|' /C calc'!A0", "'+1", "'@x", PARAMS[3]["mode"]]
    assert [row["reason"] for row in rows] == ["", *["'=1+1"] * 3]
    assert (float(rows[0]["value"]), rows[0]["best_epoch"], rows[0]["state"]) == (0.1 + 0.2, "1", "complete")


@pytest.mark.parametrize("format", ["csv", "parquet", "json"])
def test_no_format_holds_a_test_metric(results, tmp_path: Path, format) -> None:
    for curves in (False, True):
        file = tmp_path / f"x.{format}"
        export(results, file, format, curves=curves)
        assert b"test_loss" not in file.read_bytes()


def test_parquet_reads_back(results, tmp_path: Path) -> None:
    export(results, tmp_path / "x.parquet", "parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert frame["lr"].tolist() == [-0.1, 1e-5, 0.2, 0.3]
    assert frame["mode"].tolist() == [p["mode"] for p in PARAMS]
    assert frame["kind"].fillna("missing").tolist() == ["1", "all", "missing", "True"]
    assert frame["best_epoch"].fillna(-1).tolist() == [1, -1, -1, -1]


def test_json_reads_back(results, tmp_path: Path) -> None:
    export(results, tmp_path / "x.json", "json")
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [{name: row[name] for name in ("lr", "mode", "kind")} for row in rows] == list(PARAMS)
    assert rows[0]["value"] == 0.1 + 0.2
    assert rows[1]["value"] is None


def test_curves_are_one_row_a_metric_and_epoch(results, tmp_path: Path) -> None:
    assert export(results, tmp_path / "x.csv", "csv", curves=True) == 4
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["metric"], r["epoch"], float(r["value"])) for r in rows if r["metric"] == "loss"] == [
        ("loss", "0", 1.5),
        ("loss", "1", 0.5),
    ]
    assert {r["metric"] for r in rows} == {"loss", "'-x"}


def test_a_file_appears_whole_or_not_at_all(results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.csv"
    file.write_text("before")

    def full(self: object, path: Path, **options: object) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", full)
        with pytest.raises(UsageError, match="No space left"):
            export(results, file, "csv")
    assert file.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.db", "x.csv"]
    with pytest.raises(UsageError, match="cannot be written"):
        export(results, tmp_path / "no" / "x.csv", "csv")


def test_format_by_ending() -> None:
    assert [format_of(Path(name)) for name in ("a.csv", "b.PARQUET", "c.d.json")] == ["csv", "parquet", "json"]
    with pytest.raises(UsageError, match="does not say its format"):
        format_of(Path("x.xlsx"))
