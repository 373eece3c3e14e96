"""``hpsearch tag``."""

from __future__ import annotations

from hpsearch import shapes
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out_json, say


def tag(address: str, tag: str, /, *, common: Common = COMMON) -> None:
    """Tag a study, a trial or a run. It is shown with it from now on, and stays; list --tag finds studies by theirs.

    Args:
        address: study, study/trial or study/trial/seed.
        tag: One word, up to 100 characters.
    """
    from hpsearch.actions import tag as write

    about = write(common.database, address, tag)
    if common.json:
        out_json(shapes.said(about, tag.strip()))
    elif not common.quiet:
        say(f"tagged; hpsearch show {about}")
