"""Numbers, times and texts of the record as people read them, at every door."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hpsearch.space import Params

if TYPE_CHECKING:
    from hpsearch.trial import Trial

BLOCKS = "▁▂▃▄▅▆▇█"
#: what stands for a secret
HIDDEN = "***"
#: the password of an address. The lengths keep the time to look through a long text proportional to it
_ADDRESS = re.compile(r"(://[^\s:/@'\"]{0,400}):[^\s'\"]{0,500}@")
#: names of secrets, and what is given to them by ``=`` or ``:``, also within a quoted text (``\\'``). A token is a word
#: of many trades (``max_token = 128``, ``token = embed(x)``, ``pool_token: cls``): its value is none where it is a
#: number or short, or where spaces are about the ``=``, as in code
_NAMED = re.compile(
    r"""(?ix)(
        (?:passw(?:or)?d|passphrase|secret|(?:api|access|private)[_-]?key)
        \w{0,40} (?:\\{0,3}['"])? \s{0,4} [=:] \s{0,4} (?:\\{0,3}['"])?
    |   (?<=[?&]) \w{0,40} pass \w{0,40} =
    |   token (?:\\{0,3}['"])? (?: = | : \s{0,4} | \s{1,4} = \s{0,4} (?=\\{0,3}['"]) ) (?:\\{0,3}['"])?
        (?! [\d.]+ (?:[\s,;)}\]]|$) ) (?= [^\s'"&;,)]{8} )
    ) [^\s'"&;,)]+"""
)


def redacted(text: str) -> str:
    """The text without the passwords of addresses in it (``postgresql://ann:***@host``), and without what is said to be
    a password, a secret, a key or a token (``HPSEARCH_TOKEN=***``).

    Of every door through which texts of runs, of errors or of the server leave.
    """
    return _NAMED.sub(rf"\1{HIDDEN}", _ADDRESS.sub(rf"\1:{HIDDEN}@", text))


def without_secrets(value: Any) -> Any:
    """The same plain data (mappings, sequences, texts, numbers), each text ``redacted``; keys stay."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [without_secrets(item) for item in value]
    return value


def shown_on_page(value: Any) -> Any:
    """What an expression of a template gives, without secrets: jinja's ``finalize``. Markup was made of such."""
    return redacted(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


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
