"""``hpsearch stop``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hpsearch.cli.addresses import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out_json, say


def stop(
    study: str,
    /,
    *,
    now: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Ask a running study to stop: it finishes the runs that are in flight, and can be resumed.

    Args:
        study: A study's name, or its beginning.
        now: Do not wait for the runs in flight; they are run again after a resume.
    """
    from hpsearch.store import Command
    from hpsearch.stores.sql import open_archive, open_store

    url = common.database
    summary = study_of(open_archive(url), study)
    asked = open_store(url).send(summary.name, Command(verb="stop", payload={"now": now}))
    if common.json:
        out_json({"schema": 1, "study": summary.name, "asked": asked})
    elif not asked:
        say(f"{summary.name} is not running ({summary.state})")
    elif not common.quiet:
        say(f"asked {summary.name} to stop; it {'ends its runs' if now else 'finishes the runs in flight'} first")
