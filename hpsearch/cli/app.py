"""The door: finds the command, and turns every error into words and an exit code.

Commands are imported when they are called, and heavy libraries inside them, so that ``hpsearch --help`` costs little.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError

from hpsearch import __version__
from hpsearch.errors import HpsearchError

#: command -> where it lives, what it does
COMMANDS = {
    "init": ("init:init", "Write a small study that runs at once."),
    "plan": ("plan:plan", "Say what a study will run and what it will cost; run nothing."),
    "try": ("try_:try_", "Train one setting by hand; record nothing."),
    "run": ("run:run", "Run a study, or go on with it."),
    "resume": ("resume:resume", "Go on with a study by its name."),
    "stop": ("stop:stop", "Ask a running study to stop."),
    "status": ("status:status", "Say how far studies are."),
    "note": ("note:note", "Write a note about a study, a trial or a run."),
    "tag": ("tag:tag", "Tag a study, a trial or a run."),
    "confirm": ("confirm:confirm", "Race the best trials on fresh seeds."),
    "ship": ("ship:ship", "The checklist of a trial; its value on the sealed test set."),
    "rerun": ("rerun:rerun", "Repeat runs and compare; add seeds; repeat what failed."),
    "verify": ("verify:verify", "Check that the record holds."),
    "logs": ("logs:logs", "Print what a run has printed."),
    "list": ("list:list_", "List the studies."),
    "show": ("show:show", "Show a study, a trial or a run."),
    "best": ("best:best", "Show the best trials of a study."),
    "compare": ("compare:compare", "Put studies or trials side by side."),
    "importance": ("importance:importance", "Say which hyperparameters mattered, and how surely."),
    "report": ("report:report", "Write a study as one HTML page: verdict, pictures, trials."),
    "dashboard": ("dashboard:dashboard", "Show studies in a browser, also while they run."),
    "export": ("export:export_", "Write a study as CSV, Parquet or JSON."),
    "artifacts": ("artifacts:artifacts", "List or prune the weights that a study keeps."),
    "delete": ("delete:delete", "Remove a study from the database."),
    "db": ("db:db", "Look after the database: info, check, backup, upgrade."),
    "schema": ("schema:schema", "Print the JSON Schema of study files."),
    "completion": ("completion:completion", "Print or install shell completion."),
}
ALIASES = {"list": ["ls"]}
NAMES = frozenset([*COMMANDS, *(alias for aliases in ALIASES.values() for alias in aliases)])
#: options that every command has, which may also stand before it; True: takes a value
EVERYWHERE = {"--db": True, "--json": False, "-q": False, "--quiet": False, "--no-color": False}
#: 128 + SIGPIPE: the reader has gone away
BROKEN_PIPE = 141
INTERRUPTED = 130


def make_app(command: str = "") -> App:
    """The commands, none of them imported; ``command`` is the one that will be called, and says more about itself."""
    app = App(
        name="hpsearch",
        help="Hyperparameter search for people who train PyTorch models.",
        help_epilogue=None if command else "hpsearch COMMAND --help says more. Start with: hpsearch init my-study",
        # Cyclopts would import a Markdown parser for one sentence.
        help_format="plaintext",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for order, (name, (target, words)) in enumerate(COMMANDS.items()):
        aliases = ALIASES.get(name, [])
        # Without help, Cyclopts takes it from the command's docstring, for which it must be imported.
        told = {} if command in (name, *aliases) else {"help": words}
        app.command(f"hpsearch.cli.{target}", name=name, alias=aliases, sort_key=order, **told)
    return app


def main() -> None:
    """The ``hpsearch`` command."""
    raise SystemExit(call(sys.argv[1:]))


def call(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code. Never raises, except SystemExit."""
    _calm()
    if "--no-color" in tokens:
        os.environ["NO_COLOR"] = "1"
    tokens = _command_first(tokens)
    command = tokens[0] if tokens else ""
    try:
        code = make_app(command if command in NAMES else "")(tokens, print_error=False, exit_on_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        error.verbose = False
        return _complain(str(error), hint=_help_hint(command), code=2)
    except HpsearchError as error:
        return _complain(str(error), hint=error.hint, code=error.exit_code)
    except BrokenPipeError:
        # Python would complain again when it flushes at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: our own mistake becomes a report
        return _complain(*_report(error), code=1)
    return code if isinstance(code, int) else 0


def _calm() -> None:
    """No library speaks to our user, and no terminal's encoding ends a command."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _command_first(tokens: Sequence[str]) -> list[str]:
    """``--db X list`` as ``list --db X``: options for every command may stand before it."""
    rest, options = list(tokens), []
    while rest and rest[0].split("=")[0] in EVERYWHERE:
        count = 2 if EVERYWHERE[rest[0].split("=")[0]] and "=" not in rest[0] else 1
        options += rest[:count]
        del rest[:count]
    return [rest[0], *options, *rest[1:]] if rest and rest[0] in NAMES else [*rest, *options]


def _help_hint(command: str) -> str:
    return f"hpsearch {command} --help" if command in NAMES else "hpsearch --help"


def _report(error: Exception) -> tuple[str, str]:
    """Save the traceback where a bug report can take it from."""
    import tempfile
    import traceback

    words = f"{type(error).__name__}: {error}"
    try:
        handle, name = tempfile.mkstemp(prefix="hpsearch-", suffix=".txt")
        with os.fdopen(handle, "w", errors="backslashreplace") as file:
            file.write(f"hpsearch {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n")
            file.writelines(traceback.format_exception(error))
    except OSError:
        return f"unexpected {words}", "please report it"
    return f"unexpected {words}", f"please report it with the traceback in {Path(name)}"


def _complain(message: str, hint: str = "", *, code: int) -> int:
    from hpsearch.cli.terminal import printable

    with contextlib.suppress(BrokenPipeError):
        print(f"error: {printable(message, lines=True)}", file=sys.stderr)
        if hint:
            print(f"  hint: {printable(hint)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
