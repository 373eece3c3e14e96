"""``hpsearch compare``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.address import Address, parse, study_of, trial_of
from hpsearch.archive import Archive, StudySummary
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import (
    duration,
    interval_text,
    number,
    out,
    out_json,
    print_table,
    printable,
    say,
    setting_text,
)
from hpsearch.errors import CheckError, NotFoundError, UsageError
from hpsearch.trial import Direction, Trial

if TYPE_CHECKING:
    from hpsearch.compare import Search, StudyRow, TrialRow
    from hpsearch.verdict import Paired, Spread

Interval = Literal["t", "bootstrap"]


def compare(
    *addresses: str,
    metric: Annotated[str | None, Parameter(show_default=False)] = None,
    direction: Annotated[Literal["minimize", "maximize"] | None, Parameter(show_default=False)] = None,
    alpha: float = 0.05,
    require: Annotated[Literal["better"] | None, Parameter(show_default=False)] = None,
    interval: Interval = "t",
    common: Common = COMMON,
) -> None:
    """Say whether one trial beats another, or put studies side by side.

    Trials: the differences on common seeds, with interval, p (corrected by Holm where there are several) and effect
    size; then what differs between them. Studies: best so far at equal budget, and who is ahead; then their best
    trials, as trials. docs/verdict.md says how.

    Args:
        addresses: Studies, or trials (study/trial); two or more.
        metric: Trials by another metric than the study's, at each run's best epoch; needs --direction.
        direction: Which way that metric gets better.
        alpha: How often "beats" may be said of trials that are alike.
        interval: How the 95 % intervals of values are made; the bootstrap's are too narrow below ten seeds.
        require: better: exit code 5 unless the first is shown to beat each of the others.
    """
    from hpsearch.stores.sql import open_archive

    if not 0 < alpha < 1:
        raise UsageError(f"--alpha: {alpha} must be above 0 and below 1", hint="--alpha 0.05")
    if metric is not None and direction is None:
        raise UsageError(f"--metric {metric} does not say which way is better", hint="--direction maximize")

    wanted = [parse(address) for address in addresses]
    if len(wanted) < 2:
        raise UsageError(
            "compare needs two studies or trials, or more", hint="hpsearch compare digits-grid digits-random"
        )
    if any(address.seed is not None for address in wanted):
        raise UsageError("compare takes studies or trials, not runs", hint="hpsearch compare digits/3 digits/7")
    if len({address.trial is None for address in wanted}) > 1:
        raise UsageError("compare takes studies or trials, not both at once", hint="name a trial of each: digits/3")
    archive = open_archive(common.database)
    if wanted[0].trial is None:
        if metric is not None:
            raise UsageError("--metric is for trials", hint="hpsearch compare digits/3 digits/7 --metric val_accuracy")
        verdicts = _studies(archive, wanted, alpha, interval, common)
    else:
        verdicts = _trials(archive, wanted, metric, direction, alpha, interval, common)
    if require and not _better(verdicts):
        raise CheckError("it is not shown that the first beats each of the others", hint="more seeds: hpsearch confirm")


def _better(verdicts: Sequence[Paired]) -> bool:
    """Whether the first is shown to beat all others."""
    first = verdicts[0].a if verdicts else None
    return first is not None and all(pair.beats for pair in verdicts if pair.a == first)


def _studies(
    archive: Archive, wanted: list[Address], alpha: float, interval: Interval, common: Common
) -> Sequence[Paired]:
    from hpsearch.compare import chances, confirmed, searches, study_row, trial_row, verdicts

    summaries = [study_of(archive, address.study) for address in wanted]
    trials = [archive.trials(summary.name) for summary in summaries]
    rows = [study_row(summary, each) for summary, each in zip(summaries, trials, strict=True)]
    metrics = {(row.metric, row.direction) for row in rows}
    best = [(row.study, row.best) for row in rows if row.best]
    judged: Sequence[Paired] = ()
    found: list[Search] = []
    ahead: list[tuple[Search, Search, float | None]] = []
    fresh = confirmed([trial for _, trial in best])
    if len(metrics) == 1:
        way = Direction(rows[0].direction)
        found = searches(list(zip(summaries, trials, strict=True)))
        ahead = chances(found, way)
        if len(best) == len(rows):
            judged = verdicts([trial_row(name, trial, confirmed=fresh) for name, trial in best], way, alpha=alpha)
    if common.json:
        out_json(shapes.studies_compared(rows, found, ahead, judged))
        return judged
    _print_studies(rows, interval)
    _warn(metrics, {tuple(s.spec["seeds"]) for s in summaries})
    if found and found[0].n:
        _print_searches(found, ahead, rows[0].metric)
    _print_more(rows)
    if judged:
        out("\nbest trials, on common seeds", style="bold")
        _print_verdicts(judged)
        _note(confirmed=fresh)
    if len(best) > 1:
        chosen = [summary for summary, row in zip(summaries, rows, strict=True) if row.best]
        _print_differences("params of the best", chosen, [trial for _, trial in best], [name for name, _ in best])
    return judged


def _print_searches(found: Sequence[Search], ahead: Sequence[tuple[Search, Search, float | None]], metric: str) -> None:
    n = found[0].n
    out(f"\n{metric}, best so far at equal budget: {n} trials", style="bold")
    marks = sorted({max(1, n // 4), max(1, n // 2), n})
    rows = []
    for search in found:
        for name, curve, area in zip(search.studies, search.curves, search.areas, strict=True):
            band = search.band
            ends = "–" if band is None else f"{number(band.better[-1], 3)} … {number(band.worse[-1], 3)}"
            rows.append([name, *(number(curve[mark - 1]) for mark in marks), number(area), ends])
    print_table(["study", *(f"at {mark}" for mark in marks), "area", "80 % band"], rows, keep=2)
    methods = {search.band.method for search in found if search.band is not None}
    for method in sorted(methods):
        how = (
            "trials drawn again, in any order"
            if method == "resampled"
            else "the studies that differ in their seed only"
        )
        say(f"band: {how}", style="dim")
    for a, b, chance in ahead:
        one, two = " ".join(a.studies), " ".join(b.studies)
        if chance is None:
            out(f"{one} against {two}: one study of a strategy that learns")
            out("  is one draw; repeat it with other seeds (seed: 1) for a probability")
        else:
            out(f"{one} is ahead of {two} after {n} trials with probability {chance:.2f}")


def _print_more(rows: Sequence[StudyRow]) -> None:
    known = [(row.study, row.more.words) for row in rows if row.more is not None]
    if known:
        out("\nwas the search enough?", style="bold")
    for name, words in known:
        out(textwrap.fill(f"{printable(name)}: {words}", 80, subsequent_indent="  ", break_on_hyphens=False))


def _print_verdicts(verdicts: Sequence[Paired]) -> None:
    """A row a pair, what matters first: where a terminal is narrow, columns go from the right."""
    several = len(verdicts) > 1
    studies = {name.partition("/")[0] for pair in verdicts for name in (pair.a, pair.b)}
    corrected = ["p corrected"] if several else []
    heads = ["a", "b", "a better by", "interval (t)", *corrected, "p", "d_z", "wins", "seeds"]
    cells = []
    for pair in verdicts:
        names = [f"#{name.partition('/')[2]}" if len(studies) == 1 else name for name in (pair.a, pair.b)]
        ends = "–" if pair.low is None else f"{number(pair.low, 3)} … {number(pair.high, 3)}"
        ps = [number(pair.corrected, 2)] * several + [number(pair.p, 2)]
        cells.append(
            [*names, number(pair.difference, 3), ends, *ps, number(pair.effect, 2), str(pair.wins), str(pair.n)]
        )
    print_table(heads, cells, keep=2)
    for pair in verdicts:
        about = "" if pair.beats or pair.beaten else f"{pair.a} against {pair.b}: "
        out(textwrap.fill(f"{about}{pair.words}", 80, subsequent_indent="  ", break_on_hyphens=False), style="bold")


def _note(*, confirmed: bool) -> None:
    words = "on the search's own seeds; a trial chosen by them looks better than it is"
    if confirmed:
        words = "on a race's fresh seeds; hpsearch ship also corrects for choosing among those that raced"
    say(textwrap.fill(f"note: {words}", 80, subsequent_indent="  "), style="dim")


def _print_studies(rows: Sequence[StudyRow], interval: Interval) -> None:
    heads = ["study", "best", "± sd", "n", "mean", "trials", "diverged", "failed", "time", "baseline", "found after"]
    heads[4:4] = [f"95 % interval ({interval})"]
    print_table(heads, [_study_cells(row, interval) for row in rows], keep=2)


def _study_cells(row: StudyRow, interval: Interval) -> list[str]:
    from hpsearch.verdict import spread

    best = row.best
    found = spread(list(best.values().values()) if best else [], method=interval)
    return [
        row.study,
        number(best.value if best else None),
        number(best.sd, 2) if best and best.sd is not None else "",
        str(row.n_seeds),
        interval_text(found),
        number(row.mean),
        str(row.trials),
        str(row.diverged),
        str(row.failed),
        duration(row.seconds),
        number(row.baseline),
        "–" if row.found_after is None else str(row.found_after),
    ]


def _trials(
    archive: Archive,
    wanted: list[Address],
    metric: str | None,
    way: str | None,
    alpha: float,
    interval: Interval,
    common: Common,
) -> Sequence[Paired]:
    from hpsearch.compare import at_best_epoch, confirmed, origin_differences, param_differences, trial_row, verdicts

    studies = [study_of(archive, address.study) for address in wanted]
    trials = [trial_of(archive, study.name, address.trial or 0) for study, address in zip(studies, wanted, strict=True)]
    metrics = {(study.spec["metric"], study.spec["direction"]) for study in studies}
    fresh = confirmed(trials)
    rows = []
    for study, trial in zip(studies, trials, strict=True):
        if metric is None or metric == study.spec["metric"]:
            rows.append(trial_row(study.name, trial, confirmed=fresh))
            continue
        curves = archive.curves(study.name, [trial.number], [metric])
        if not curves:
            raise NotFoundError(
                f"{study.name}/{trial.number} has no metric {metric!r}", hint=_known(archive, study, trial)
            )
        rows.append(trial_row(study.name, trial, confirmed=fresh, value=at_best_epoch(curves)))
    judged: Sequence[Paired] = ()
    if metric is not None or len(metrics) == 1:
        judged = verdicts(rows, Direction(way or studies[0].spec["direction"]), alpha=alpha)
    if common.json:
        differences = [*param_differences(trials), *origin_differences(studies, trials)]
        out_json(shapes.trials_compared(rows, judged, differences, confirmed=fresh))
        return judged
    _print_trials(rows, interval, fresh=fresh)
    _warn(metrics if metric is None else set(), {tuple(row.values) for row in rows})
    if judged:
        out(f"\n{metric or studies[0].spec['metric']}, differences on common seeds", style="bold")
        _print_verdicts(judged)
        _note(confirmed=fresh)
    _print_differences("params that differ", studies, trials, [row.address for row in rows])
    return judged


def _known(archive: Archive, study: StudySummary, trial: Trial) -> str:
    names = sorted({curve.metric for curve in archive.curves(study.name, [trial.number])})
    return f"it has {', '.join(names[:8])}" if names else "it has none"


def _print_trials(rows: Sequence[TrialRow], interval: Interval, *, fresh: bool) -> None:
    """A row each, over the seeds that the verdict is about; of who has none of them (it was pruned), over all."""
    from hpsearch.verdict import spread

    seeds = sorted({seed for row in rows for seed in row.values})
    heads = ["trial", "fresh" if fresh else "value", "± sd", "n", f"95 % interval ({interval})", "state", "time"]
    cells = [
        [
            row.address,
            *_cells(spread(list((row.judged or row.values).values()), method=interval)),
            str(row.trial.state),
            duration(row.seconds),
            *(number(row.values.get(seed)) for seed in seeds),
        ]
        for row in rows
    ]
    print_table([*heads, *(f"seed {seed}" for seed in seeds)], cells, keep=2)


def _cells(found: Spread) -> list[str]:
    return [number(found.mean), "" if found.sd is None else number(found.sd, 2), str(found.n), interval_text(found)]


def _print_differences(
    title: str, studies: Sequence[StudySummary], trials: Sequence[Trial], names: Sequence[str]
) -> None:
    """Their params, then code, data and machine, where they differ."""
    from hpsearch.compare import origin_differences, param_differences

    out(f"\n{title}", style="bold")
    _differences(names, param_differences(trials))
    origins = origin_differences(studies, trials)
    if origins:
        out("\ncode, data and machine, where they differ", style="bold")
        _differences(names, origins)


def _differences(names: Sequence[str], rows: list[Any]) -> None:
    if not rows:
        out("none")
        return
    print_table(["param", *names], [[row.name, *(setting_text(value) for value in row.values)] for row in rows], keep=2)


def _warn(metrics: set[tuple[str, str]], seeds: set[tuple[int, ...]]) -> None:
    if len(metrics) > 1:
        words = " and ".join(sorted(f"{metric} ({direction})" for metric, direction in metrics))
        say(f"note: they measure different things: {words}", style="yellow")
    elif len(seeds) > 1:
        say("note: they were trained with different seeds", style="yellow")
