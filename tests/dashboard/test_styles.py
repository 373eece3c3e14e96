"""Our policy lets no script make a style sheet: plotly's own is a file of ours, and holds what its script would add."""

from __future__ import annotations

import re
from pathlib import Path

STATIC = Path(__file__).parents[2] / "hpsearch" / "dashboard" / "static"
RULE = re.compile(r"""(?:"([^"]+)"|\b([XY])):(?:'([^']*)'|"([^"]*)"),?""")


def styles_of(script: str) -> str:
    """The rules that plotly.js adds to a page when it is loaded, as a style sheet, in its order of precedence."""
    start = script.index('{"X,X div":')
    rules, at = [], start + 1
    while script[at] != "}":
        found = RULE.match(script, at)
        assert found, script[at : at + 80]
        selector, body = found[1] or found[2], found[3] or found[4]
        selector = selector.replace("X", ".js-plotly-plot .plotly").replace("Y", ".plotly-notifier")
        rules.append(f"{selector} {{{body}}}\n")
        at = found.end()
    # Each rule is inserted before those that came earlier.
    return "".join(reversed(rules))


def test_plotlys_styles_are_those_of_its_script() -> None:
    script = (STATIC / "plotly-cartesian.min.js").read_text("utf-8")
    assert script.count('{"X,X div":') == 1
    head, _, rules = (STATIC / "plotly.css").read_text("utf-8").partition("\n")
    version = re.search(r"v(\d+\.\d+\.\d+)", script)
    assert version
    origin = f"plotly.js {version[1]}, MIT licence: what its script would add to a page"
    assert head == f"/* {origin} (tests/dashboard/test_styles.py). */"
    assert rules == styles_of(script)


def test_our_plotly_draws_what_the_wheel_describes() -> None:
    """Pictures are described by plotly of Python: the same major version of plotly.js reads them."""
    from plotly.offline import get_plotlyjs_version

    script = (STATIC / "plotly-cartesian.min.js").read_text("utf-8")
    version = re.search(r"plotly\.js \(cartesian[^)]*\) v(\d+)\.\d+\.\d+", script[:500])
    assert version
    assert version[1] == get_plotlyjs_version().split(".")[0]


def test_pages_say_to_plotly_that_its_styles_are_there() -> None:
    """By the name and class that its script looks for."""
    script = (STATIC / "plotly-cartesian.min.js").read_text("utf-8")
    assert '"plotly.js-style-"+' in script
    assert 'matches(".no-inline-styles")' in script
    base = (STATIC.parent / "templates" / "base.html").read_text("utf-8")
    assert (
        '<link rel="stylesheet" href="/static/plotly.css" id="plotly.js-style-global" class="no-inline-styles">' in base
    )
