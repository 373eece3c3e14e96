import math
from dataclasses import replace
from types import SimpleNamespace

from hpsearch.archive import Curve
from hpsearch.compare import at_best_epoch, chances, confirmed, origin_differences, searches, trial_row, verdicts
from hpsearch.trial import Direction, Environment, Run, RunKey, Stage, State, Trial

DOWN = Direction.MINIMIZE


def run(trial, seed, value, state=State.COMPLETE, stage=Stage.SEARCH, repeat=0, **said):
    return Run(key=RunKey(trial, seed, repeat), value=value, state=state, stage=stage, **said)


def trial(number, values, stage=Stage.CONFIRM):
    runs = [run(number, 0, 5.0), *(run(number, 10 + k, value, stage=stage) for k, value in enumerate(values))]
    return Trial(number=number, params={}, state=State.COMPLETE, value=5.0, runs=tuple(runs))


def study(name, strategy="random", **spec):
    spec = {"direction": "minimize", "strategy": {"name": strategy}, "name": name} | spec
    return SimpleNamespace(name=name, spec=spec, code_hash=spec.get("code", "c" * 64))


def test_a_verdict_is_on_confirmation_seeds_where_there_are():
    rows = [trial(0, [1.0 + k / 100 for k in range(8)]), trial(1, [2.0 + k / 90 for k in range(8)])]
    assert confirmed(rows)
    assert not confirmed([*rows, trial(2, [1.0], Stage.EXTRA)])
    found = verdicts([trial_row("s", each, confirmed=True) for each in rows], DOWN)[0]
    assert (found.a, found.b, found.n, found.beats) == ("s/0", "s/1", 8, True)
    assert verdicts([trial_row("s", each) for each in rows], DOWN)[0].n == 9


def test_what_diverged_is_judged_and_what_failed_or_was_repeated_is_not():
    runs = (
        run(0, 0, 1.0),
        run(0, 1, None, State.DIVERGED),
        run(0, 2, None, State.FAILED),
        run(0, 3, 2.0, State.PRUNED),
        run(0, 0, 9.0, repeat=1),
    )
    row = trial_row("s", Trial(number=0, params={}, runs=runs))
    assert row.values == {0: 1.0, 3: 2.0}
    assert row.judged.keys() == {0, 1}
    assert math.isnan(row.judged[1])


def test_a_verdict_says_of_whom_nothing_is_compared():
    def one(number, state, *runs):
        return trial_row("s", Trial(number=number, params={}, state=state, runs=runs))

    rows = [
        one(6, State.COMPLETE, run(6, 0, 1.0), run(6, 1, 2.0)),
        one(1, State.PRUNED, run(1, 0, 3.0, State.PRUNED), run(1, 1, 4.0, State.PRUNED)),
        one(2, State.RUNNING, run(2, 0, None, State.RUNNING)),
        one(3, State.COMPLETE, run(3, 7, 3.0)),
    ]
    said = {(pair.a, pair.b): pair.words for pair in verdicts(rows, DOWN)}
    assert said["s/6", "s/1"] == "not shown: s/1 was pruned"
    assert said["s/1", "s/2"] == "not shown: s/1 was pruned and s/2 has not ended"
    assert said["s/6", "s/3"] == "not shown: no seed in common"


def test_another_metric_is_that_of_the_best_epoch():
    value = at_best_epoch([Curve(run=RunKey(0, 1), metric="acc", epochs=(0, 1, 2), values=(0.1, 0.9, 0.5))])
    assert value(run(0, 1, 1.0, best_epoch=1)) == 0.9
    assert value(run(0, 1, 1.0)) == 0.5
    assert value(run(0, 2, 1.0, best_epoch=1)) is None


def numbered(values):
    return [Trial(number=k, params={}, state=State.COMPLETE, value=v) for k, v in enumerate(values)]


def test_studies_that_differ_in_their_seed_only_are_repetitions():
    told = [
        (study("r0", seed=0), numbered([3.0, 2.0, 1.0, 0.5])),
        (study("r1", seed=1), numbered([3.0, 1.0, 0.9])),
        (study("b0", "bayesian", seed=0), numbered([4.0, 4.0, 0.1])),
        (study("b1", "bayesian", seed=1), numbered([4.0, 4.0, 0.95])),
    ]
    random, bayesian = found = searches(told)
    assert (random.studies, random.n, random.band.method) == (("r0", "r1"), 3, "repetitions")
    assert random.curves == ((3.0, 2.0, 1.0), (3.0, 1.0, 0.9))
    assert [(a, b, p) for a, b, p in chances(found, DOWN)] == [(random, bayesian, 0.25)]


def test_one_study_of_a_strategy_that_learns_says_nothing_of_chances():
    told = [(study("r"), numbered([3.0, 2.0])), (study("b", "bayesian"), numbered([4.0, 1.0]))]
    random, bayesian = found = searches(told)
    assert (random.band.method, bayesian.band) == ("resampled", None)
    assert chances(found, DOWN)[0][2] is None
    grid = searches([told[0], (study("g", "grid"), [replace(t, baseline=t.number == 0) for t in numbered([0.0, 9.0])])])
    assert (grid[1].n, grid[1].curves) == (1, ((9.0,),))
    assert chances(grid, DOWN)[0][2] == 1.0


def test_where_they_come_from():
    here = Environment(python="3.12", torch="2.11", device="cpu", machine="x", packages={"numpy": "2.4"}, data="a" * 16)
    there = replace(here, packages={"numpy": "2.5"}, device="cuda:0", data="b" * 16)
    trials = [Trial(number=0, params={}, runs=(run(0, 0, 1.0, environment=e),)) for e in (here, there)]
    rows = origin_differences([study("a", code="1" * 64), study("b", code="2" * 64)], trials)
    assert {row.name: tuple(row.values) for row in rows} == {
        "code": ("1" * 12, "2" * 12),
        "data": ("a" * 16, "b" * 16),
        "device": ("cpu", "cuda:0"),
        "numpy": ("2.4", "2.5"),
    }
