"""One group: what happens to one of its runs is nothing to the others."""

import shutil

from hpsearch.trial import PausedReport, State
from tests.training.fusing import MLP, alone, assert_same, assignments, key, together


def test_a_run_that_cannot_be_saved_fails_and_the_others_pause(tmp_path):
    """Somebody cleans up its folder while it trains."""
    runs = assignments([{"dropout": 0.1 * k} for k in range(3)], until=2)

    def stopped(run):
        if run == key(1):
            shutil.rmtree(tmp_path / "lanes/files/1", ignore_errors=True)
        return False

    told = together(MLP, tmp_path / "lanes", runs, stopped=stopped)
    last = told.last(key(1))
    assert (last.state, last.reason, last.last_epoch) == (State.FAILED, "exception", 1)
    assert "files/1" in last.error
    assert_same(told, alone(MLP, tmp_path / "solo", runs), [key(0), key(2)])
    assert all(isinstance(told.last(key(k)), PausedReport) for k in (0, 2))


def test_what_a_run_says_of_its_time_and_engine(tmp_path):
    runs = [*assignments([{"epochs": 4}], until=2), *assignments([{"epochs": 2}], first=1)]
    told = together(MLP, tmp_path, runs)
    for run in (key(0), key(1)):
        last = told.last(run)
        assert last.engine == "vmap, cpu, 2 lanes"
        assert last.seconds > 0
        assert last.environment is not None
