"""What a terminal is given: text without tricks, numbers people can read, tables that never wrap."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, final

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from hpsearch.shapes import numbered, plain
from hpsearch.written import (
    ago as ago,
)
from hpsearch.written import (
    duration as duration,
)
from hpsearch.written import (
    number as number,
)
from hpsearch.written import (
    params_text as params_text,
)
from hpsearch.written import (
    printable as printable,
)
from hpsearch.written import (
    setting_text as setting_text,
)
from hpsearch.written import (
    spark as spark,
)
from hpsearch.written import (
    spread_text as spread_text,
)

if TYPE_CHECKING:
    from hpsearch.verdict import Spread

#: no cell of a table is wider
WIDEST = 40
#: the head of a column of ``interval_text``
INTERVAL = "95 % interval (t)"
COLUMN_GAP = 2


@final
class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        # Rich would end the process here; the door knows better what to do.
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """Rich, but nothing in a text is markup, and nothing wraps."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def out(text: str = "", style: str = "") -> None:
    """One piece of data, to stdout."""
    console().print(printable(text, lines=True), style=style or None)


def say(text: str = "", style: str = "") -> None:
    """Something about the data, to stderr."""
    console(stderr=True).print(printable(text, lines=True), style=style or None)


def out_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, with the number of its shape; numbers that JSON does not know are null."""
    print(json.dumps(numbered(plain(value)), ensure_ascii=False, allow_nan=False, default=str))


def ask(question: str) -> bool:
    """A yes from the terminal. Only where there is one: see ``interactive``."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def interactive() -> bool:
    """True where someone can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def lively() -> bool:
    """True where stderr is a terminal that can redraw itself, and no CI job."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") not in (None, "", "dumb")


def width() -> int | None:
    """Columns of the terminal; None where stdout is none and lines may be as long as they like."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, fit: int | None, keep: int = 1) -> list[str]:
    """Aligned lines, the heads first. Columns that do not fit into ``fit`` cells are dropped from the right.

    The first ``keep`` columns always stay. Cells that look like numbers are aligned to the right.
    """
    heads = [printable(head) for head in heads]
    cells = [[printable(cell) for cell in row] for row in rows]
    sizes = [
        min(WIDEST if fit else 10**9, max(cell_len(text) for text in (head, *(row[k] for row in cells))))
        for k, head in enumerate(heads)
    ]
    shown = len(heads)
    while fit and shown > keep and sum(sizes[:shown]) + COLUMN_GAP * (shown - 1) > fit:
        shown -= 1
    right = [bool(cells) and all(_numeric(row[k]) for row in cells) for k in range(shown)]
    return [
        (" " * COLUMN_GAP).join(_cell(row[k], sizes[k], right=right[k]) for k in range(shown)).rstrip()
        for row in [heads, *cells]
    ]


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, keep: int = 1) -> None:
    """A table on stdout: the heads dim, columns dropped where the terminal is narrow."""
    head, *lines = table(heads, rows, fit=width(), keep=keep)
    out(head, style="dim")
    for line in lines:
        out(line)


def interval_text(found: Spread) -> str:
    """``0.0642 to 0.07484``; empty where there is none."""
    return "" if found.low is None else f"{number(found.low)} to {number(found.high)}"


def headed(head: str, text: str) -> str:
    """``fused     64 runs: ...``: lines of at most 80 cells, the text in a column of its own."""
    return textwrap.fill(text, 80, initial_indent=f"{head:<10}", subsequent_indent=" " * 10, break_on_hyphens=False)


def clip(text: str, fit: int | None) -> str:
    """A line of at most ``fit`` cells."""
    if not fit or cell_len(text) <= fit:
        return text
    return set_cell_size(text, max(0, fit - 1)) + "…"


def _numeric(text: str) -> bool:
    return text in ("", "–") or text[:1] in "-#." or text[:1].isdigit()


def _cell(text: str, size: int, *, right: bool) -> str:
    text = clip(text, size)
    gap = " " * (size - cell_len(text))
    return gap + text if right else text + gap
