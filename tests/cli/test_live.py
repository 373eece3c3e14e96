from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hpsearch.cli.live import Log, bar, drawing
from hpsearch.cli.terminal import clip
from hpsearch.progress import Progress
from hpsearch.trial import Direction, State, Trial


def progress(
    *, best: tuple[Trial, ...] = (), failures: tuple[tuple[str, str], ...] = (), **changes: object
) -> Progress:
    fields = {
        "study": "toy",
        "strategy": "coarse_to_fine",
        "metric": "val_loss",
        "direction": Direction.MINIMIZE,
        "counts": {State.RUNNING: 2, State.COMPLETE: 40, State.FAILED: 1},
        "n_trials": 64,
        "runs_done": 200,
        "runs_total": 320,
        "best": best,
        "batch": 1,
        "window": {"lr": (1e-4, 3e-2)},
        "seconds": 13.0,
        "eta_s": 4.0,
        "failures": failures,
        "seeds": (0, 1, 2, 3, 4),
    }
    return Progress(**(fields | changes))


def trial(number: int, value: float, **params: object) -> Trial:
    return Trial(number=number, params=params, state=State.COMPLETE, value=value, sd=0.0057)


def test_the_picture() -> None:
    best = (trial(1, 0.0462, lr=5.53e-3, depth=2), trial(31, 0.0523, lr=3.16e-3, depth=2))
    lines = list(drawing(progress(best=best, failures=(("12/0", "exit:3"),)), 80, 0.0))
    assert re.fullmatch(r"⠋ round 2  ━+╸─+  41/64 trials  0:13  eta 0:04", lines[0])
    assert lines[1] == "  window  lr 0.0001 … 0.03"
    assert lines[2].split() == ["trial", "val_loss", "±", "sd", "(n)", "lr"]
    assert lines[3].split() == ["★", "#1", "0.0462", "0.0057", "(5)", "0.00553"]
    assert lines[5:7] == ["  running 2 · complete 40 · failed 1", "  failed 12/0: exit:3"]
    assert all(cell_len(line) <= 80 for line in lines)


@given(
    st.integers(min_value=10, max_value=120),
    st.dictionaries(st.text(min_size=1, max_size=30), st.text(max_size=50) | st.floats(), max_size=8),
    st.floats(min_value=0, max_value=2),
)
def test_the_picture_fits_any_terminal(columns: int, params: dict[str, object], share: float) -> None:
    shown = progress(best=(trial(1, 1.0, **{}),), runs_done=int(share * 320))
    shown = progress(best=(Trial(number=3, params=params, state=State.COMPLETE, value=1.0),), runs_done=shown.runs_done)
    lines = [clip(line, columns) for line in drawing(shown, columns, 1.0)]
    assert all(cell_len(line) <= columns and "\n" not in line for line in lines)


def test_bar() -> None:
    assert [bar(share, 4) for share in (0, 0.5, 1, 7)] == ["╸───", "━━╸─", "━━━━", "━━━━"]


def test_log_lines_are_few(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("hpsearch.cli.live.time.monotonic", lambda: now[0])
    log = Log()
    with log:
        for step in range(100):
            now[0] = float(step)
            failures = (("4/0", 'exit "3"'),) if step >= 50 else ()
            log(progress(best=(trial(1, 0.5),) if step >= 10 else (), failures=failures))
        log.tell("the server was stopped")
    lines = [line.split(" ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert lines == [
        "progress done=41/64 failed=1 best=#1 val_loss=0.5 eta=4s",
        'failed study=toy run=4/0 reason="exit \\"3\\""',
        "progress done=41/64 failed=1 best=#1 val_loss=0.5 eta=4s",
        'note text="the server was stopped"',
    ]


def test_log_lines_have_what_there_is_room_for(capfd: pytest.CaptureFixture[str]) -> None:
    few, more = {State.COMPLETE: 40}, {State.QUEUED: 3, State.COMPLETE: 40}
    shown = [
        progress(counts=few),
        progress(counts=few, best=(trial(1, 0.5),)),
        progress(counts=more, best=(trial(2, 0.5),), study="a-long-name"),
        progress(counts=more, best=(trial(3, 0.5),), metric="val_balanced_accuracy_of_all_classes"),
    ]
    log = Log()
    log._last = -1e9
    for one in shown:
        log(one)
    lines = [line.split(" ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert lines == [
        "progress study=toy done=40/64 eta=4s",
        "progress done=40/64 best=#1 val_loss=0.5 sd=0.0057 eta=4s",
        "progress done=40/64 queued=3 best=#2 val_loss=0.5 eta=4s",
        "progress done=40/64 best=#3 val_balanced_accuracy_of_all_classes=0.5 eta=4s",
    ]
