"""How often "beats" is said of trials that are alike: at most alpha, in 10,000 simulations each (see docs/verdict.md).

The metric's law is normal, skewed, of heavy tails, or coarse; a seed shifts all trials alike. Simulated in one array,
through the very functions that ``paired``, ``pairs`` and ``judge`` decide with.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hpsearch.confirm import against, comparisons, confirmation
from hpsearch.finals import Race, begin
from hpsearch.race import judge, schedule, worse
from hpsearch.trial import Direction, Run, RunKey, Stage, State, Trial
from hpsearch.verdict import difference, holm, min_seeds, paired, pairs, t_test

ALPHA, TIMES = 0.05, 10_000
#: of 10,000 at a true rate of alpha: exceeded once in 3,000
SLACK = 3.4 * math.sqrt(ALPHA * (1 - ALPHA) / TIMES)

LAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "lognormal": lambda rng, shape: rng.lognormal(0, 1, shape),
    "t, 3 df": lambda rng, shape: rng.standard_t(3, shape),
    "accuracy, 360 images": lambda rng, shape: rng.binomial(360, 0.975, shape) / 360,
    "accuracy, 40 images": lambda rng, shape: rng.binomial(40, 0.95, shape) / 40,
    "one in ten fails": lambda rng, shape: rng.normal(size=shape) + 30 * (rng.random(shape) < 0.1),
}


def simulate(law, trials, seeds, *, shared=True):
    """Losses (times, trials, seeds) of trials that are alike."""
    rng = np.random.default_rng(sum(map(ord, law)) + 1000 * trials + seeds)
    values = LAWS[law](rng, (TIMES, trials, seeds))
    if shared and "accuracy" not in law:
        values = values + rng.normal(size=(TIMES, 1, seeds))
    return values


def pair_rate(losses):
    """How often one of two is said to beat the other, as ``paired`` decides."""
    assert losses.shape[-1] >= min_seeds(ALPHA)
    *_, p = t_test(difference(losses[:, 1], losses[:, 0]))
    return float((p <= ALPHA).mean())


def pairs_shown(losses):
    """Which pairs (times, pairs) are told apart among several, as ``pairs`` decides, and their trials."""
    assert losses.shape[-1] >= min_seeds(ALPHA)
    a, b = np.triu_indices(losses.shape[1], 1)
    *_, p = t_test(difference(losses[:, b], losses[:, a]))
    return holm(p)[0] <= ALPHA, (a, b)


def races(losses, looks):
    """After each look of races that none ends for futility, as ``judge`` decides: (who is left, who leads)."""
    times, trials, _ = losses.shape
    alive = np.ones((times, trials), bool)
    for seeds in looks:
        level = ALPHA / len(looks)
        leader, drop, _ = worse(losses[..., :seeds], alive, level=level, contenders=trials, least=min_seeds(ALPHA))
        alive = alive & ~drop
        yield alive, leader


def race(losses, looks):
    """Who is left (times, trials) at its end."""
    return list(races(losses, looks))[-1][0]


def shipped(losses, looks, *, corrected=True):
    """At each look, were it the last: whether the leader is said to beat the baseline (0), as ``against`` decides."""
    times, trials, _ = losses.shape
    baseline = losses[:, 0].copy()
    for seeds, (alive, leader) in zip(looks, races(losses, looks), strict=True):
        baseline[~alive[:, 0], seeds:] = np.nan  # who is dropped trains no more
        ours = losses[np.arange(times), leader, :seeds]
        _, mean, _, p = t_test(difference(baseline[:, :seeds], ours))
        if corrected:
            shown = (p * comparisons(trials, len(looks)) <= ALPHA) | (alive.sum(-1) == 1)
            yield (leader != 0) & (mean > 0) & shown & ~alive[:, 0]  # while it is in the race, they tie
        else:
            yield (leader != 0) & (mean > 0) & (p <= ALPHA)


@pytest.mark.parametrize("seeds", [6, 8, 16])
@pytest.mark.parametrize("law", LAWS)
def test_a_against_a(law, seeds):
    assert pair_rate(simulate(law, 2, seeds)) <= ALPHA + SLACK


@pytest.mark.parametrize("seeds", [6, 8])
@pytest.mark.parametrize("trials", [4, 9])
@pytest.mark.parametrize("law", LAWS)
def test_all_pairs_of_trials_that_are_alike(law, trials, seeds):
    shown, _ = pairs_shown(simulate(law, trials, seeds)[: 4 * TIMES // trials])
    assert shown.any(-1).mean() <= ALPHA + SLACK * math.sqrt(TIMES / len(shown))


@pytest.mark.parametrize("law", LAWS)
def test_pairs_that_are_alike_beside_pairs_that_are_not(law):
    """Two and two, far apart: Holm's later steps ask for less, and still tell apart what is alike in alpha at most."""
    losses = simulate(law, 4, 8)
    losses[:, 2:] += 20 * losses[:, 0].std()
    shown, (a, b) = pairs_shown(losses)
    alike = (a < 2) == (b < 2)
    assert shown[:, ~alike].mean() > 0.9
    assert shown[:, alike].any(-1).mean() <= ALPHA + SLACK


@pytest.mark.parametrize("trials", [2, 4, 9])
@pytest.mark.parametrize("law", LAWS)
def test_a_race_among_trials_that_are_alike(law, trials):
    alive = race(simulate(law, trials, 16), schedule())
    assert (~alive.all(-1)).mean() <= ALPHA + SLACK


@pytest.mark.parametrize("trials", [2, 9])
@pytest.mark.parametrize("law", LAWS)
def test_whom_a_race_among_trials_that_are_alike_has_chosen_beats_no_baseline(law, trials):
    said = list(shipped(simulate(law, trials, 16), schedule()))
    assert np.logical_or.reduce(said).mean() <= ALPHA + SLACK


def test_the_simulation_would_see_that_the_winner_was_chosen_by_the_same_values():
    *_, said = shipped(simulate("normal", 9, 16), schedule(), corrected=False)
    assert said.mean() > 2 * ALPHA


def test_the_best_of_a_search_would_beat_its_baseline_too_often_on_the_seeds_that_chose_it():
    """Why a study that was not confirmed is never said to have beaten anything."""
    losses = simulate("normal", 16, 8)
    best = losses[np.arange(TIMES), losses.mean(-1).argmin(-1)]
    assert pair_rate(np.stack([best, losses[:, 0]], 1)) > ALPHA + SLACK


DIGITS = json.loads((Path(__file__).parent / "digits_seeds.json").read_text())


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("trial", range(3))
def test_a_real_trial_against_itself(trial, metric):
    """64 runs of one setting of the digits MLP, dealt at random to sides that are then compared, or race.

    The sides are of one pool, so they differ a little more than chance: of 64 normal numbers, 5.2 % with 6 seeds.
    """
    pool, rng = np.array(DIGITS["trials"][trial][metric]), np.random.default_rng(trial)
    dealt = pool[rng.random((TIMES, 64)).argsort(1)]
    for seeds in (6, 8, 16):
        assert pair_rate(dealt[:, : 2 * seeds].reshape(TIMES, 2, seeds)) <= ALPHA + SLACK + 0.002
    assert (~race(dealt.reshape(TIMES, 4, 16), schedule()).all(-1)).mean() <= ALPHA + SLACK


@pytest.mark.parametrize("law", LAWS)
def test_the_best_and_its_equals_stay_while_others_go(law):
    """Three bests, three a little worse, three much worse: whoever is dropped first, no best is, but for alpha."""
    losses = simulate(law, 9, 16)
    losses[:, 3:6] += 0.5 * losses[:, 0].std()
    losses[:, 6:] += 5 * losses[:, 0].std()
    alive = race(losses, schedule())
    assert (~alive[:, :3].all(-1)).mean() <= ALPHA + SLACK
    assert alive[:, 6:].any(-1).mean() < 0.5


def test_the_simulation_would_see_a_rule_that_is_too_bold():
    """Without the correction for looks and contenders, far too many races drop someone."""
    losses = simulate("normal", 9, 16)
    alive = np.ones(losses.shape[:2], bool)
    for seeds in schedule():
        alive &= ~worse(losses[..., :seeds], alive, level=36 * ALPHA, contenders=9, least=2)[1]
    assert (~alive.all(-1)).mean() > 3 * ALPHA


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 8), (1.0, 6), (1.0, 10), (1.0, 16), (2.0, 6)])
def test_power_is_what_statsmodels_computes(effect, seeds):
    from statsmodels.stats.power import TTestPower

    rng = np.random.default_rng(seeds)
    *_, p = t_test(rng.normal(effect, 1, (TIMES, seeds)))
    expected = TTestPower().power(effect, seeds, ALPHA)
    assert (p <= ALPHA).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / TIMES) + 0.002)


def test_the_simulated_functions_decide_as_the_public_ones():
    losses = simulate("normal", 9, 16)
    losses[:, 4:] += 2.0
    kept = race(losses[:40], schedule())
    together, _ = pairs_shown(losses[:40])
    for number in range(40):
        values = {str(k): dict(enumerate(row)) for k, row in enumerate(losses[number].tolist())}
        if number < 8:
            told = [pair.beats or pair.beaten for pair in pairs(values, Direction.MINIMIZE)]
            assert told == together[number].tolist()
        one = paired(values["0"], values["4"], Direction.MINIMIZE)
        *_, p = t_test(difference(losses[number, 4], losses[number, 0]))
        assert (one.beats or one.beaten) == (p <= ALPHA)
        for look, seeds in enumerate(schedule(), 1):
            shown = {name: {s: v for s, v in by.items() if s < seeds} for name, by in values.items()}
            judged = judge(shown, Direction.MINIMIZE, contenders=9, look=look, looks=3)
            for name in judged.drop:
                del values[name]
        assert sorted(map(int, values)) == np.flatnonzero(kept[number]).tolist()


def test_the_simulated_checklist_decides_as_the_public_one():
    """Races as ``confirm`` makes them, trial by trial; who leads at the end is taken, as all cost the same."""
    losses = simulate("normal", 4, 16, shared=False)[:24]
    losses[8:, 0] += np.linspace(0.5, 4, 16)[:, None]
    losses[18:, 1] -= 5
    said = np.array(list(shipped(losses, schedule())))
    seen = set()
    for number, values in enumerate(losses):
        trials = [
            Trial(number=n, params={}, state=State.COMPLETE, value=0.0, baseline=n == 0,
                  runs=(Run(key=RunKey(n, 99), state=State.COMPLETE, value=0.0),))
            for n in range(4)
        ]  # fmt: skip
        terms, decisions = begin(trials, Direction.MINIMIZE), []
        assert terms.looks == schedule()
        over = False
        while not over:
            answer = Race(terms, Direction.MINIMIZE, begun=bool(decisions))(trials)
            decisions += answer.decisions
            over = answer.over
            made = [
                Run(
                    key=run.key,
                    stage=Stage.CONFIRM,
                    state=State.COMPLETE,
                    value=float(values[run.key.trial, run.key.seed]),
                )
                for run in answer.runs
            ]
            trials = [
                Trial(number=t.number, params={}, state=t.state, value=t.value, baseline=t.baseline,
                      runs=(*t.runs, *(run for run in made if run.key.trial == t.number)))
                for t in trials
            ]  # fmt: skip
        found = confirmation(trials, decisions, Direction.MINIMIZE)
        look = terms.looks.index(found.end.details["seeds"])
        chosen = trials[found.chosen]
        beats = bool(chosen.number and against(chosen, trials[0], found, Direction.MINIMIZE).better)
        assert beats == said[look, number]
        seen.add((beats, found.end.details["winner"] is None))
    assert seen >= {(True, True), (True, False), (False, True)}
