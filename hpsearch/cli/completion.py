"""``hpsearch completion``."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import say


def completion(
    shell: Literal["bash", "zsh", "fish"],
    /,
    *,
    install: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    common: Common = COMMON,
) -> None:
    """Print the script that completes commands and options in a shell.

    Args:
        shell: The shell it is for.
        install: Put it where the shell finds it, and name it in the shell's start file.
    """
    from hpsearch.cli.app import make_app

    app = make_app()
    if not install:
        print(app.generate_completion(shell=shell))
        return
    file = app.install_completion(shell=shell)
    if not common.quiet:
        say(f"installed {file}; a new {shell} has it")
