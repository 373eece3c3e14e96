"""A copy of the whole record: SQLite's file by its backup API, PostgreSQL's database by ``pg_dump``."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from hpsearch.errors import StoreError, UsageError
from hpsearch.stores.sql.engine import path_of, redacted


def default_copy(url: URL, tag: str = "") -> Path:
    """Where a copy goes: ``hpsearch.db.TAG.backup`` beside SQLite's file, else ``NAME.TAG.dump`` in this folder.

    Without a tag it is the time.
    """
    at = time.strftime("%Y%m%d-%H%M%S")
    path = path_of(url)

    def named(tag: str) -> Path:
        return path.with_name(f"{path.name}.{tag}.backup") if path else Path(f"{url.database or 'hpsearch'}.{tag}.dump")

    # The copy of an earlier upgrade is somebody's only one.
    return named(tag) if tag and not named(tag).exists() else named(f"{tag}.{at}".lstrip("."))


def back_up(url: URL, copy: Path) -> None:
    """Write the copy, whole or not at all; a study that is running meanwhile is copied as of one moment.

    Raises:
        UsageError: there is a file of that name, or its folder is missing.
        StoreError: the copy cannot be made.
    """
    if copy.exists():
        raise UsageError(f"{copy} exists", hint="name another file with -o, or move that one away")
    if not copy.absolute().parent.is_dir():
        raise UsageError(f"{copy}: the folder {copy.absolute().parent} does not exist", hint="make it, or change -o")
    part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    path = path_of(url)
    try:
        if path is None:
            _dump(url, part)
        else:
            _copy(path, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(copy)
    except OSError as error:
        raise StoreError(f"{copy} cannot be written: {error.strerror}", hint="name another file with -o") from None
    finally:
        part.unlink(missing_ok=True)


def _copy(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _dump(url: URL, copy: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise StoreError(
            f"{redacted(url)}: pg_dump is not on PATH, and makes the copy",
            hint="install PostgreSQL's client programs; db upgrade --no-backup does without a copy",
        )
    from psycopg.conninfo import make_conninfo

    place = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database}
    said: dict[str, Any] = {**place, **url.query}
    # The password goes by the environment: arguments are for all to see.
    secret = said.pop("password", None) or url.password
    environment = os.environ | ({"PGPASSWORD": str(secret)} if secret else {})
    address = make_conninfo(**{name: value for name, value in said.items() if value is not None})
    command = [program, "--format=custom", "--no-password", f"--file={copy}", f"--dbname={address}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["?"]
        words = next((line for line in lines if "mismatch" in line), lines[0]).removeprefix("pg_dump: error: ")
        hint = "pg_dump must be at least as new as the server" if "mismatch" in done.stderr else ""
        raise StoreError(f"{redacted(url)}: pg_dump failed: {words}", hint=hint)
