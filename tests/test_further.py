"""Runs beyond the search: what the chooser asks for is made, and the search does not see it."""

from __future__ import annotations

from dataclasses import replace

import hpsearch as hp
from hpsearch.further import Chooser, Further
from hpsearch.ledger import Ledger
from hpsearch.store import Snapshot
from hpsearch.trial import Run, RunKey, Stage, State
from tests.test_ledger import EMPTY, make, play


class Says(Chooser):
    """What a function says, of one stage."""

    stage = Stage.CONFIRM

    def __init__(self, answer, stage=Stage.CONFIRM):
        self._answer, self.stage = answer, stage

    def __call__(self, trials):
        return self._answer(trials)


def searched(study: hp.Study) -> Snapshot:
    """The record of a study whose search is over."""
    trials = {}
    for turn in play(Ledger(study, EMPTY), 4):
        trials.update({trial.number: trial for trial in turn.trials})
        for end in turn.finished:
            runs = [
                replace(r, state=end.state, value=end.value) if r.key == end.run else r
                for r in trials[end.run.trial].runs
            ]
            trials[end.run.trial] = replace(trials[end.run.trial], runs=tuple(runs))
        for scored in turn.scores:
            changes = {"state": scored.state, "value": scored.value, "tell_seq": scored.tell_seq}
            trials[scored.number] = replace(trials[scored.number], **changes)
    return replace(EMPTY, existed=True, trials=[trials[n] for n in sorted(trials)])


def test_further_runs_are_made_as_the_chooser_says_and_change_no_trial():
    study = make(hp.Random(), n_trials=3)
    seen = []

    def chooser(trials):
        seen.append([trial.values(Stage.CONFIRM) for trial in trials])
        done = len(trials[1].values(Stage.CONFIRM))
        if done == 2:
            return Further(over=True)
        return Further(runs=[Run(key=RunKey(n, 2 + done), stage=Stage.CONFIRM) for n in (1, 2)])

    turns = play(Ledger(study, searched(study), chooser=Says(chooser)), 2)
    assert [[run.key for run in turn.runs] for turn in turns if turn.runs] == [
        [RunKey(1, 2), RunKey(2, 2)],
        [RunKey(1, 3), RunKey(2, 3)],
    ]
    assert [len(turn.scores) + len(turn.trials) for turn in turns] == [0] * len(turns)
    assert len(seen) == 3
    assert seen[-1][0] == {}
    assert seen[-1][1].keys() == {2, 3}


def test_a_further_run_in_flight_is_begun_again_and_a_search_leaves_it_alone():
    study = make(hp.Random(), n_trials=2)
    snapshot = searched(study)
    open_run = Run(key=RunKey(1, 9), stage=Stage.CONFIRM, state=State.RUNNING, attempt=1)
    last = replace(snapshot.trials[1], runs=(*snapshot.trials[1].runs, open_run))
    snapshot = replace(snapshot, trials=[snapshot.trials[0], last], running=[open_run.key])
    more = Ledger(study, snapshot, chooser=Says(lambda trials: Further(over=True)))
    more.ask()
    assert [(a.run, a.attempt) for a in more.claim(4, 1)] == [(RunKey(1, 9), 2)]
    seen = []
    other = Ledger(study, snapshot, chooser=Says(lambda trials: seen.extend(trials) or Further(over=True), Stage.EXTRA))
    other.ask()
    assert other.claim(4, 1) == []
    assert [run.key for run in seen[1].runs][-1] == RunKey(1, 9)
    search = Ledger(study, snapshot)
    search.ask()
    assert search.claim(4, 1) == []
    assert search.done
    assert [loss.run for loss in search.take().losses] == [RunKey(1, 9)]
