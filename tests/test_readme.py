"""Every code block of README.md runs as printed.

Blocks run in order, in one folder that has a copy of ``studies/``. What is done with one depends on its language and on
an HTML comment in the line before it:

    <!-- ci: run -->, <!-- ci: test -->   installs: .ci/run runs it whole; here, what in it begins with ``hpsearch``
    <!-- file: NAME -->                   written to NAME, for the blocks below
    bash, sh                              run; must succeed
    python                                run as a program
    yaml, toml                            read as a study, or, without a ``name:``, as fields of one, each for itself
    text, console                         a picture: not run

Where README_RAN_IN names a folder, ``.ci/run`` has just run the first block there: the study is found complete.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hpsearch as hp

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(?:<!-- (ci|file): (\S+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))


@pytest.mark.timeout(600)
def test_every_block_runs(tmp_path):
    shutil.copytree(ROOT / "studies", tmp_path / "studies", ignore=shutil.ignore_patterns("__pycache__", "*.db"))
    if ran := os.environ.get("README_RAN_IN"):
        shutil.copy(Path(ran) / "hpsearch.db", tmp_path)
        shutil.copytree(Path(ran) / "hpsearch-files", tmp_path / "hpsearch-files")
    for number, (marker, argument, language, text) in enumerate(BLOCKS):
        if marker == "file":
            (tmp_path / argument).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / argument).write_text(text, "utf-8")
        elif marker == "ci":
            run_shell("\n".join(re.findall(r"(?:^|&&)\s*(hpsearch .*?)(?=&&|$)", text, re.MULTILINE)), tmp_path)
        elif language in ("bash", "sh"):
            run_shell(text, tmp_path)
        elif language == "python":
            check([sys.executable, "-c", text], tmp_path, text)
        elif language in ("yaml", "toml"):
            read(text, language, tmp_path / f"block{number}.{language}")
        else:
            assert language in ("text", "console"), f"block of an unknown language {language!r}:\n{text}"


def run_shell(text, folder):
    check(["bash", "-euo", "pipefail", "-c", text], folder, text)


def check(command, folder, text):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HPSEARCH_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n--- ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"


def read(text, language, file):
    if re.search(r"^name\b", text, re.MULTILINE):
        file.write_text(text, "utf-8")
        hp.read_study(file)
        return
    assert language == "yaml", f"a part of a study is written in YAML here:\n{text}"
    fields = [part for part in re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE) if not part.lstrip().startswith("#")]
    assert any(fields), f"a study's part without a field:\n{text}"
    for part in filter(str.strip, fields):
        field, _, value = part.partition(":")
        hp.read_study(file.parent / "studies" / "digits_random.yaml", {field: value})


def test_the_two_commands_are_there():
    """.ci/run looks for them by these marks."""
    marks = [f"{marker}: {argument}" for marker, argument, *_ in BLOCKS if marker == "ci"]
    assert marks == ["ci: run", "ci: test"]


def test_no_block_is_overlooked():
    text = (ROOT / "README.md").read_text("utf-8")
    assert 2 * len(BLOCKS) == len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
