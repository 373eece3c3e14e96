"""The options of every command, and where a setting comes from: flag > environment > file in this folder > default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, final

from cyclopts import Group, Parameter

from hpsearch.errors import UsageError
from hpsearch.settings import DEFAULT_DB

EVERYWHERE = Group("Everywhere", sort_key=99)
KEYS = ("db", "workers", "device")


@Parameter(name="*", group=EVERYWHERE)
@final
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command can be told."""

    db: Annotated[
        str | None,
        Parameter(help=f"Database; else HPSEARCH_DB, else hpsearch.toml or pyproject.toml here, else {DEFAULT_DB}."),
    ] = None
    json: Annotated[bool, Parameter(negative="", show_default=False, help="One JSON object on stdout.")] = False
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False, help="Errors and results only.")
    ] = False
    no_color: Annotated[bool, Parameter(negative="", show_default=False, help="As NO_COLOR=1.")] = False

    @property
    def database(self) -> str:
        """The database's address.

        Raises:
            UsageError: it is no URL, or the settings file cannot be read.
        """
        url, source = setting("db", self.db)
        if url is None:
            return DEFAULT_DB
        if "://" not in url:
            raise UsageError(f"{source}: {url!r} is no database URL", hint=f"sqlite:///{url or 'hpsearch.db'}")
        return url


COMMON = Common()


def workers(flag: str | int | None) -> int | None:
    """How many workers; None (``auto``): one for each device, or for each core, or as many as a cluster holds.

    Raises:
        UsageError: no whole number of at least 1, and not ``auto``.
    """
    text, source = setting("workers", None if flag is None else str(flag))
    if text is None or text.strip() == "auto":
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"{source}: {text!r} must be a whole number of at least 1, or auto")
    return int(text)


def device(flag: str | None) -> str:
    """``auto``, ``cpu``, ``cuda``, ``cuda:1`` ..."""
    return setting("device", flag)[0] or "auto"


def fusing(text: str) -> int | str:
    """``auto``, ``off`` or a number of at least 1.

    Raises:
        UsageError: it is none of them.
    """
    if text in ("auto", "off"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--fuse: {text!r} must be a whole number of at least 1, auto or off", hint="--fuse 64")
    return int(text)


def setting(key: str, flag: str | None) -> tuple[str | None, str]:
    """A setting and its source; None where nobody says it.

    Raises:
        UsageError: the settings file cannot be read.
    """
    if flag is not None:
        return flag, f"--{key}"
    variable = f"HPSEARCH_{key.upper()}"
    if os.environ.get(variable):
        return os.environ[variable], variable
    values, file = _from_files()
    return (str(values[key]) if key in values else None), f"{file}: {key}"


def _from_files() -> tuple[Mapping[str, Any], str]:
    for name, table in [("hpsearch.toml", None), ("pyproject.toml", "hpsearch")]:
        try:
            values = tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            if table:  # somebody else's file: its mistakes are not ours to report
                continue
            raise UsageError(f"{name} cannot be read: {error}", hint='db = "sqlite:///hpsearch.db"') from None
        if table:
            values = values.get("tool", {}).get(table, {})
        if not values:
            continue
        unknown = [key for key in values if key not in KEYS]
        if unknown:
            raise UsageError(f"{name}: unknown setting {unknown[0]!r}", hint=f"known: {', '.join(KEYS)}")
        return values, name
    return {}, ""
