"""What a lost worker has saved is gone on from only as far as the record knows of it, where rungs are decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.executor import Assignment
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.training.worker import execute
from hpsearch.trial import EpochReport, Finished, PausedReport, Report, RunKey, State

TRAIN = """
def train(run):
    saved = run.checkpoint_dir / "epoch"
    start = int(saved.read_text()) if saved.exists() else 0
    for epoch in range(start, 4):
        saved.write_text(str(epoch + 1))
        run.report(epoch, loss=1.0 / (epoch + 1))
    return 1.0 / (epoch + 1)  # an error where it was saved after its last epoch
"""


def go_on(folder: Path, saved: int, *, attempt: int, until: int | None, told: int | None) -> tuple[list[int], Report]:
    """The epochs that an attempt reports, and its end; ``saved`` epochs are in its folder, ``told`` in the record."""
    (folder / "code.py").write_text(TRAIN)
    place = folder / "files/1/0/checkpoint"
    place.mkdir(parents=True)
    (place / "epoch").write_text(str(saved))
    workload = Workload(
        study="s",
        objective=ObjectiveAddress("code.py", "train", folder),
        metric="loss",
        direction="minimize",
        seed=0,
        files=folder / "files",
    )
    said: list[Report] = []
    assignment = Assignment(run=RunKey(1, 0), params={}, attempt=attempt, until_epoch=until, from_epoch=told)
    execute(assignment, workload, send=said.append, stopped=lambda: False, device="cpu")
    return [report.epoch for report in said if isinstance(report, EpochReport)], said[-1]


@pytest.mark.parametrize(
    ("saved", "until", "told", "epochs"),
    [
        (1, 2, 1, [1]),  # as far as was told
        (1, 2, 0, [0, 1]),  # saved, and killed before anyone heard of it
        (2, 2, 2, [0, 1]),  # told, but not that it waits at the rung
        (3, 2, 1, [0, 1]),
        (4, 2, 1, [0, 1]),  # saved after its last epoch
        (3, None, 2, [0, 1, 2, 3]),
        (2, None, 2, [2, 3]),
        (3, None, 0, [3]),  # without rungs it goes on from what there is
    ],
)
def test_an_attempt_after_a_loss(tmp_path: Path, saved: int, until: int | None, told: int, epochs: list[int]) -> None:
    found, last = go_on(tmp_path, saved, attempt=2, until=until, told=told)
    assert found == epochs
    if until is None:
        assert isinstance(last, Finished)
        assert (last.state, last.value) == (State.COMPLETE, 0.25)
    else:
        assert isinstance(last, PausedReport)
        assert last.epoch == until - 1


def test_a_run_that_was_let_go_on_keeps_its_files(tmp_path: Path) -> None:
    assert go_on(tmp_path, 2, attempt=1, until=3, told=2)[0] == [2]
