"""``hpsearch resume``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hpsearch.address import study_of
from hpsearch.cli.run import HERE, How, start
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import say

if TYPE_CHECKING:
    from hpsearch.archive import StudySummary
    from hpsearch.study import Study


def resume(
    study: str,
    /,
    *,
    how: How = HERE,
    common: Common = COMMON,
) -> int:
    """Go on with a study by its name, as it is stored: also where it was run with --set, or its file has changed.

    Args:
        study: A study's name, or its beginning.
    """
    from hpsearch.stores.sql import open_archive

    summary = study_of(open_archive(common.database), study)
    return start(stored_study_of(summary, quiet=common.quiet), common, how, confirm=False)


def stored_study_of(summary: StudySummary, *, quiet: bool) -> Study:
    """``read.stored_study``, which says what it finds where that is wanted."""
    from hpsearch.read import stored_study

    return stored_study(summary, tell=(lambda text: None) if quiet else partial(say, style="yellow"))
