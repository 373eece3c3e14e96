"""``hpsearch confirm``."""

from __future__ import annotations

import sys
import textwrap
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.address import study_of
from hpsearch.cli.resume import stored_study_of
from hpsearch.cli.run import HERE, How
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import INTERVAL, interval_text, number, out_json, params_text, print_table, say
from hpsearch.errors import UsageError

if TYPE_CHECKING:
    from hpsearch.confirm import Confirmation, Contender
    from hpsearch.verdict import Spread


def confirm(
    study: str,
    /,
    *,
    top: Annotated[int, Parameter(name=["--top", "-k"])] = 8,
    max_seeds: int = 16,
    alpha: float = 0.05,
    again: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    how: How = HERE,
    common: Common = COMMON,
) -> int:
    """Race the best trials on seeds that the study has not used, and say which one to take.

    The best of many noisy numbers is mostly luck. Here the best trials, and the best baseline, train again with the
    same fresh seeds, in rounds (seeds: {confirm: 8} in the study file begins with 8); after each, trials that are
    shown to be worse leave, corrected for many comparisons and for looking repeatedly. The same command goes on with
    a race that was interrupted, and shows one that is over.

    Args:
        study: A study's name, or its beginning.
        top: So many of the best trials race.
        max_seeds: Fresh seeds at most.
        alpha: How often "A beats B" may be said of trials that are alike, in the whole race.
        again: Another race, on other fresh seeds, where one is over.
    """
    from hpsearch.cli.live import display
    from hpsearch.confirm import confirm as race
    from hpsearch.launch import Place
    from hpsearch.stores.sql import open_archive

    _check(top=top, max_seeds=max_seeds, alpha=alpha)
    archive = open_archive(common.database)
    summary = study_of(archive, study)
    stored = stored_study_of(summary, quiet=common.quiet)
    with redirect_stdout(sys.stderr), display("none" if common.quiet else how.progress) as watcher:
        place = Place(db=common.database, observer=watcher, tell=watcher.tell, signals=True, **how.options())
        outcome, found = race(stored, archive, place, top=top, max_seeds=max_seeds, alpha=alpha, again=again)
    if common.json:
        out_json(shapes.confirmation(stored.name, found))
    else:
        show(found, stored.metric, str(stored.direction))
    if found.end is None and not common.quiet:
        say(f"next: hpsearch confirm {stored.name}   goes on")
    elif found.chosen is not None and not common.quiet:
        say(f"next: hpsearch ship {stored.name}/{found.chosen}")
        if found.seeds_needed is not None:
            say(f"or: hpsearch confirm {stored.name} --again --max-seeds {found.seeds_needed}")
    if found.end is None and outcome is not None:
        return outcome.exit_code if outcome.state != "complete" else 4
    return 0 if found.chosen is not None else 4


def _check(*, top: int, max_seeds: int, alpha: float) -> None:
    if top < 1:
        raise UsageError(f"--top: must be at least 1, not {top}")
    if not 2 <= max_seeds <= 10_000:
        raise UsageError(f"--max-seeds: must be from 2 to 10000, not {max_seeds}")
    if not 0 < alpha < 0.5:
        raise UsageError(f"--alpha: must be above 0 and below 0.5, not {alpha:g}", hint="--alpha 0.05")


def show(found: Confirmation, metric: str, direction: str) -> None:
    """A race as a table, and its verdict."""
    terms = found.terms
    say(f"{metric}, {direction}: {terms.decision.reason}; race {terms.number}", style="dim")
    heads = ["trial", "search", "fresh", INTERVAL, "seeds", "outcome"]
    print_table(heads, [_row(one) for one in found.contenders], keep=5)
    for one in found.contenders:
        if one.outcome not in ("", "winner", "ties"):
            say(textwrap.fill(f"#{one.trial.number} left: {one.outcome}", 80, subsequent_indent="  "))
    mark = "✓" if found.end and found.end.details["winner"] is not None else "○"
    say(textwrap.fill(f"{mark} {found.words}", 80, subsequent_indent="  "))
    if found.to_settle:
        say(textwrap.fill(f"  {found.to_settle}", 80, subsequent_indent="  "))
    if found.chosen is not None:
        chosen = next(one.trial for one in found.contenders if one.trial.number == found.chosen)
        say(f"  {params_text(chosen.params)}")
    if found.optimism is not None:
        say(textwrap.fill(f"  #{found.chosen}: {found.optimism.words}", 80, subsequent_indent="  "))


def _row(one: Contender) -> list[str]:
    baseline = " baseline" if one.trial.baseline else ""
    outcome = one.outcome if one.outcome in ("", "winner", "ties") else "left"
    return [
        f"#{one.trial.number}{baseline}",
        _mean(one.searched),
        _mean(one.fresh),
        interval_text(one.fresh),
        str(one.fresh.n),
        outcome,
    ]


def _mean(found: Spread) -> str:
    return f"{number(found.mean)} ± {number(found.sd, 2)}" if found.sd is not None else number(found.mean)
