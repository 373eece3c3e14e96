"""``hpsearch init``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from hpsearch.cli.settings import COMMON, Common
from hpsearch.cli.terminal import out_json, say
from hpsearch.errors import UsageError

#: file -> template; the code's ending keeps tools from taking a template for a module of ours
FILES = {"study.yaml": "study.yaml", "train.py": "train.py.txt", "README.md": "README.md"}


def init(
    folder: Path = Path("my-study"),
    /,
    *,
    template: Literal["mlp", "function"] = "mlp",
    common: Common = COMMON,
) -> None:
    """Write a small study that runs on a CPU in less than a minute: study.yaml, train.py and README.md.

    Args:
        folder: Where to; made if it is not there. Nothing in it is overwritten.
        template: mlp is a TrainingTask, hpsearch trains it; function is a training loop of your own.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder / there[0]} exists already", hint="name another folder: hpsearch init DIR")
    texts = {name: _template(template, source, folder) for name, source in FILES.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    if common.json:
        out_json({"folder": str(folder), "files": list(FILES)})
    elif not common.quiet:
        say(f"wrote {', '.join(FILES)} into {folder}")
        say(f"next: hpsearch run {folder / 'study.yaml'}")


def _template(template: str, source: str, folder: Path) -> str:
    text = (files("hpsearch.cli") / "templates" / f"{template}-{source}").read_text(encoding="utf-8")
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in folder.resolve().name)
    return text.replace("STUDY_NAME", name.lstrip("._-")[:100] or "my-study")
