"""``hpsearch ship``."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.address import parse, study_of, trial_of
from hpsearch.cli.resume import stored_study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import INTERVAL, interval_text, number, out, out_json, params_text, print_table, say
from hpsearch.errors import UsageError

if TYPE_CHECKING:
    from hpsearch.ship import Check, Look
    from hpsearch.verdict import Spread

MARKS = {True: "✓", False: "✗", None: "○"}


def ship(
    address: str,
    /,
    *,
    reveal_test: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    reason: str | None = None,
    files: Path | None = None,
    via: Annotated[str, Parameter(show=False)] = "",
    common: Common = COMMON,
) -> int:
    """Say whether a trial is one to ship: a checklist, and on request its value on the sealed test set.

    No search, and no other command, sees the test set. With --reveal-test the weights of the runs that confirmed the
    trial are evaluated on it (of a plain function, the test_* metrics that it returned are opened); who looked, when,
    why and how often is recorded, and said in every later report.

    Args:
        address: study/trial, or a study: the trial that its race has chosen.
        reveal_test: Look at the test set.
        reason: Why, with --reveal-test.
        files: Where the study's files are, if it was run with --files.
        via: Through what the user looks; recorded.
    """
    from hpsearch.actions import chosen, reveal
    from hpsearch.ship import checklist, looks
    from hpsearch.stores.sql import open_archive

    if reveal_test and not (reason or "").strip():
        raise UsageError("--reveal-test needs a reason, which is recorded", hint='--reason "the paper\'s table 2"')
    if reason is not None and not reveal_test:
        raise UsageError("--reason is for a look at the test set", hint="--reveal-test --reason TEXT")
    archive = open_archive(common.database)
    wanted = parse(address)
    if wanted.seed is not None:
        raise UsageError(f"{address} is a run; a trial is shipped", hint=f"{wanted.study}/{wanted.trial}")
    summary = study_of(archive, wanted.study)
    number_of = wanted.trial
    if number_of is None:
        number_of = chosen(archive, summary.name, str(summary.spec["direction"]))
    trial = trial_of(archive, summary.name, number_of)
    study = stored_study_of(summary, quiet=common.quiet)
    checks, race = checklist(study, summary, archive, trial.number)
    look = None
    if reveal_test:
        look = reveal(common.database, study.name, reason=reason or "", trial=trial.number, files=files, via=via)
    seen = looks(archive.decisions(study.name))
    if common.json:
        out_json(shapes.shipping(study.name, study.metric, trial, checks, seen, look))
        return 0
    out(f"{study.name}/{trial.number}   {params_text(trial.params)}")
    for check in checks:
        _line(check)
    for one in seen:
        if look is None or one.number != look.number:
            say(_looked(one), style="dim")
    if look is not None:
        _show(look, study.metric)
    elif race is not None and race.chosen == trial.number and not seen and not common.quiet:
        say(f"next: hpsearch ship {study.name}/{trial.number} --reveal-test --reason TEXT   looks at the test set")
    return 0


def _line(check: Check) -> None:
    head = f"{MARKS[check.holds]} {check.name}: "
    out(textwrap.fill(f"{head}{check.words}", 80, subsequent_indent="  "))


def _looked(look: Look) -> str:
    when = datetime.fromtimestamp(look.when, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return textwrap.fill(
        f"look {look.number} at the test set: #{look.trial}, {when}, by {look.who}: {look.reason}", 80,
        subsequent_indent="  ",
    )  # fmt: skip


def _show(look: Look, metric: str) -> None:
    say(_looked(look))
    if look.number > 1:
        words = f"it is look {look.number}: a value that was chosen among several looks is optimistic"
        say(textwrap.fill(words, 80), style="yellow")
    rows = [[metric, "validation", *_cells(look.validation)]]
    rows += [[name, "test", *_cells(found)] for name, found in look.metrics.items()]
    print_table(["metric", "part", "mean", "± sd", INTERVAL, "runs"], rows, keep=3)


def _cells(found: Spread) -> list[str]:
    return [number(found.mean), number(found.sd, 2), interval_text(found), str(found.n)]
