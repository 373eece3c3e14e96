"""``hpsearch compare``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hpsearch.archive import Archive
from hpsearch.cli.addresses import Address, parse, study_of, trial_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import duration, number, out, out_json, print_table, say, setting_text
from hpsearch.compare import StudyRow, TrialRow, param_differences, study_row, trial_row
from hpsearch.errors import UsageError


def compare(*addresses: str, common: Common = COMMON) -> None:
    """Put studies, or trials, side by side: values, spreads, trials, time, and the params that differ.

    Args:
        addresses: Studies, or trials (study/trial); two or more.
    """
    from hpsearch.stores.sql import open_archive

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
        _studies(archive, wanted, common)
    else:
        _trials(archive, wanted, common)


def _studies(archive: Archive, wanted: list[Address], common: Common) -> None:
    summaries = [study_of(archive, address.study) for address in wanted]
    rows = [study_row(summary, archive.trials(summary.name)) for summary in summaries]
    if common.json:
        out_json({"schema": 1, "studies": [_study_json(row) for row in rows]})
        return
    heads = ["study", "best", "± sd", "n", "mean", "trials", "diverged", "failed", "time", "baseline", "found after"]
    print_table(heads, [_study_cells(row) for row in rows], keep=2)
    _warn({(row.metric, row.direction) for row in rows}, {tuple(s.spec["seeds"]) for s in summaries})
    best = [row.best for row in rows if row.best]
    if len(best) > 1:
        out("\nparams of the best", style="bold")
        _differences([row.study for row in rows if row.best], param_differences(best))


def _study_cells(row: StudyRow) -> list[str]:
    best = row.best
    return [
        row.study,
        number(best.value if best else None),
        number(best.sd, 2) if best and best.sd is not None else "",
        str(row.n_seeds),
        number(row.mean),
        str(row.trials),
        str(row.diverged),
        str(row.failed),
        duration(row.seconds),
        number(row.baseline),
        "–" if row.found_after is None else str(row.found_after),
    ]


def _trials(archive: Archive, wanted: list[Address], common: Common) -> None:
    found = [(study_of(archive, address.study), address.trial) for address in wanted]
    rows = [trial_row(study.name, trial_of(archive, study.name, trial)) for study, trial in found if trial is not None]
    if common.json:
        out_json({"schema": 1, "trials": [_trial_json(row) for row in rows]})
        return
    seeds = sorted({seed for row in rows for seed in row.values})
    heads = ["trial", "value", "± sd", "n", "state", "time", *(f"seed {seed}" for seed in seeds)]
    cells = [
        [
            row.address,
            number(row.trial.value),
            "" if row.trial.sd is None else number(row.trial.sd, 2),
            str(len(row.values)),
            str(row.trial.state),
            duration(row.seconds),
            *(number(row.values.get(seed)) for seed in seeds),
        ]
        for row in rows
    ]
    print_table(heads, cells, keep=2)
    _warn({(study.spec["metric"], study.spec["direction"]) for study, _ in found}, {tuple(row.values) for row in rows})
    out("\nparams that differ", style="bold")
    _differences([row.address for row in rows], param_differences([row.trial for row in rows]))


def _differences(names: list[str], rows: list[Any]) -> None:
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


def _study_json(row: StudyRow) -> dict[str, Any]:
    best = row.best
    found = None if best is None else {"trial": best.number, "value": best.value, "sd": best.sd, "params": best.params}
    return {field.name: getattr(row, field.name) for field in fields(row)} | {"best": found}


def _trial_json(row: TrialRow) -> dict[str, Any]:
    trial = row.trial
    return {
        "trial": row.address,
        "state": trial.state,
        "value": trial.value,
        "sd": trial.sd,
        "values": row.values,
        "seconds": row.seconds,
        "params": trial.params,
    }
