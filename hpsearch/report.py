"""A study as one HTML page for someone who was not there: what is shown first, then the pictures, then the trials.

The page is one file: the pictures' JavaScript is in it, and opening it asks nothing of a network. All that comes from
the record (names, params, notes) is text in it, never markup.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from hpsearch import __version__
from hpsearch.errors import UsageError
from hpsearch.figures import subject, theme
from hpsearch.figures.subject import Subject, seeds_of
from hpsearch.findings import verdict_of
from hpsearch.pictures import pictures, source_of
from hpsearch.results import Results
from hpsearch.trial import State, Trial
from hpsearch.verdict import spread
from hpsearch.written import setting_text, shown_on_page

#: trials in the table: the best, then those without a value
ROWS = 200


def report(results: Results, path: Path) -> int:
    """Write the page and return its size in bytes. The file appears whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    text = page(results)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        draft = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return len(text.encode("utf-8", "replace"))


def page(results: Results) -> str:
    """The page, as HTML."""
    seen = subject.of(results)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=shown_on_page
    )
    return templates.get_template("report.html").render(
        study=results.study,
        seeds=results.study.spec["seeds"],
        strategy=seen.strategy,
        metric=seen.metric,
        direction=str(seen.direction),
        counts=[(str(state), n) for state, n in results.study.counts.items() if n],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        verdict=verdict_of(results),
        pictures=[
            {"name": drawn.name, "sentence": drawn.sentence, "json": _script(drawn.figure)}
            for drawn in pictures(source_of(results))
        ],
        names=list(seen.space.parameters),
        rows=rows(seen),
        total=len(seen.trials),
        script=theme.javascript(),
    )


def _script(figure: Any) -> str:
    """A figure as JSON within <script>: no text of the record may end it."""
    plain = json.loads(figure.to_json())
    plain["layout"].pop("template", None)
    text = json.dumps(plain, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def rows(seen: Subject) -> list[dict[str, Any]]:
    """The table: the best trials first, then those without a value; at most 200."""
    sign = seen.direction.sign

    def place(t: Trial) -> tuple[int, float, int]:
        good = t.state is State.COMPLETE and t.value is not None
        return (0 if good else 1, sign * (t.value or 0.0) if good else 0.0, t.number)

    return [
        {
            "number": t.number,
            "state": str(t.state),
            "value": "–" if t.value is None else f"{t.value:.4g}",
            "sd": "" if t.sd is None else f"± {t.sd:.2g}",
            "n": seeds_of(t),
            "interval": _interval(t),
            "baseline": t.baseline,
            "params": [setting_text(t.params.get(name)) for name in seen.space.parameters],
        }
        for t in sorted(seen.trials, key=place)[:ROWS]
    ]


def _interval(t: Trial) -> str:
    """Empty but for a complete trial of several seeds."""
    found = spread(list(t.values().values()))
    known = t.state is State.COMPLETE and found.low is not None
    return f"{found.low:.4g} to {found.high:.4g}" if known else ""
