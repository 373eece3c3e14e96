"""The whole suite. ``pytest --full`` adds what takes too long for every change."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Server

#: what lay beside the code when the run began
_BEFORE = pytest.StashKey[set[Path]]()
#: what tests have left there since
_LEFT = pytest.StashKey[list[Path]]()


def _strewn(root: Path) -> set[Path]:
    """What lies in the repository's folder and in its ``hpsearch-files``, but for the caches of tools."""
    caches = (".", "__pycache__")
    return {path for path in [*root.iterdir(), *root.glob("hpsearch-files/*")] if not path.name.startswith(caches)}


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_BEFORE] = _strewn(session.config.rootpath)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tests that leave files beside the code fail the run: theirs is ``tmp_path``."""
    left = _strewn(session.config.rootpath) - session.config.stash[_BEFORE]
    if left and not hasattr(session.config, "workerinput"):
        session.config.stash[_LEFT] = sorted(left)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for path in config.stash.get(_LEFT, []):
        terminalreporter.write_line(
            f"FAILED: a test has left {path}; a study on a server wants files= or cwd=", red=True
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also the tests marked full, and every point of a sweep")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ``--full``, leave out what is marked so: the same code over more points."""
    if config.getoption("--full"):
        return
    left = [item for item in items if item.get_closest_marker("full")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.fixture(scope="module", autouse=True)
def _what_stays() -> None:
    """Leave out of collections what is there before a file's tests: a million objects, a third of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server for this session (of each xdist worker). A test that stops it need not start it again."""
    server = Server()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server: Server) -> Iterator[str]:
    """A new, empty database on it, as ``--db`` takes it."""
    postgres_server.start()
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.start()
    postgres_server.drop(name)
