"""Studies of every odd kind, run for real: none of what a page expects, too much of it, or all of it too long."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import hpsearch as hp
from hpsearch import actions
from hpsearch.errors import UnusableError

TRAIN = """
import math
LONG = "m" * 200
def good(run):
    run.report(0, loss=run["x"], **{LONG: 1.0})
    return run["x"] + run.seed / 1000
def diverged(run):
    return math.nan
def failing(run):
    raise ValueError("<script>alert(1)</script>" + "e" * 300)
def narrow(run):
    return (run["x"] - 0.3) ** 2
def long(run):
    if run["kind"].startswith("="):
        raise ValueError("e" * 300)
    return run["x"] + run.seed / 1000
"""
EVIL = "</script><script>alert(1)</script>"
FORMULAS = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", EVIL, "v" * 300]
#: the longest name that a study can have; everything else of it is as long as it may be, or has 300 characters
LONG = "l" * 100
#: those with trials
ODD = ["one", "alone", "diverged", "failed", "narrow", LONG]


def make(folder: Path) -> str:
    """The database of the studies."""
    (folder / "train.py").write_text(TRAIN)
    url = f"sqlite:///{folder}/odd.db"

    def run(name: str, function: str, **fields: Any) -> None:
        given: dict[str, Any] = {
            "name": name,
            "objective": f"{folder}/train.py:{function}",
            "search_space": {"x": {"uniform": [0, 1]}, "kind": FORMULAS, "p" * 100: 1, "seed": {"int": [0, 9]}},
            "metric": {"loss": "minimize"},
            "n_trials": 4,
            "baseline": False,
            "strategy": "random",
            "seeds": 2,
        }
        with contextlib.suppress(UnusableError):
            hp.run(hp.define(**given | fields), db=url, on="inline")

    run("one", "good", n_trials=1)
    run("alone", "good", seeds=1, n_trials=30)
    run("diverged", "diverged")
    run("failed", "failing")
    rounds = {"coarse_to_fine": {"rounds": 2, "trials_per_round": 8}}
    run("narrow", "narrow", strategy=rounds, n_trials=16, search_space={"x": {"uniform": [0, 1]}}, seeds=1)
    run("empty", "good", n_trials=1)
    space = {"x": {"uniform": [0, 1]}, "kind": ["=" * 300, "v" * 300], "p" * 100: {"uniform": [0, 1]}, "q" * 100: 1}
    run(LONG, "long", n_trials=8, search_space=space, metric={"m" * 300: "minimize"}, tags=["t" * 300])
    actions.note(url, LONG, "n" * 300)
    actions.note(url, f"{LONG}/0", "n" * 300)
    actions.tag(url, LONG, "t" * actions.LONGEST_TAG)
    with contextlib.closing(sqlite3.connect(folder / "odd.db")) as db, db:
        ids = dict(db.execute("SELECT name, id FROM study"))
        for table in ("metric", "attempt", "run", "trial"):
            with contextlib.suppress(sqlite3.OperationalError):
                db.execute(f"DELETE FROM {table} WHERE study = ?", (ids["empty"],))
    return url
