from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.cli.settings import Common, device, workers
from hpsearch.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DB", "WORKERS", "DEVICE"):
        monkeypatch.delenv(f"HPSEARCH_{name}", raising=False)
    return tmp_path


def test_flag_before_environment_before_file_before_default(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Common().database == "sqlite:///hpsearch.db"
    (here / "pyproject.toml").write_text('[tool.hpsearch]\ndb = "sqlite:///project.db"\n')
    assert Common().database == "sqlite:///project.db"
    (here / "hpsearch.toml").write_text('db = "sqlite:///own.db"\nworkers = 3\n')
    assert Common().database == "sqlite:///own.db"
    assert (workers(None), workers(5), device(None)) == (3, 5, "auto")
    monkeypatch.setenv("HPSEARCH_DB", "sqlite:///env.db")
    monkeypatch.setenv("HPSEARCH_DEVICE", "cuda:1")
    assert (Common().database, device(None), device("cpu")) == ("sqlite:///env.db", "cuda:1", "cpu")
    assert Common(db="sqlite:///flag.db").database == "sqlite:///flag.db"


def test_mistakes_name_their_source(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPSEARCH_WORKERS", "many")
    with pytest.raises(UsageError, match="HPSEARCH_WORKERS: 'many'"):
        workers(None)
    monkeypatch.delenv("HPSEARCH_WORKERS")
    (here / "hpsearch.toml").write_text('database = "x"\n')
    with pytest.raises(UsageError, match=r"hpsearch\.toml: unknown setting 'database'"):
        workers(None)
    (here / "hpsearch.toml").write_text("db =\n")
    with pytest.raises(UsageError, match=r"hpsearch\.toml cannot be read"):
        workers(None)
    (here / "hpsearch.toml").unlink()
    (here / "pyproject.toml").write_text("somebody else's mistake")
    assert workers(None) is None
