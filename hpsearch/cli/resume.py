"""``hpsearch resume``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hpsearch.address import study_of
from hpsearch.cli.run import HERE, HOW, How, start
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import say

if TYPE_CHECKING:
    from hpsearch.archive import StudySummary
    from hpsearch.study import Study


def resume(
    study: str,
    /,
    *,
    dashboard: Annotated[bool, Parameter(negative="", show_default=False, group=HOW)] = False,
    how: How = HERE,
    common: Common = COMMON,
) -> int:
    """Go on with a study by its name, as it is stored: also where it was run with --set, or its file has changed.

    Args:
        study: A study's name, or its beginning.
        dashboard: Show it in a browser meanwhile; the address is printed.
    """
    from hpsearch.stores.sql import open_archive

    summary = study_of(open_archive(common.database), study)
    stored = stored_study_of(summary, quiet=common.quiet)
    return start(stored, common, how, confirm=False, dashboard=dashboard)


def stored_study_of(summary: StudySummary, *, quiet: bool) -> Study:
    """``read.stored_study``, which says what it finds where that is wanted."""
    from hpsearch.read import stored_study

    return stored_study(summary, tell=(lambda text: None) if quiet else partial(say, style="yellow"))
