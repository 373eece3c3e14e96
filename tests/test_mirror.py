"""That a mirror is the record is checked turn by turn in ``conformance/stores.py``; here, of a study that runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import hpsearch as hp
from hpsearch import mirror as module
from hpsearch.archive import Outline, changed
from hpsearch.mirror import Mirror, View
from hpsearch.stores.sql import open_archive

TRAIN = """
def train(run):
    for epoch in range(4):
        run.report(epoch, loss=run["x"] + run.seed / 10 + 1 / (1 + epoch))
    return run["x"]
"""


def toy(folder: Path, n_trials: int) -> hp.Study:
    (folder / "train.py").write_text(TRAIN)
    (folder / "toy.yaml").write_text(
        "name: toy\nobjective: train.py:train\nmetric: {loss: minimize}\n"
        "search_space: {x: {uniform: [0, 1]}, epochs: 4}\n"
        f"strategy: random\nseeds: 2\nn_trials: {n_trials}\nbaseline: false\npruner: successive_halving\n"
    )
    return hp.read_study(folder / "toy.yaml")


@pytest.mark.parametrize("most", [1000, 7])
def test_a_mirror_keeps_up_with_a_study_that_runs(tmp_path: Path, monkeypatch, most: int) -> None:
    """Looks from three threads while it runs: each view is of one moment, and the last one is the whole record."""
    monkeypatch.setattr(module, "MOST", most)
    url = f"sqlite:///{tmp_path}/record.db"
    hp.run(toy(tmp_path, 2), db=url, on="inline")
    mirror, over, views = Mirror(open_archive(url), "toy"), threading.Event(), list[View]()

    def look() -> None:
        while not over.wait(0.01):
            views.append(mirror.refresh())

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    hp.run(toy(tmp_path, 40), db=url, on="inline", extend=True)
    over.set()
    for thread in threads:
        thread.join()
    archive, last = open_archive(url), mirror.refresh()
    assert list(last.trials) == archive.trials("toy")
    assert list(last.decisions) == archive.decisions("toy")
    assert last.summary == archive.study("toy")
    assert (len(last.trials), last.summary.state) == (40, "complete")
    assert len({view.revision for view in views}) > 3
    for view in views:
        done = sum(trial.state.final for trial in view.trials)
        assert done == sum(count for state, count in view.summary.counts.items() if state.final)
        assert view.revision.rev == view.summary.rev


def test_what_is_running_comes_with_the_last_part() -> None:
    def outline(running: int, attempts: int = 1) -> Outline:
        return Outline(final=False, runs=1, queued=0, running=running, paused=0, attempts=attempts, epochs=0)

    known = {0: outline(1), 1: outline(0), 2: outline(0)}
    found = {**known, 2: outline(0, 2), 3: outline(0)}
    assert changed(known, found, most=2) == ([0, 2, 3], 0)
    assert changed(known, found, most=1) == ([2], 1)
