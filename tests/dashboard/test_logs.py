"""The end of a log: what is shown of it, and what is never read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpsearch.dashboard.logs import BYTES, LINES, tail
from hpsearch.settings import group_line, log_file
from hpsearch.trial import RunKey

RUN = RunKey(3, 1)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = log_file(tmp_path / "study", RUN)
    path.parent.mkdir(parents=True)
    return path


def test_the_last_lines_of_a_long_log(tmp_path: Path, log: Path) -> None:
    log.write_text("".join(f"line {k}\n" for k in range(1000)))
    found = tail(tmp_path / "study", RUN)
    assert found is not None
    assert found.lines == [f"line {k}" for k in range(800, 1000)]
    assert len(found.lines) == LINES
    assert found.cut
    assert found.files == ["3/1/log.txt"]


def test_a_large_log_is_read_from_its_end_and_a_long_line_is_cut(tmp_path: Path, log: Path) -> None:
    log.write_bytes(b"\xff" * (BYTES + 10) + b"\nlast\xff \xe2\x80\xae\n" + b"y" * 5000 + b"\n")
    found = tail(tmp_path / "study", RUN)
    assert found is not None
    assert found.cut
    assert found.lines == ["last\ufffd \\u202e", "y" * 2000 + "…"]
    log.write_text("z" * 1999 + "\n" + ("z" * 1999 + "\n") * 100)
    found = tail(tmp_path / "study", RUN)
    assert found is not None
    assert len(found.lines) == 30
    assert sum(map(len, found.lines)) < 60_000


def test_the_log_of_its_group_is_shown_where_the_run_names_it(tmp_path: Path, log: Path) -> None:
    shared = tmp_path / "study" / "groups" / "20260101T000000Z-1-1.txt"
    shared.parent.mkdir()
    shared.write_text("together\n")
    line = group_line("attempt 1, now, process 1", f"groups/{shared.name}")
    log.write_text(f"before\n{line}after\n")
    found = tail(tmp_path / "study", RUN)
    assert found is not None
    assert found.lines == ["before", line.rstrip(), "together", "after"]
    assert found.files == ["3/1/log.txt", f"groups/{shared.name}"]
    assert not found.cut


def test_no_log_is_none(tmp_path: Path, log: Path) -> None:
    assert tail(tmp_path / "study", RUN) is None
    assert tail(tmp_path / "nothing", RUN) is None


def test_nothing_outside_the_studys_files_is_read(tmp_path: Path, log: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret\n")
    log.symlink_to(secret)
    assert tail(tmp_path / "study", RUN) is None
    log.unlink()
    os.mkfifo(log)  # opening one would wait for ever
    assert tail(tmp_path / "study", RUN) is None
    log.unlink()
    groups = tmp_path / "study" / "groups"
    groups.mkdir()
    (groups / "link.txt").symlink_to(secret)
    names = ("groups/link.txt", "groups/..", "groups/../../secret.txt")
    log.write_text("".join(group_line("attempt 1", name) for name in names))
    found = tail(tmp_path / "study", RUN)
    assert found is not None
    assert "secret" not in found.lines
    assert found.files == ["3/1/log.txt"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.txt").write_text("secret\n")
    log.unlink()
    log.parent.rmdir()
    log.parent.symlink_to(tmp_path / "other")
    assert tail(tmp_path / "study", RUN) is None
