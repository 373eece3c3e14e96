"""How assignments and reports cross a process border: length-prefixed JSON, checked when it arrives.

JSON and not pickle: what a worker sends has been near a user's code, and must not be able to run anything here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpsearch.executor import Assignment
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.trial import Environment, EpochReport, Finished, PausedReport, Report, RunKey, State

_HEAD = struct.Struct("!I")
#: bytes; a longer message means that somebody else writes into the socket
LONGEST = 1 << 26


def frame(message: Mapping[str, Any]) -> bytes:
    """A message, ready to be sent. NaN and infinity pass as Python writes them."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _HEAD.pack(len(body)) + body


def unframe(buffer: bytearray) -> list[dict[str, Any]]:
    """Take the whole messages off the front of ``buffer``.

    Raises:
        ValueError: these bytes are no messages.
    """
    messages, place = [], 0
    while len(buffer) - place >= _HEAD.size:
        (size,) = _HEAD.unpack_from(buffer, place)
        if size > LONGEST:
            raise ValueError(f"a message of {size} bytes")
        end = place + _HEAD.size + size
        if len(buffer) < end:
            break
        message = json.loads(buffer[place + _HEAD.size : end])
        if not isinstance(message, dict):
            raise ValueError(f"a message must be an object, not {type(message).__name__}")
        messages.append(message)
        place = end
    del buffer[:place]
    return messages


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


def pack_report(report: Report) -> dict[str, Any]:
    """A report as plain data, its kind under ``is``."""
    return {"is": type(report).__name__, **asdict(report)}


def unpack_report(data: Mapping[str, Any]) -> Report:
    """The inverse of ``pack_report``.

    Raises:
        ValueError: no report of a worker, or a field of the wrong kind.
    """
    try:
        return _unpack_report(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no report: {error!r}") from error


def _unpack_report(data: Mapping[str, Any]) -> Report:
    run = RunKey(*(_whole(part) for part in data["run"]))
    attempt = _whole(data["attempt"])
    if data["is"] == "EpochReport":
        layers = {str(name): (float(pair[0]), float(pair[1])) for name, pair in data["layers"].items()}
        epochs = None if data["epochs"] is None else _whole(data["epochs"])
        metrics = _numbers(data["metrics"])
        return EpochReport(
            run=run, attempt=attempt, epoch=_whole(data["epoch"]), metrics=metrics, epochs=epochs, layers=layers
        )
    if data["is"] == "PausedReport":
        return PausedReport(run=run, attempt=attempt, epoch=_whole(data["epoch"]))
    if data["is"] != "Finished":
        raise ValueError(f"no report: is {data['is']!r}")
    state = State(data["state"])
    if not state.final:
        raise ValueError(f"a run cannot finish {state}")
    return Finished(
        run=run,
        attempt=attempt,
        state=state,
        value=None if data["value"] is None else float(data["value"]),
        best_epoch=None if data["best_epoch"] is None else _whole(data["best_epoch"]),
        last_epoch=None if data["last_epoch"] is None else _whole(data["last_epoch"]),
        reason=str(data["reason"]),
        error=str(data["error"]),
        metrics=_numbers(data["metrics"]),
        sealed=_numbers(data["sealed"]),
        seconds=float(data["seconds"]),
        worker=str(data["worker"]),
        environment=None if data["environment"] is None else Environment(**data["environment"]),
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in data.items()}
