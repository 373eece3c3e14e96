"""``hpsearch note``."""

from __future__ import annotations

from hpsearch import shapes
from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out_json, say


def note(address: str, text: str, /, *, common: Common = COMMON) -> None:
    """Write a note about a study, a trial or a run. It is shown with it from now on, and stays.

    Args:
        address: study, study/trial or study/trial/seed.
        text: The note, up to 10,000 characters.
    """
    from hpsearch.actions import note as write

    about = write(common.database, address, text)
    if common.json:
        out_json(shapes.said(about, text.strip()))
    elif not common.quiet:
        say(f"noted; hpsearch show {about}")
