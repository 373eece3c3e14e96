"""``hpsearch export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hpsearch.address import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out_json, say


def export_(
    study: str,
    /,
    *,
    to: Literal["csv", "parquet", "json"] | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    curves: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Write a study as a table: one row a run, with its params, seed, state and value.

    Args:
        study: A study's name, or its beginning.
        to: The format; else by the ending of --output.
        output: The file; an existing one is replaced. Default: STUDY.csv, or as --to says.
        curves: One row for each metric of each epoch instead.
    """
    from hpsearch.export import export, format_of
    from hpsearch.results import load
    from hpsearch.stores.sql import open_archive

    url = common.database
    name = study_of(open_archive(url), study).name
    path = output or Path(f"{name}{'-curves' * curves}.{to or 'csv'}")
    rows = export(load(name, url), path, to or format_of(path), curves=curves)
    if common.json:
        out_json({"study": name, "file": str(path), "rows": rows})
    elif not common.quiet:
        say(f"wrote {rows} rows to {path}")
