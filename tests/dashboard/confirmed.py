"""A digits study, searched and confirmed for real, its winner's weights kept: made once, copied for each use."""

from __future__ import annotations

import shutil
from pathlib import Path

import hpsearch as hp
from hpsearch.confirm import confirm
from hpsearch.launch import Place
from hpsearch.stores.sql import open_archive

ROOT = Path(__file__).parents[2]
STUDY = f"""
name: digits
objective: {ROOT}/studies/digits.py:DigitsMLP
metric: {{val_loss: minimize}}
search_space: {{lr: [0.001, 0.1], momentum: 0.9, dropout: 0.1}}
strategy: grid
seeds: {{search: 1, confirm: 2}}
baseline: false
keep: 1
"""


def make(folder: Path) -> Path:
    """Search and confirm in this folder; the folder."""
    (folder / "digits.yaml").write_text(STUDY)
    study, url = hp.read_study(folder / "digits.yaml"), f"sqlite:///{folder}/record.db"
    hp.run(study, db=url, on="inline")
    _, found = confirm(study, open_archive(url), Place(db=url, on="inline"), max_seeds=2)
    assert found.chosen == 1
    return folder


def copied(made: Path, to: Path) -> str:
    """The database of a copy."""
    shutil.copytree(made, to)
    return f"sqlite:///{to}/record.db"
