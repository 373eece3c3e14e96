"""``hpsearch schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import say
from hpsearch.errors import UsageError


def schema(
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    common: Common = COMMON,
) -> None:
    """Print the JSON Schema of study files, for an editor that completes and checks them.

    Args:
        output: Write it to this file instead.
    """
    from hpsearch.read import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if output is None:
        print(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    if not common.quiet:
        say(f"wrote {output}; in a study file:  # yaml-language-server: $schema={output}")
