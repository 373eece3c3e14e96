"""``hpsearch artifacts``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hpsearch.address import study_of
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out_json, print_table, say
from hpsearch.settings import files_folder


def artifacts(
    what: Literal["list", "prune"],
    study: str,
    /,
    *,
    files: Path | None = None,
    common: Common = COMMON,
) -> int:
    """Look after the weights that a study keeps: list, or prune.

    list shows the checkpoints of the best trials (keep: 3 in the study file) and of confirm's finalists. prune removes
    checkpoints that the record does not have, and those that runs which have ended were paused with: a kill may leave
    them behind. What a plain function saves in its runs' checkpoint_dir is its own: all of it stays, and is neither
    listed nor removed.

    Args:
        what: list or prune.
        study: A study's name, or its beginning.
        files: Where the study's files are, if it was run with --files.
    """
    from hpsearch.artifacts import artifacts as of
    from hpsearch.artifacts import orphans, prune
    from hpsearch.stores.sql import open_archive

    archive = open_archive(common.database)
    name = study_of(archive, study).name
    folder = files_folder(common.database, name, files)
    if what == "prune":
        gone = prune(archive, name, folder)
        total = sum(size for _, size in gone)
        if common.json:
            out_json({"study": name, "removed": [str(file) for file, _ in gone], "bytes": total})
        elif not common.quiet:
            say(f"removed {len(gone)} checkpoint{'s' * (len(gone) != 1)}, {total / 1e6:,.1f} MB")
        return 0
    found = of(archive, name, folder)
    if common.json:
        rows = [
            {"run": f"{name}/{one.run}", "file": str(one.file), "there": one.there, **vars(one.checkpoint)}
            for one in found
        ]
        out_json({"study": name, "artifacts": rows})
        return 0
    lines = [
        [f"{name}/{one.run}", f"{one.checkpoint.bytes / 1e6:,.2f} MB", one.checkpoint.sha256[:12],
         "" if one.there else "missing"]
        for one in found
    ]  # fmt: skip
    if lines:
        print_table(["run", "size", "sha256", ""], lines)
    if not common.quiet:
        say(f"{len(lines)} in {folder}" if lines else f"{name} keeps no checkpoint")
        if lost := len(orphans(archive, name, folder)):
            say(f"{lost} more that nobody needs: hpsearch artifacts prune {name}")
    return 0
