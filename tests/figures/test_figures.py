"""What each picture computes, by hand; and that what it draws is JSON, small, labelled and free of markup."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from hpsearch.archive import Curve
from hpsearch.compare import Search
from hpsearch.figures import (
    curves,
    grid_or_random,
    history,
    importances,
    interaction,
    layers,
    lr_curve,
    pairs,
    parallel,
    rounds,
    run_metrics,
    searches,
    seeds,
    subject,
    theme,
    timeline,
    trial_curves,
)
from hpsearch.gain import Band
from hpsearch.importance import Importances, Share
from hpsearch.space import Categorical, Float, SearchSpace
from hpsearch.strategy import Decision
from hpsearch.trial import Direction, Run, RunKey, Stage, State, Trial
from hpsearch.verdict import spread

EVIL = "<script>alert(1)</script>"
SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1, log=True),
        "momentum": Float(0.5, 0.99, reverse_log=True),
        EVIL: Categorical((EVIL, "b")),
    }
)


def trial(number: int, value: float | None, lr: float = 0.1, state=State.COMPLETE, seeds=(0, 1, 2), **more) -> Trial:
    runs = tuple(
        Run(key=RunKey(number, seed), state=state, value=None if value is None else value + 0.01 * seed,
            started=100.0 + number, ended=104.0 + number, worker=f"host:{number % 2}")
        for seed in seeds
    )  # fmt: skip
    params = {"lr": lr, "momentum": 0.9, EVIL: EVIL, **more.pop("params", {})}
    return Trial(number=number, params=params, value=value, sd=0.01 if value is not None and len(seeds) > 1 else None,
                 state=state, runs=runs, **more)  # fmt: skip


def study(trials, strategy="random", direction=Direction.MINIMIZE, metric="val_loss") -> subject.Subject:
    return subject.Subject(study="s", strategy=strategy, metric=metric, direction=direction, space=SPACE, trials=trials)


def many(n: int, bad: int = 0) -> list[Trial]:
    source = random.Random(0)
    made = [trial(k, source.random() + 0.1, SPACE.from_unit([source.random()] * 3)["lr"], seeds=(0,)) for k in range(n)]
    return [replace(t, state=State.DIVERGED, value=None) if t.number < bad else t for t in made]


def marks(figure) -> int:
    """Points, bars and cells that are drawn; gaps between lines aside."""
    count = 0
    for trace in json.loads(figure.to_json())["data"]:
        if "z" in trace:
            count += sum(len(row) for row in trace["z"])
        else:
            ys = trace.get("y") or []
            assert isinstance(ys, list), "plain lists, so that they can be counted"
            count += sum(y is not None for y in ys)
    return count


def drawn_all(s: subject.Subject) -> dict:
    first = s.trials[0] if s.trials else trial(0, None, state=State.QUEUED, seeds=())
    every = {
        "history": history.figure(history.data(s)),
        "curves": curves.figure(curves.data(s, curves_of(s.trials[:8], 150))),
        "lr_curve": lr_curve.figure(lr_curve.data(s, "lr")),
        "grid": grid_or_random.figure(grid_or_random.data([s], "lr", "momentum")),
        "two": grid_or_random.figure(grid_or_random.data([replace(s, strategy="grid"), s], "lr", "momentum")),
        "parallel": parallel.figure(parallel.data(s)),
        "interaction": interaction.figure(interaction.data(s, "lr", "momentum")),
        "seeds": seeds.figure(seeds.data(s)),
        "trial_curves": trial_curves.figure(trial_curves.data(s, first, curves_of([first], 150))),
        "run_metrics": run_metrics.figure(run_metrics.data("s/0/0", s.metric, curves_of([first], 500)[:1], 3)),
    }
    zoomed = rounds.data(replace(s, strategy="coarse_to_fine"), [])
    lanes = timeline.data(s)
    return every | ({"rounds": rounds.figure(zoomed)} if zoomed else {}) | (
        {"timeline": timeline.figure(lanes)} if lanes else {}
    )  # fmt: skip


def curves_of(trials, epochs):
    return [
        Curve(run=run.key, metric="val_loss", epochs=range(epochs), values=[1.0 + run.key.seed] * epochs)
        for t in trials
        for run in t.runs
    ]


CASES = {
    "usual": many(40, bad=5),
    "large": many(3000, bad=800),
    "empty": [],
    "one": [trial(0, 0.5, seeds=(0,))],
    "all tie": [trial(k, 0.5, 10.0 ** (-k / 4)) for k in range(12)],
    "all diverged": [trial(k, None, 10.0 ** (-k / 4), State.DIVERGED) for k in range(12)],
    "all failed": [trial(k, None, 10.0 ** (-k / 4), State.FAILED) for k in range(12)],
    "negative": [trial(k, -5.0 + k, 10.0 ** (-k / 4)) for k in range(12)],
    "queued": [trial(0, None, state=State.QUEUED)],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("direction", list(Direction))
def test_every_picture_of_every_kind_of_study(case: str, direction) -> None:
    for name, figure in drawn_all(study(CASES[case], direction=direction, metric=EVIL)).items():
        text = figure.to_json()
        assert "NaN" not in text, name
        assert "<script" not in text, name
        assert marks(figure) <= theme.MOST_MARKS, name
        layout = figure.to_dict()["layout"]
        shown = [axis for key, axis in layout.items() if key.startswith(("xaxis", "yaxis")) and axis.get("visible", 1)]
        if figure.data and name != "parallel":
            assert any(axis.get("title", {}).get("text") for axis in shown), name
        else:
            assert figure.data or layout["annotations"], name


def test_what_is_left_out_is_said_and_the_best_is_kept() -> None:
    trials = many(3000, bad=800)
    kept, note = subject.some(trials, 500, Direction.MINIMIZE)
    assert len(kept) == 500
    assert note == "500 of 3,000 trials shown; the best kept"
    best = min((t for t in trials if t.value is not None), key=lambda t: t.value)
    assert best in kept
    assert sum(t.value is None for t in kept) == 200
    assert subject.some(trials[:300], 500, Direction.MINIMIZE) == (trials[:300], "")


def test_history_steps_down_with_its_spread() -> None:
    trials = [trial(0, 0.9, baseline=True), trial(1, None, state=State.DIVERGED), trial(2, 0.5), trial(3, 0.7)]
    found = history.data(study(trials))
    assert [(s.trial, s.value) for s in found.steps] == [(0, 0.9), (2, 0.5)]
    for step in found.steps:
        own = spread(list(trials[step.trial].values().values()))
        assert (step.low, step.high) == (own.low, own.high)
        assert own.low is not None
    assert [(p.trial, p.value, p.state) for p in found.points][1] == (1, None, "diverged")
    names = [trace.name for trace in history.figure(found).data]
    assert "95 % interval" in names
    assert any(name.startswith("diverged") for name in names)
    alone = history.figure(history.data(study([trial(0, 0.9, seeds=(0,)), trial(1, 0.5, seeds=(0,))])))
    assert "95 % interval" not in [trace.name for trace in alone.data]
    assert "one seed" in alone.layout.title.text
    up = history.data(study(trials, direction=Direction.MAXIMIZE))
    assert [s.trial for s in up.steps] == [0]


def test_curves_are_means_over_seeds_as_far_as_all_went() -> None:
    trials = [trial(0, 0.5), trial(1, 0.9)]
    told = [
        Curve(run=RunKey(0, 0), metric="val_loss", epochs=[0, 1, 2], values=[1.0, 2.0, 3.0]),
        Curve(run=RunKey(0, 1), metric="val_loss", epochs=[0, 1], values=[3.0, 6.0]),
        Curve(run=RunKey(0, 0), metric="other", epochs=[0], values=[9.0]),
    ]
    (line,) = curves.data(study(trials), told).lines
    assert (line.trial, line.epochs, line.mean) == (0, [0, 1], [2.0, 4.0])
    assert line.low + line.high == pytest.approx([2 - 12.706, 4 - 2 * 12.706, 2 + 12.706, 4 + 2 * 12.706], abs=1e-3)
    long = curves.data(study(trials), curves_of(trials, 1000))
    assert [(len(line.epochs), line.epochs[0], line.epochs[-1]) for line in long.lines] == [(100, 0, 999)] * 2
    assert "100 epochs shown" in long.note


def test_lr_curve_shows_the_cliff() -> None:
    trials = [trial(k, abs(k - 20) / 20 + 0.1, 10 ** (-4 + k / 10)) for k in range(30)]
    trials += [trial(k, None, 10 ** (-4 + k / 10), State.DIVERGED) for k in range(30, 41)]
    found = lr_curve.data(study(trials), "lr")
    assert found.best == (pytest.approx(0.5), 0.1)
    assert found.diverged[0][2] == 0.0
    assert found.diverged[-1] == (pytest.approx(11 / 12), pytest.approx(1), 1.0)
    low = {round(u, 2): v for u, v in found.quantile}
    assert found.quantile[-1][1] is None
    assert min(v for v in low.values() if v is not None) == pytest.approx(0.15)  # the second of the seven nearest
    assert sum(s == "diverged" for *_, s, _ in found.points) == 11
    assert list(found.tick_texts) == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert lr_curve.parameter_of(study([])) == "lr"


def test_rounds_follow_the_zooms() -> None:
    trials = [trial(k, 1.0 - k / 10, 10.0 ** -(1 + k % 2), batch=k // 2) for k in range(4)]
    zoom = Decision(kind="zoom", subject="lr", reason="", details={"old": [1e-4, 1], "new": [1e-2, 1]}, batch=0)
    found = rounds.data(study(trials, "coarse_to_fine"), [zoom])
    lr = found.panels[0]
    assert (found.rounds, lr.windows) == (2, [(0, 0.0, 1.0), (1, pytest.approx(0.5), 1.0)])
    assert lr.best == [(0, pytest.approx(0.5)), (1, pytest.approx(0.5))]
    assert rounds.data(study(trials), [zoom]) is None


def test_grid_and_random_count_the_values_of_the_factor() -> None:
    grid = [trial(k, 1.0, (0.001, 0.1)[k % 2]) for k in range(8)]
    spread = [trial(k, 1.0, 10 ** (-k / 4)) for k in range(8)]
    found = grid_or_random.data([study(grid, "grid"), study(spread)], "lr", "momentum")
    assert [(p.distinct, p.trials, len(p.grid)) for p in found.panels] == [(2, 8, 0), (8, 8, 2)]


def test_parallel_ranks_and_keeps_those_without_a_value() -> None:
    found = parallel.data(study([trial(0, 0.3), trial(1, 0.1), trial(2, None, state=State.FAILED)]))
    assert {line.trial: line.rank for line in found.lines} == {0: 1.0, 1: 0.0, 2: None}
    assert found.lines[-1].trial == 1
    names = [trace.name for trace in parallel.figure(found).data]
    assert any("without a value" in (name or "") for name in names)


def test_importances_have_whiskers() -> None:
    ped = [Share(name="lr", share=0.7, low=0.4, high=0.9), Share(name="wd", share=0.3, low=0.1, high=0.6)]
    found = importances.data(Importances(ped_anova=ped, fanova=ped[::-1], n=400, n_fanova=300, resamples=50))
    bars = importances.figure(found).data[1]
    assert list(bars.y) == ["lr", "wd"]
    assert list(bars.error_x.arrayminus) == pytest.approx([0.3, 0.2])
    assert [share.name for share in found.fanova] == ["lr", "wd"]
    assert "fANOVA on 300" in found.note
    empty = importances.figure(importances.data(Importances(reason="too few")))
    assert empty.layout.annotations[0].text == "too few"


def test_searches_are_steps_with_a_band_where_there_is_one() -> None:
    band = Band(better=(1.0,) * 500, middle=(2.0,) * 500, worse=(math.inf, *[3.0] * 499), method="resampled")
    common = {"n": 500, "areas": (1.5,), "draws": None}
    found = [
        Search(studies=(EVIL,), strategy="random", curves=((None, *[1.5] * 499),), band=band, **common),
        Search(studies=("b",), strategy="bayesian", curves=(tuple(500 - k for k in range(500)),), band=None, **common),
    ]
    seen = searches.data("loss", found)
    assert [(line.study, line.search, line.best[-1]) for line in seen.lines] == [(EVIL, 0, 1.5), ("b", 1, 1)]
    assert seen.lines[0].trials[-1] == 500
    assert len(seen.lines[0].trials) == searches.POINTS
    drawn = searches.figure(seen)
    assert marks(drawn) <= theme.MOST_MARKS
    assert "<script" not in drawn.to_json()
    assert "trials drawn again" in drawn.layout.title.text
    assert searches.figure(searches.data("loss", [])).layout.annotations[0].text == "no trial has a value"


def test_rounds_can_be_played_and_stopped() -> None:
    trials = [trial(k, 1.0 - k / 40, 10.0 ** -(1 + k % 2), batch=k // 2) for k in range(40)]
    found = rounds.data(study(trials, "coarse_to_fine"), [])
    drawn = rounds.figure(found, played=True)
    (frames, _) = drawn.layout.updatemenus[0].buttons[0].args
    assert len(frames) == rounds.FRAMES
    assert all(len(frame["data"]) == len(drawn.data) for frame in frames)
    assert [frame["data"][1]["x"] for frame in frames][-1] == list(drawn.data[1].x)
    assert len(frames[0]["data"][1]["x"]) == 2
    assert len(rounds.until(found, 3).panels[0].points) == 6
    assert not rounds.figure(found).layout.updatemenus


def test_pairs_are_by_seed() -> None:
    a, b = trial(0, 0.5, seeds=(0, 1, 2)), trial(1, 0.505, seeds=(1, 2, 3))
    found = pairs.data(study([a, b]), a, b)
    assert [(seed, round(p, 3), round(q, 3)) for seed, p, q in found.pairs] == [(1, 0.51, 0.515), (2, 0.52, 0.525)]
    assert (found.wins, found.ties, found.unpaired) == (2, 0, [0, 3])
    assert "better on 2 of 2" in pairs.figure(found).layout.title.text
    assert pairs.data(study([a, b], direction=Direction.MAXIMIZE), a, b).wins == 0
    apart = pairs.figure(pairs.data(study([a]), a, trial(2, 0.5, seeds=(7,))))
    assert "no seed in common" in apart.layout.annotations[0].text


def test_layers_are_flagged_where_they_vanish_or_explode() -> None:
    def table(e):
        norms = {"fine": (0.1, 1.0), "dead": (1e-9 if e >= 2 else 0.1, 1.0), "blip": (1e-9 if e == 1 else 0.1, 1.0)}
        return norms if e >= 4 else {**norms, "wild": (500.0 if e < 3 else 1.0, 3.0)}

    found = layers.data("s/0/0", [(e, table(e)) for e in range(6)])
    assert found.flags == {"dead": "gradient vanishes from epoch 2", "wild": "gradient explodes from epoch 0"}
    assert found.gradients[1][-1] == pytest.approx(-9)
    figure = layers.figure(found)
    assert list(figure.data[0].y) == ["fine", "⚠ dead", "blip", "⚠ wild"]
    assert "dead: gradient vanishes from epoch 2" in figure.layout.title.text
    wide = layers.data("s/0/0", [(e, {f"l{k}": (1.0, 1.0) for k in range(200)}) for e in range(500)])
    assert marks(layers.figure(wide)) <= theme.MOST_MARKS
    assert "40 of 200 layers" in wide.note
    assert layers.data("s/0/0", []) is None


def test_timeline_packs_lanes_and_knows_when_a_worker_was_idle() -> None:
    def run(number, start, end, worker="w"):
        key = RunKey(number, 0)
        made = Run(key=key, state=State.COMPLETE, value=1.0, started=start, ended=end, worker=worker)
        return replace(trial(number, 1.0), runs=(made,))

    found = timeline.data(study([run(0, 0, 4), run(1, 0, 2), run(2, 2, 4), run(3, 6, 10), run(4, 1, 3, "v")]))
    assert (found.unit, found.workers, found.lanes) == ("seconds", ["w", "v"], [2, 1])
    assert found.busy == [0.8, 1.0]
    assert {bar.run: bar.lane for bar in found.bars} == {"0/0": 0, "1/0": 1, "2/0": 1, "3/0": 0, "4/0": 0}
    lots = timeline.data(study([run(k, k, k + 1) for k in range(2000)]))
    assert not lots.bars
    assert lots.unit == "minutes"
    assert sum(lots.load[0]) / len(lots.load[0]) == pytest.approx(1.0)


def test_ticks_say_values_in_the_parameters_own_scale() -> None:
    assert subject.ticks(SPACE.parameters["momentum"])[1] == ["0.5", "0.9", "0.99"]
    assert subject.ticks(SPACE.parameters[EVIL])[1] == ["&lt;script&gt;alert(1)&lt;/scrip…", "b"]
    places, _ = subject.ticks(Float(2.0, 3.0, log=True))
    assert (places[0], places[-1]) == (0, 1)


def test_seeds_of_the_best_with_their_interval() -> None:
    found = seeds.data(study([trial(k, 0.5 + k) for k in range(8)]))
    assert [row.trial for row in found.rows] == [0, 1, 2, 3, 4, 5]
    assert found.rows[0].values == [(0, 0.5), (1, 0.51), (2, 0.52)]
    # sd 0.01 of three values: half the interval is 4.3027 * 0.01 / sqrt(3)
    assert found.rows[0].spread.low == pytest.approx(0.51 - 0.02484, abs=1e-5)
    means = seeds.figure(found).data[1]
    assert means.error_x.array[0] == pytest.approx(0.02484, abs=1e-5)
    alone = seeds.figure(seeds.data(study([trial(0, 0.5, seeds=(0,))])))
    assert alone.data[1].error_x.array is None
    assert "nobody knows the spread" in alone.layout.meta["note"]


def test_a_trials_curves_are_a_line_a_run_and_the_mean_of_the_searchs_seeds() -> None:
    one = trial(3, 0.5)
    extra = Run(key=RunKey(3, 9), state=State.COMPLETE, value=0.4, stage=Stage.CONFIRM)
    one = replace(one, runs=(*one.runs, extra))
    told = [
        Curve(run=run.key, metric="val_loss", epochs=range(n), values=[float(run.key.seed)] * n)
        for run, n in zip(one.runs, (4, 3, 4, 5), strict=True)
    ]
    told += [Curve(run=one.runs[0].key, metric="other", epochs=[0], values=[7.0])]
    found = trial_curves.data(study([one]), one, told)
    assert [(line.name, str(line.stage), len(line.epochs)) for line in found.lines] == [
        ("seed 0", "search", 4), ("seed 1", "search", 3), ("seed 2", "search", 4), ("seed 9", "confirm", 5),
    ]  # fmt: skip
    assert found.mean == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert [trace.name for trace in trial_curves.figure(found).data][-2:] == ["seed 9 (confirm)", "mean"]
    assert [trace.showlegend for trace in trial_curves.figure(found).data] == [True, True, True, False, None]


def test_a_runs_metrics_are_strips_the_studys_first() -> None:
    key = RunKey(0, 0)
    told = [Curve(run=key, metric=name, epochs=range(400), values=[1.0] * 400) for name in ("acc", "val_loss", EVIL)]
    found = run_metrics.data("s/0/0", "val_loss", told, 7)
    assert [metric for metric, _, _ in found.curves] == ["val_loss", EVIL, "acc"]
    assert found.curves[0][1][0] == 0
    assert found.curves[0][1][-1] == 399
    assert found.note == "160 epochs of each shown"
    drawn = run_metrics.figure(found)
    assert len(drawn.data) == 3
    assert drawn.layout.shapes[0].x0 == 7
