"""Where a study's files are, and what is done with those that another study has left there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.errors import ExecutorError, UsageError
from hpsearch.settings import checkpoint_folder, empty_checkpoints, files_folder
from hpsearch.trial import RunKey

RUN, OTHER = RunKey(0, 7), RunKey(0, 7, 1)


def left(files: Path, run: RunKey) -> Path:
    """The folder of a run, in which something lies."""
    folder = checkpoint_folder(files, run)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "model.bin").write_text("x")
    return folder


def test_studies_that_share_a_folder_have_one_each_in_it(tmp_path: Path) -> None:
    assert files_folder("sqlite:///r.db", "one", tmp_path) == tmp_path / "one"
    left(tmp_path / "one", RUN)
    left(tmp_path / "0", RUN)  # a study may be called so
    assert files_folder("sqlite:///r.db", "one", tmp_path) == tmp_path / "one"
    assert files_folder("sqlite:///r.db", "two", tmp_path) == tmp_path / "two"


def test_a_folder_with_a_studys_runs_directly_in_it_is_refused_with_the_way_out(tmp_path: Path) -> None:
    left(tmp_path, RUN)
    with pytest.raises(UsageError, match="has a study's runs") as caught:
        files_folder("sqlite:///r.db", "one", tmp_path)
    assert f"mkdir {tmp_path / 'one'}" in caught.value.hint
    (tmp_path / "one").mkdir()
    assert files_folder("sqlite:///r.db", "one", tmp_path) == tmp_path / "one"


def test_what_lies_there_is_removed_and_other_runs_keep_theirs(tmp_path: Path) -> None:
    folder, other, asked = left(tmp_path, RUN), left(tmp_path, OTHER), list[int]()
    log = folder.parent / "log.txt"
    log.touch()
    empty_checkpoints(tmp_path, [RUN, RunKey(5, 5)], lambda: asked.append(1))
    assert not folder.exists()
    assert list(other.iterdir())
    assert log.exists()
    assert asked == [1]
    folder.mkdir()
    empty_checkpoints(tmp_path, [RUN, RunKey(5, 5)], lambda: asked.append(2))  # nothing lies there
    assert asked == [1]


def test_nothing_is_removed_where_the_study_is_not_ours(tmp_path: Path) -> None:
    folder = left(tmp_path, RUN)

    def lost() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        empty_checkpoints(tmp_path, [RUN], lost)
    assert list(folder.iterdir())


def test_links_are_removed_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    files, outside = tmp_path / "files", tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("x")
    (left(files, RUN) / "link").symlink_to(outside)
    checkpoint_folder(files, OTHER).parent.mkdir(parents=True)
    checkpoint_folder(files, OTHER).symlink_to(outside)
    empty_checkpoints(files, [RUN, OTHER], lambda: None)
    assert not checkpoint_folder(files, RUN).exists()
    assert not checkpoint_folder(files, OTHER).is_symlink()
    assert (outside / "mine").read_text() == "x"


def test_a_run_whose_folder_lies_elsewhere_is_not_begun(tmp_path: Path) -> None:
    files, outside = tmp_path / "files", tmp_path / "outside"
    folder = left(outside, RUN)
    files.mkdir()
    (files / "0").symlink_to(outside / "0")
    with pytest.raises(ExecutorError, match="is a link to") as caught:
        empty_checkpoints(files, [RUN], lambda: None)
    assert "by hand" in caught.value.hint
    assert list(folder.iterdir())


def test_files_in_a_folder_that_is_itself_a_link_are_the_studys(tmp_path: Path) -> None:
    folder = left(tmp_path / "disk", RUN)
    (tmp_path / "files").symlink_to(tmp_path / "disk")
    empty_checkpoints(tmp_path / "files", [RUN], lambda: None)
    assert not folder.exists()
