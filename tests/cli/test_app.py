from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch import __version__
from hpsearch.cli import app
from tests.cli.conftest import shell

HEAVY = {"torch", "ray", "pandas", "optuna", "plotly", "sqlalchemy", "scipy", "sklearn", "pydantic", "yaml", "numpy"}
READING = [
    ["list"],
    ["status"],
    ["status", "toy"],
    ["show", "toy"],
    ["show", "toy/0"],
    ["best", "toy"],
    ["logs", "toy/0"],
    ["compare", "toy", "other"],
    ["export", "toy"],
    ["stop", "toy"],
    ["note", "toy", "odd"],
    ["tag", "toy", "odd"],
    ["resume", "toy"],
    ["delete", "toy", "--yes"],
]


@pytest.mark.parametrize("tokens", [["--help"], [], ["run", "--help"], ["list", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(tokens: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from hpsearch.cli.app import call\n"
        f"rc = call({tokens})\n"
        f"print(rc, sorted(m for m in sys.modules if m.split('.')[0] in {HEAVY}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "0 []"
    assert done.stdout.strip()


@pytest.mark.parametrize("command", app.COMMANDS)
def test_every_command_and_option_is_explained(command: str, hpsearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ended = hpsearch(command, "--help")
    assert (ended.code, ended.err) == (0, "")
    target, _ = app.COMMANDS[command]
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(f"hpsearch.cli.{module}"), name)
    assert function.__doc__.splitlines()[0][:60] in ended.out
    options = [line.strip("│ ") for line in ended.out.splitlines() if line.startswith("│")]
    assert options
    unexplained = [line for line in options if len(line.split("  ")) < 2]
    assert unexplained == []


def test_help_lists_every_command(hpsearch) -> None:
    text = hpsearch("--help").out
    assert all(f"│ {name} " in text and words in text for name, (_, words) in app.COMMANDS.items())
    assert hpsearch("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["shwo"], 'Did you mean "show"'),
        (["list", "--jsno"], "Did you mean --json"),
        (["list", "--state", "runing"], "runing"),
        (["best", "toy", "-k", "many"], "many"),
        (["show"], "ADDRESS"),
        (["run", "toy.yaml", "--workers", "0"], "at least 1"),
        (["run", "toy.yaml", "--grace", "soon"], "soon"),
        (["run", "toy.yaml", "--set", "strategy"], "--set strategy=grid"),
        (["show", "a/b"], "study/trial/seed"),
        (["compare", "toy"], "two studies"),
        (["--db", "x.db", "list"], "sqlite:///x.db"),
        (["run", "nothing.yaml"], "no such file"),
        (["best", "toy", "-k", "0"], "at least 1"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_hint(tokens: list[str], words: str, folder: Path, hpsearch) -> None:
    ended = hpsearch(*tokens)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert words in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("tokens", READING, ids=" ".join)
def test_no_reading_command_makes_a_database(tokens, tmp_path: Path, hpsearch, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = hpsearch(*tokens)
    assert ended.code == 3
    assert ended.err.startswith("error: there is no database")
    assert "hint: " in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_near_name_is_suggested_and_a_beginning_is_enough(folder: Path, hpsearch) -> None:
    ended = hpsearch("show", "tyo")
    assert ended.code == 3
    assert "toy" in ended.err
    assert hpsearch("best", "ot").out == hpsearch("best", "other").out != ""
    ended = hpsearch("show", "toy/99")
    assert ended.code == 3
    ended = hpsearch("show", "toy/0/77")
    assert ended.code == 3
    assert "its seeds: 0, 1" in ended.err


def test_options_for_every_command_may_stand_before_it(folder: Path, hpsearch) -> None:
    after = hpsearch("list", "--json", "--db", "sqlite:///hpsearch.db")
    assert hpsearch("--db", "sqlite:///hpsearch.db", "--json", "list").out == after.out
    assert hpsearch("--db=sqlite:///hpsearch.db", "--json", "ls").out == after.out


def test_our_own_mistake_is_saved_and_named(folder: Path, hpsearch, monkeypatch) -> None:
    monkeypatch.setattr("hpsearch.stores.sql.open_archive", lambda url: 1 / 0)
    ended = hpsearch("list")
    assert ended.code == 1
    assert ended.err.startswith("error: unexpected ZeroDivisionError")
    assert len(ended.err.splitlines()) == 2
    saved = Path(ended.err.split()[-1])
    assert "ZeroDivisionError: division by zero" in saved.read_text()
    saved.unlink()


def test_a_reader_that_goes_away_is_no_error(finished: Path) -> None:
    command = f"{sys.executable} -m hpsearch.cli.app show toy | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=finished, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() in ("0", str(app.BROKEN_PIPE))
    assert done.stderr == ""


def test_a_terminal_without_unicode_is_served(finished: Path) -> None:
    ended = shell(finished, "show", "toy/0", PYTHONIOENCODING="ascii")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.isascii()
