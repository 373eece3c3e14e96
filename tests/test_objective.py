"""The look at an objective that imports nothing."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch.errors import ObjectiveError
from hpsearch.objective import ObjectiveAddress, find, source_hash

SOURCE = """
raise SystemExit("imported!")
def train(run): ...
class Task: ...
async def later(run): ...
alias = train
a, b = train, Task
typed: int = 3
declared: int
from os import path as way
if True:
    def inner(run): ...
try:
    import torch
except ImportError:
    fallback = None
def outer():
    def hidden(run): ...
"""


def address(folder: Path, name: str, source: str = "code.py") -> ObjectiveAddress:
    return ObjectiveAddress(source, name, folder)


@pytest.mark.parametrize(
    "name", ["train", "Task", "later", "alias", "a", "b", "typed", "way", "inner", "torch", "fallback"]
)
def test_finds_every_kind_of_name_without_running_the_file(tmp_path, name):
    (tmp_path / "code.py").write_text(SOURCE)
    assert find(address(tmp_path, name)) == tmp_path / "code.py"


@pytest.mark.parametrize("name", ["hidden", "declared", "trane"])
def test_a_name_that_is_not_there_is_an_error_with_the_near_ones(tmp_path, name):
    (tmp_path / "code.py").write_text(SOURCE)
    with pytest.raises(ObjectiveError, match=f"defines no '{name}'") as caught:
        find(address(tmp_path, name))
    if name == "trane":
        assert "train" in caught.value.hint


def test_a_star_import_is_given_the_benefit_of_the_doubt(tmp_path):
    (tmp_path / "code.py").write_text("from other import *")
    find(address(tmp_path, "anything"))


def test_a_missing_file_names_the_near_ones(tmp_path):
    (tmp_path / "training.py").write_text("")
    with pytest.raises(ObjectiveError, match="there is no file") as caught:
        find(address(tmp_path, "train", "trainin.py"))
    assert caught.value.hint == "did you mean training.py?"


@pytest.mark.parametrize("text", [b"def train(:\n", b"x = '\0'\n"])
def test_a_file_that_is_no_python_is_named(tmp_path, text):
    (tmp_path / "code.py").write_bytes(text)
    with pytest.raises(ObjectiveError, match=r"code\.py.* is no Python"):
        find(address(tmp_path, "train"))


def test_a_module_is_found_without_importing_its_parents(tmp_path):
    package = tmp_path / "house" / "room"
    package.mkdir(parents=True)
    (tmp_path / "house" / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "work.py").write_text("def train(run): ...")
    assert find(address(tmp_path, "train", "house.room.work")) == package / "work.py"
    with pytest.raises(ObjectiveError, match=r"no module house\.cellar"):
        find(address(tmp_path, "train", "house.cellar.work"))


def test_the_hash_follows_the_bytes_of_the_file(tmp_path):
    file = tmp_path / "code.py"
    file.write_bytes(b"def train(run): return 1\n")
    assert source_hash(address(tmp_path, "train")) == hashlib.sha256(file.read_bytes()).hexdigest()
    before = source_hash(address(tmp_path, "train"))
    file.write_bytes(b"def train(run): return 2\n")
    assert source_hash(address(tmp_path, "train")) != before


def test_reading_the_contract_imports_no_heavy_library():
    heavy = "{'torch', 'numpy', 'scipy', 'optuna', 'pandas', 'sklearn'}"
    code = f"import sys, hpsearch.objective; sys.exit(' '.join({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (1, ""), done.stderr
