from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hpsearch.address import Address, parse
from hpsearch.cli.terminal import ago, clip, duration, number, out, out_json, printable, spark, table
from hpsearch.errors import UsageError


@given(st.text())
def test_printable_text_cannot_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert "\u202e" not in shown
    assert printable(shown) == shown


def test_markup_and_escapes_are_printed_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    out("[red]x[/red] :smile: \x1b[31my\x07 [/nonsense]")
    assert capfd.readouterr().out == "[red]x[/red] :smile: \\x1b[31my\\x07 [/nonsense]\n"


def test_long_lines_are_not_wrapped_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    out("word " * 100)
    assert len(capfd.readouterr().out.splitlines()) == 1


@given(
    st.lists(st.lists(st.text(max_size=60), min_size=4, max_size=4), max_size=5),
    st.integers(min_value=20, max_value=200),
)
def test_a_table_drops_columns_and_never_leaves_the_terminal(rows: list[list[str]], fit: int) -> None:
    lines = table(["a", "b", "c", "d"], rows, fit=fit, keep=1)
    assert len(lines) == 1 + len(rows)
    assert all(cell_len(line) <= max(fit, 40) for line in lines)
    assert all("\n" not in line for line in lines)
    whole = table(["a", "b", "c", "d"], rows, fit=None)
    assert all(printable(cell).strip() in line for row, line in zip(rows, whole[1:], strict=True) for cell in row)


def test_table_drops_from_the_right() -> None:
    rows = [["#1", "0.5", "x" * 30, "y" * 30]]
    assert table(["trial", "loss", "a", "b"], rows, fit=80)[1].split() == ["#1", "0.5", "x" * 30, "y" * 30]
    assert table(["trial", "loss", "a", "b"], rows, fit=60)[1].split() == ["#1", "0.5", "x" * 30]
    assert table(["trial", "loss", "a", "b"], rows, fit=20)[1].split() == ["#1", "0.5"]


@given(st.lists(st.floats(), max_size=300), st.integers(min_value=1, max_value=50))
def test_sparklines_take_any_numbers(values: list[float], width: int) -> None:
    line = spark(values, width)
    assert len(line) == min(width, sum(math.isfinite(value) for value in values))


def test_sparkline_goes_from_lowest_to_highest() -> None:
    assert spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert spark([1.0, 1.0, math.nan]) == "▄▄"


def test_numbers_and_times() -> None:
    assert [number(x) for x in (0.046212, 3.2e-05, None, math.inf)] == ["0.04621", "3.2e-05", "–", "inf"]
    assert [duration(s) for s in (-7200.0, 0.4, 59.6, 440, 3723, 300000, None, math.inf)] == [
        "0:00",
        "0:00", "1:00", "7:20", "1:02:03", "3d 11h", "–", "–",
    ]  # fmt: skip
    assert [ago(s) for s in (-3, 5, 600, 9000, 400000)] == ["0 s ago", "5 s ago", "10 min ago", "2 h ago", "4 d ago"]
    assert (clip("abcdef", 4), clip("日本語", 4), clip("ab", None)) == ("abc…", "日 …", "ab")


def test_json_is_json(capfd: pytest.CaptureFixture[str]) -> None:
    out_json({"a": math.nan, "b": [math.inf, 1.5], 3: {"c": (1, "x\n")}})
    text = capfd.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == {"schema": 2, "a": None, "b": [None, 1.5], "3": {"c": [1, "x\n"]}}


def test_addresses() -> None:
    assert parse("digits") == Address(study="digits")
    assert parse("digits/#12") == Address(study="digits", trial=12)
    assert parse("di.g-1/3/0") == Address(study="di.g-1", trial=3, seed=0)
    assert parse("digits/3/5.2") == Address(study="digits", trial=3, seed=5, repeat=2)


@pytest.mark.parametrize("text", ["", "/1", "a/", "a/x", "a/1/2/3", "a/-1", "a/1/1.x", "a/1/²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        parse(text)
