"""The record of a study as a file for other programs: CSV, Parquet or JSON."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from hpsearch.errors import UsageError
from hpsearch.results import Results

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet", "json"]
#: how a cell begins that a spreadsheet would compute
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def format_of(path: Path) -> Format:
    """The format by the file's ending.

    Raises:
        UsageError: the ending says none.
    """
    for name in get_args(Format):
        if path.suffix.lower() == f".{name}":
            found: Format = name
            return found
    raise UsageError(f"{path} does not say its format", hint="end it with .csv, .parquet or .json, or say --to")


def export(results: Results, path: Path, format: Format, *, curves: bool = False) -> int:
    """Write one row a run (with ``curves``: a row a metric and epoch) and return how many.

    Test metrics are sealed and never among them. The file appears whole or not at all. In CSV, text that a spreadsheet
    would take for a formula gets a ' before it; numbers stay numbers.

    Raises:
        UsageError: the file cannot be written.
    """
    frame = results.curves_dataframe() if curves else _whole_epochs(results.runs_dataframe())
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        draft = Path(name)
        try:
            _write(frame, draft, format)
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return len(frame)


def encoded(columns: Mapping[str, Sequence[Any]], format: Literal["csv", "parquet"]) -> bytes:
    """A table (name -> values) as the bytes of a file, with the care that ``export`` takes.

    Whole numbers stay whole where some are missing.
    """
    import pandas as pd

    def kind(values: Sequence[Any]) -> Any:
        return "Int64" if {type(value) for value in values} == {int, type(None)} else None

    frame = pd.DataFrame({name: pd.Series(list(values), dtype=kind(values)) for name, values in columns.items()})
    if format == "csv":
        # RFC 4180's line end, with which a lone carriage return within a cell is quoted
        return str(_tame(frame).to_csv(index=False, lineterminator="\r\n")).encode("utf-8", "backslashreplace")
    buffer = io.BytesIO()
    _one_kind(frame).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _whole_epochs(frame: pd.DataFrame) -> pd.DataFrame:
    """Epochs as whole numbers: a missing one would make floats of all."""
    return frame.astype({name: "Int64" for name in ("best_epoch", "last_epoch") if name in frame})


def _write(frame: pd.DataFrame, path: Path, format: Format) -> None:
    if format == "csv":
        _tame(frame).to_csv(path, index=False, lineterminator="\n")
    elif format == "json":
        # Not DataFrame.to_json, which rounds to 15 digits.
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False, default=str), encoding="utf-8")
    else:
        _one_kind(frame).to_parquet(path, index=False)


def _tame(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with nothing in it that a spreadsheet would compute."""
    return frame.map(_harmless).rename(columns=_harmless)


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """Parquet columns have one type: those that mix kinds (choices such as [1, "all"]) become text."""
    mixed = {
        name: frame[name].map(lambda value: value if value is None else str(value))
        for name in frame.columns
        if frame[name].dtype == object and len({type(value) for value in frame[name] if value is not None}) > 1
    }
    return frame.assign(**mixed)
