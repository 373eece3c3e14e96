"""``hpsearch best``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hpsearch import shapes
from hpsearch.address import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.show import print_trials
from hpsearch.cli.terminal import out, out_json, params_text, say
from hpsearch.errors import NotFoundError, UsageError
from hpsearch.trial import Direction, best_trials


def best(
    study: str,
    /,
    *,
    k: Annotated[int, Parameter(name=["-k", "--top"])] = 5,
    yaml: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Show the best trials of a study. The best of many looks better than it is; fresh seeds tell.

    Args:
        study: A study's name, or its beginning.
        k: How many.
        yaml: A study file instead, that trains the best setting again.
    """
    from hpsearch.stores.sql import open_archive

    if k < 1:
        raise UsageError(f"-k: {k} must be at least 1")
    archive = open_archive(common.database)
    summary = study_of(archive, study)
    trials = best_trials(archive.trials(summary.name), Direction(summary.spec["direction"]), k)
    if not trials:
        raise NotFoundError(f"{summary.name} has no complete trial yet", hint=f"hpsearch status {summary.name}")
    if yaml:
        from hpsearch.reproduce import recipe

        print(recipe(summary, trials[0]), end="")
    elif common.json:
        out_json({"study": summary.name, "best": [shapes.trial(trial) for trial in trials]})
    else:
        print_trials(trials, summary.spec["metric"])
        out(f"\n#{trials[0].number}  {params_text(trials[0].params, 6)}")
        if not common.quiet:
            say(f"next: hpsearch show {summary.name}/{trials[0].number}", style="dim")
