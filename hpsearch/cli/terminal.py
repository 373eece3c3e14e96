"""What a terminal is given: text without tricks, numbers people can read, tables that never wrap."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn, final

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from hpsearch.shapes import SCHEMA, plain
from hpsearch.space import Params

if TYPE_CHECKING:
    from hpsearch.trial import Trial

BLOCKS = "▁▂▃▄▅▆▇█"
#: no cell of a table is wider
WIDEST = 40
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
    print(json.dumps({"schema": SCHEMA, **plain(value)}, ensure_ascii=False, allow_nan=False, default=str))


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


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters, direction marks and lone surrogates spelled out: ``\\x1b``.

    With ``lines``, line ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c in kept or unicodedata.category(c) not in _TRICKY else _spelled(c) for c in text)


#: control, format (direction marks among them), surrogate, private use, line and paragraph separators
_TRICKY = frozenset(["Cc", "Cf", "Cs", "Co", "Zl", "Zp"])


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def number(value: float | None, digits: int = 4) -> str:
    """``0.0462``, ``3.2e-05``; an en dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"


def setting_text(value: object, digits: int = 4) -> str:
    """A hyperparameter's value, short; an en dash for null, or where there is none."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}" if isinstance(value, float) else printable(str(value))


def params_text(params: Params, digits: int = 4) -> str:
    """``lr 0.01  momentum 0.9``."""
    return "  ".join(f"{printable(name)} {setting_text(value, digits)}" for name, value in params.items())


def spread_text(trial: Trial) -> str:
    """``0.0462 ± 0.0057 (5)``: mean, sample standard deviation over seeds, number of seeds."""
    spread = "" if trial.sd is None else f" ± {trial.sd:.2g}"
    return (
        f"{number(trial.value)}{spread} ({len(trial.search_runs)})"
        if trial.search_runs
        else f"{number(trial.value)}{spread}"
    )


def duration(seconds: float | None) -> str:
    """``0:04``, ``7:20``, ``1:02:03``, ``3d 4h``."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def ago(seconds: float) -> str:
    """``3 s ago``, ``5 min ago``, ``2 h ago``, ``4 d ago``."""
    for unit, size in [("d", 86400), ("h", 3600), ("min", 60)]:
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def spark(values: Sequence[float], width: int = 24) -> str:
    """A curve in block characters, lowest to highest; longer ones are averaged to ``width`` cells."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    n = min(width, len(finite))
    edges = [k * len(finite) // n for k in range(n + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low or not math.isfinite(high - low):
        return BLOCKS[3] * n
    return "".join(BLOCKS[min(7, int((mean - low) / (high - low) * 8))] for mean in means)


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
