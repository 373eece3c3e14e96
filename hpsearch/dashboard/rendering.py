"""Templates, and the words in them: for the pages, for the way in, and for what went wrong."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from hpsearch.written import ago, duration, number, redacted, setting_text, shown_on_page

#: what a page can be asked to look like; anything else is as the system has it
THEMES = ("light", "dark")


def rendered(template: str, /, *, theme: str, **values: Any) -> str:
    """A template as HTML.

    Args:
        template: its file's name.
        theme: as the cookie has it, which anyone may have written.
        **values: what it shows.
    """
    return _TEMPLATES.get_template(template).render(theme=theme if theme in THEMES else "", **values)


def coded(text: str) -> Markup:
    """A text whose parts in backticks are code."""
    parts = re.split(r"`+([^`]+)`+", redacted(text))
    return Markup("").join(Markup("<code>{}</code>").format(p) if k % 2 else p for k, p in enumerate(parts))


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown_on_page,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "setting": setting_text,
        "duration": duration,
        "took": lambda seconds: duration(seconds) if seconds >= 10 else f"{seconds:.2g} s" if seconds else "–",
        "since": lambda when: ago(time.time() - when),
        "clock": lambda when: datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "segment": lambda text: quote(str(text), safe=""),
        "coded": coded,
    }
    return made


_TEMPLATES = _environment()
