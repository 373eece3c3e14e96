"""A record with real studies in it, and the dashboard over it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.cli.app import main
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from tests.dashboard import odd as odd_studies

ROOT = Path(__file__).parents[2]
QUADRATIC = """
import math, random
def train(run):
    noise = random.Random(f"{run.seed} {run['lr']}").gauss(0, 0.02)
    if run["lr"] > 0.6:
        return math.nan
    value = (math.log10(run["lr"]) + 2) ** 2 / 4 + 0.1 * run["x"] + noise + 1
    for epoch in range(4):
        run.report(epoch, loss=value + 1 / (1 + epoch))
    return value
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this session's record is."""
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="session")
def url(folder: Path) -> str:
    """A database: ``digits`` (a real task, 3 seeds), ``fine`` (coarse-to-fine, some trials diverge) and ``grid``."""
    db = f"sqlite:///{folder}/record.db"
    (folder / "train.py").write_text(QUADRATIC)
    space = {"lr": {"log": [1e-4, 1.0]}, "x": {"uniform": [0, 1]}}
    common = {"objective": f"{folder}/train.py:train", "metric": {"loss": "minimize"}, "seeds": 3}
    digits = hp.define(
        name="digits",
        objective=f"{ROOT}/studies/digits.py:DigitsMLP",
        search_space={"lr": {"log": [1e-3, 1]}, "momentum": {"uniform": [0.5, 0.9]}, "dropout": 0.1},
        metric={"val_loss": "minimize"},
        strategy="random",
        n_trials=5,
        seeds=3,
    )
    hp.run(digits, db=db, on="inline")
    fine = {"coarse_to_fine": {"rounds": 2}}
    hp.run(hp.define(name="fine", strategy=fine, n_trials=24, search_space=space, **common), db=db, on="inline")
    points = {"lr": {"log": [1e-3, 0.5], "points": 4}, "x": {"uniform": [0, 1], "points": 3}}
    hp.run(hp.define(name="grid", strategy="grid", search_space=points, **common), db=db, on="inline")
    return db


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[TestClient]:
    """The dashboard, asked without a network."""
    with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1:8787") as made:
        yield made


@pytest.fixture(scope="session")
def odd_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with studies of every odd kind (``odd``)."""
    return odd_studies.make(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="session")
def odd(odd_url: str) -> Iterator[TestClient]:
    """The dashboard over odd studies."""
    with TestClient(make_app(Record(odd_url), Access()), base_url="http://127.0.0.1:8787") as made:
        yield made


def answer_of(client: TestClient, address: str) -> Any:
    """What the API says in the end: what takes seconds is asked for again."""
    end = time.monotonic() + 60
    while True:
        answer = client.get(address)
        told = answer.json()
        if not (told.get("again") or "retry-after" in answer.headers):
            return told
        assert time.monotonic() < end
        time.sleep(0.2)


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """What a command says with ``--json``."""
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["hpsearch", *words, "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    return json.loads(capsys.readouterr().out)


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    """All of it but these names."""
    return {name: value for name, value in found.items() if name not in names}
