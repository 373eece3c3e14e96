"""``hpsearch resume``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hpsearch.cli.addresses import study_of
from hpsearch.cli.run import HERE, HOW, How, start
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import say
from hpsearch.errors import UsageError

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
    """A study as it is stored, with its file, whose training code can be run again.

    Raises:
        UsageError: the file is gone.
    """
    from hpsearch.read import study_of as stored_study

    again = stored_study(summary.spec, _folder(summary, quiet=quiet))
    return replace(again, file=Path(summary.file) if summary.file else None)


def _folder(summary: StudySummary, *, quiet: bool) -> Path:
    """The folder that the training code's path is relative to."""
    if not summary.file:
        if not quiet:
            say(f"{summary.name} was written in Python; its training code is looked for from this folder")
        return Path.cwd()
    file = Path(summary.file)
    if not file.is_file():
        # Going on without it would leave the record without the file's text and without the code's folder.
        hint = f"put it back: hpsearch show {summary.name} --yaml > {file}" if summary.text else "put it back"
        raise UsageError(f"the study file of {summary.name}, {file}, is gone", hint=hint)
    if summary.text and file.read_text("utf-8-sig", "replace") != summary.text and not quiet:
        say(f"note: {file} has changed; the study goes on as it is stored", style="yellow")
    return file.parent
