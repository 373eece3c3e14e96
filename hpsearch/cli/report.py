"""``hpsearch report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hpsearch.address import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out_json, say


def report(
    study: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    common: Common = COMMON,
) -> None:
    """Write a study as one HTML page: what is shown, pictures, trials. It opens without a network.

    Args:
        study: A study's name, or its beginning.
        output: The file; an existing one is replaced. Default: STUDY.html.
    """
    from hpsearch.report import report as write
    from hpsearch.results import load
    from hpsearch.stores.sql import open_archive

    url = common.database
    name = study_of(open_archive(url), study).name
    path = output or Path(f"{name}.html")
    size = write(load(name, url), path)
    if common.json:
        out_json({"study": name, "file": str(path), "bytes": size})
    elif not common.quiet:
        say(f"wrote {path} ({size / 1e6:.1f} MB): open it in a browser")
