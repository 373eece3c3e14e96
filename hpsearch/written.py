"""Numbers, times and texts of the record as people read them, at every door."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from hpsearch.space import Params

if TYPE_CHECKING:
    from hpsearch.trial import Trial

BLOCKS = "▁▂▃▄▅▆▇█"


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
    minutes, second = divmod(round(max(0.0, seconds)), 60)  # below 0 where a clock was set back meanwhile
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
