"""Where a run was trained."""

import shutil
import subprocess

import pytest

from hpsearch.training.environment import environment

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@needs_git
def test_commit_and_whether_dirty(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "hpsearch.db").write_text("untracked, like the study's own database")
    here = environment(tmp_path, "cpu")
    assert (here.git_commit, here.git_dirty) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "code.py").write_text("x = 2")
    environment.cache_clear()
    assert environment(tmp_path, "cpu").git_dirty


def test_without_a_checkout_or_git_the_commit_is_empty(tmp_path, monkeypatch):
    assert environment(tmp_path, "cpu").git_commit == ""
    environment.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    here = environment(tmp_path, "cpu")
    assert (here.git_commit, here.git_dirty, here.device) == ("", False, "cpu")
    assert here.packages["hpsearch"]


def test_no_environment_variable_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "s3cr3t-value")
    environment.cache_clear()
    assert "s3cr3t-value" not in repr(environment(tmp_path, "cpu"))
