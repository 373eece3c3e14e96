"""Where the record and its files are when nobody says so."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_DB = "sqlite:///hpsearch.db"


def database(db: str | None = None) -> str:
    """The database's URL: ``db``, else ``HPSEARCH_DB``, else ``sqlite:///hpsearch.db`` in the current folder."""
    return db or os.environ.get("HPSEARCH_DB") or DEFAULT_DB


def files_folder(db: str, study: str) -> Path:
    """Where a study's logs and checkpoints go by default: ``hpsearch-files/STUDY`` beside an SQLite database."""
    path = Path(db.removeprefix("sqlite:///")) if db.startswith("sqlite:///") else Path("hpsearch.db")
    return (path.parent / "hpsearch-files" / study).resolve()
