"""``hpsearch stop``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hpsearch import shapes
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
    from hpsearch.actions import stop as ask

    found = ask(common.database, study, now=now)
    if common.json:
        out_json(shapes.stopping(found))
    elif not found.asked or not common.quiet:
        say(found.words)
