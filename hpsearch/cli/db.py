"""``hpsearch db``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out, out_json, say
from hpsearch.errors import CheckError, UsageError


def db(
    what: Literal["info", "check", "backup", "upgrade"],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    no_backup: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Look after the database: info, check, backup or upgrade.

    info says what it is. check reads all of it and names what is wrong (exit code 5). backup writes a copy, also
    while studies run. upgrade brings an older hpsearch's database to this one's schema, after a backup.

    Args:
        what: info, check, backup or upgrade.
        output: Where the backup goes; a file of that name is never replaced.
        no_backup: With upgrade: make no backup.
    """
    if output is not None and (what not in ("backup", "upgrade") or no_backup):
        raise UsageError("--output is for a backup", hint="hpsearch db backup -o FILE")
    if no_backup and what != "upgrade":
        raise UsageError("--no-backup is for an upgrade", hint="hpsearch db upgrade --no-backup")
    if what == "info":
        _info(common)
    elif what == "check":
        _check(common)
    elif what == "backup":
        _backup(common, output)
    else:
        _upgrade(common, output, backup=not no_backup)


def _info(common: Common) -> None:
    from hpsearch.stores.sql import facts

    told = facts(common.database)
    if common.json:
        out_json({"database": told})
        return
    newest = "" if told["schema"] == told["ours"] else f" (this hpsearch's is {told['ours']}: hpsearch db upgrade)"
    out(f"database  {told['url']}")
    out(f"engine    {told['engine']}")
    out(f"schema    {told['schema'] or 'none: it is empty'}{newest if told['schema'] else ''}")
    out(f"studies   {told['studies']:,}")
    out(f"size      {told['bytes'] / 1e6:,.1f} MB")
    if told["risks"]:
        say(f"note: a power cut may cost what was recorded: the server has {', '.join(told['risks'])}", style="yellow")


def _check(common: Common) -> None:
    from hpsearch.stores.sql import check

    wrong, unchecked = check(common.database)
    if common.json:
        out_json({"sound": not wrong, "wrong": wrong, "not_checked": unchecked})
    elif not common.quiet and not wrong:
        say("the database is sound")
    for words in unchecked if not (common.json or common.quiet) else ():
        say(f"not checked: {words}")
    if wrong:
        raise CheckError("\n".join(["the database is not sound:", *(f"  {line}" for line in wrong)]))


def _backup(common: Common, output: Path | None) -> None:
    from hpsearch.stores.sql import back_up

    copy = back_up(common.database, output)
    if common.json:
        out_json({"backup": str(copy), "bytes": copy.stat().st_size})
    elif not common.quiet:
        say(f"wrote {copy} ({copy.stat().st_size / 1e6:,.1f} MB)")
        say(_way_back(common, copy), style="dim")


def _way_back(common: Common, copy: Path) -> str:
    """How the copy is put back."""
    if common.database.startswith("sqlite"):
        return f"to look into it: --db sqlite:///{copy}"
    return f"to put it back: pg_restore --clean --if-exists --dbname NAME {copy}"


def _upgrade(common: Common, output: Path | None, *, backup: bool) -> None:
    from hpsearch.stores.sql import facts, upgrade

    found, copy = upgrade(common.database, copy=output, backup=backup)
    ours = facts(common.database)["schema"]
    if common.json:
        out_json({"from": found, "to": ours, "backup": str(copy) if copy else None})
    elif common.quiet:
        return
    elif found == ours:
        say(f"nothing to do: it has the schema {ours} already")
    else:
        if copy:
            say(f"wrote {copy}, then")
        say(f"upgraded from schema {found or 'none'} to {ours}")
