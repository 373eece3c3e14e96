"""How assignments and reports cross a process border: length-prefixed JSON, checked when it arrives.

JSON and not pickle: what a worker sends has been near a user's code, and must not be able to run anything here.
"""

from __future__ import annotations

import json
import reprlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpsearch.executor import Assignment
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.trial import (
    Checkpoint,
    Environment,
    EpochReport,
    Finished,
    Grouped,
    Lost,
    PausedReport,
    Report,
    RunKey,
    State,
)

_HEAD = struct.Struct("!I")
#: bytes; a longer message means that somebody else writes into the socket
LONGEST = 1 << 26
#: epochs, attempts and lanes above this are no such thing; a database's whole numbers end a little above
LARGEST = 1 << 53


def frame(message: Mapping[str, Any]) -> bytes:
    """A message, ready to be sent. NaN and infinity pass as Python writes them."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _HEAD.pack(len(body)) + body


def unframe(buffer: bytearray) -> Iterator[dict[str, Any]]:
    """Take the whole messages off the front of ``buffer``, one by one: those before a broken one are given.

    Raises:
        ValueError: the next bytes are no message.
    """
    while len(buffer) >= _HEAD.size:
        (size,) = _HEAD.unpack_from(buffer)
        if size > LONGEST:
            raise ValueError(f"a message of {size} bytes")
        end = _HEAD.size + size
        if len(buffer) < end:
            break
        try:
            message = json.loads(buffer[_HEAD.size : end])
        except RecursionError as error:
            raise ValueError("a message nested too deeply") from error
        if not isinstance(message, dict):
            raise ValueError(f"a message must be an object, not {type(message).__name__}")
        del buffer[:end]
        yield message


def pack_assignment(assignment: Assignment) -> dict[str, Any]:
    """An assignment as plain data."""
    return asdict(assignment)


def unpack_assignment(data: Mapping[str, Any]) -> Assignment:
    """The inverse of ``pack_assignment``."""
    return Assignment(**{**data, "run": RunKey(*data["run"])})


def pack_workload(workload: Workload) -> dict[str, Any]:
    """A workload as plain data; paths absolute, because a worker may change its folder."""
    data = asdict(workload)
    data["objective"]["folder"] = str(workload.objective.folder.absolute())
    data["files"] = str(workload.files.absolute())
    return data


def unpack_workload(data: Mapping[str, Any]) -> Workload:
    """The inverse of ``pack_workload``."""
    address = ObjectiveAddress(**{**data["objective"], "folder": Path(data["objective"]["folder"])})
    return Workload(**{**data, "objective": address, "files": Path(data["files"])})


def pack_reports(reports: Iterable[Report]) -> list[dict[str, Any]]:
    """Reports as plain data, the kind of each under ``is``."""
    return [_pack(report) for report in reports]


def unpack_reports(data: object, *, lost: bool = False) -> list[Report]:
    """The inverse of ``pack_reports``; ``lost``: also of reports of losses, which training code's process may not say.

    Raises:
        ValueError: no list of a worker's reports, or a field of the wrong kind.
    """
    try:
        return [_lost(one) if lost and one["is"] == "Lost" else _unpack(one) for one in _list(data)]
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"no report: {error!r}") from error


def run_keys(data: object) -> list[tuple[RunKey, int]]:
    """(run, attempt) of ``[trial, seed, repeat, attempt]`` each.

    Raises:
        ValueError: it is something else.
    """
    keys = []
    for one in _list(data):
        trial, seed, repeat, attempt = (whole(part) for part in _list(one))
        keys.append((RunKey(trial, seed, repeat), attempt))
    return keys


def _pack(report: Report) -> dict[str, Any]:
    # Not asdict for the one that is sent thousands of times: it copies every number.
    fields = vars(report) if isinstance(report, EpochReport | Grouped) else asdict(report)
    return {"is": type(report).__name__, **fields}


def _unpack(data: Mapping[str, Any]) -> Report:
    if data["is"] == "Grouped":
        return Grouped(
            runs=tuple(_run(run) for run in _list(data["runs"])),
            engine=_text(data["engine"]),
            device=_text(data["device"]),
            lanes=_count(data["lanes"]),
            reason=_text(data["reason"]),
        )
    run, attempt = _run(data["run"]), _count(data["attempt"])
    if data["is"] == "EpochReport":
        layers = {_text(name): (_number(pair[0]), _number(pair[1])) for name, pair in data["layers"].items()}
        epochs = _count_or_none(data["epochs"])
        metrics = _numbers(data["metrics"])
        return EpochReport(
            run=run, attempt=attempt, epoch=_count(data["epoch"]), metrics=metrics, epochs=epochs, layers=layers
        )
    if data["is"] == "PausedReport":
        return PausedReport(
            run=run,
            attempt=attempt,
            epoch=_count(data["epoch"]),
            seconds=_number(data["seconds"]),
            worker=_text(data["worker"]),
            engine=_text(data["engine"]),
            environment=_environment(data["environment"]),
        )
    if data["is"] != "Finished":
        raise ValueError(f"no report: is {_shown(data['is'])}")
    return _finished(run, attempt, data)


def _lost(data: Mapping[str, Any]) -> Lost:
    return Lost(
        run=_run(data["run"]),
        attempt=_count(data["attempt"]),
        cause=_text(data["cause"]),
        seconds=_number(data["seconds"]),
        worker=_text(data["worker"]),
        company=tuple(_run(run) for run in _list(data["company"])),
    )


def _finished(run: RunKey, attempt: int, data: Mapping[str, Any]) -> Finished:
    state = State(data["state"])
    if not state.final:
        raise ValueError(f"a run cannot finish {state}")
    return Finished(
        run=run,
        attempt=attempt,
        state=state,
        value=None if data["value"] is None else _number(data["value"]),
        best_epoch=_count_or_none(data["best_epoch"]),
        last_epoch=_count_or_none(data["last_epoch"]),
        reason=_text(data["reason"]),
        error=_text(data["error"]),
        metrics=_numbers(data["metrics"]),
        sealed=_numbers(data["sealed"]),
        seconds=_number(data["seconds"]),
        worker=_text(data["worker"]),
        engine=_text(data["engine"]),
        environment=_environment(data["environment"]),
        checkpoint=_checkpoint(data["checkpoint"]),
    )


def _checkpoint(data: Mapping[str, Any] | None) -> Checkpoint | None:
    if data is None:
        return None
    return Checkpoint(path=_text(data["path"]), sha256=_text(data["sha256"]), bytes=_count(data["bytes"]))


def _environment(data: Mapping[str, Any] | None) -> Environment | None:
    if data is None:
        return None
    packages = {_text(name): _text(version) for name, version in data["packages"].items()}
    dirty = data["git_dirty"]
    if not isinstance(dirty, bool):
        raise ValueError(f"git_dirty: {dirty!r} is neither true nor false")
    texts = {name: _text(text) for name, text in data.items() if name not in ("packages", "git_dirty")}
    return Environment(**texts, git_dirty=dirty, packages=packages)


def _list(data: object) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError(f"a list was expected, not {type(data).__name__}")
    return data


def _run(data: object) -> RunKey:
    trial, seed, repeat = (whole(part) for part in _list(data))
    return RunKey(trial, seed, repeat)


def whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is no whole number")
    return value


def _count(value: object) -> int:
    number = whole(value)
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{_shown(number)} is not between 0 and {LARGEST}")
    return number


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is no number")
    return float(value)


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    return {_text(name): _number(value) for name, value in data.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is no text")
    # Half a surrogate pair, as a name with undecodable bytes has it, can be neither stored nor printed.
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _shown(value: object) -> str:
    return reprlib.repr(value)
