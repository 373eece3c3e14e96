"""``hpsearch delete``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hpsearch.address import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import ask, interactive, out_json, say
from hpsearch.errors import UsageError
from hpsearch.settings import files_folder


def delete(
    study: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> int:
    """Remove a study and all its trials from the database.

    Its logs and checkpoints stay where they are, until a study of its name begins the same runs there.

    Args:
        study: A study's whole name.
        yes: Do not ask.
    """
    from hpsearch.stores.sql import open_archive, open_store

    url = common.database
    summary = study_of(open_archive(url), study)
    trials = sum(summary.counts.values())
    if summary.name != study:
        # Deleting is the one thing that a beginning of a name is too short for.
        raise UsageError(f"delete needs the whole name, not {study!r}", hint=f"hpsearch delete {summary.name}")
    if not yes and not interactive():
        raise UsageError(f"{study} with {trials} trials would be gone for good", hint=f"hpsearch delete {study} --yes")
    if not yes and not ask(f"Remove {study} with its {trials} trials for good?"):
        say("nothing was removed")
        return 1
    open_store(url).delete(study)
    folder = files_folder(url, study)
    if common.json:
        out_json({"study": study, "deleted": True, "trials": trials})
    elif not common.quiet:
        say(f"removed {study}" + (f"; its files are still in {folder}" if folder.is_dir() else ""))
    return 0
