"""What may come over a worker's socket, and what may not."""

import copy
import dataclasses
import json
import math

import pytest

from hpsearch.executors import _wire as wire
from hpsearch.trial import Checkpoint, Environment, EpochReport, Finished, Grouped, PausedReport, RunKey, State

RUN = RunKey(3, 1, 2)
EPOCH = EpochReport(
    run=RUN, attempt=2, epoch=4, metrics={"loss": 0.5, "accuracy": math.inf}, epochs=9, layers={"0": (1.0, 2.0)}
)
ENVIRONMENT = Environment(
    python="3.11",
    torch="2.13",
    device="cpu",
    machine="x",
    git_commit="abc",
    git_dirty=True,
    packages={"torch": "2.13"},
    data="0123456789abcdef",
)
PAUSED = PausedReport(
    run=RUN, attempt=1, epoch=4, seconds=2.5, worker="host:2", engine="vmap, cpu", environment=ENVIRONMENT
)
FINISHED = Finished(
    run=RUN,
    attempt=2,
    state=State.COMPLETE,
    value=0.25,
    best_epoch=3,
    last_epoch=8,
    metrics={"n": 3.0},
    sealed={"test_loss": 0.5},
    seconds=1.5,
    worker="host:1",
    engine="vmap, cpu, 64 lanes",
    reason="none",
    error="none",
    environment=ENVIRONMENT,
    checkpoint=Checkpoint(path="3/1.2/best.pt", sha256="a" * 64, bytes=7),
)
GROUPED = Grouped(runs=(RUN, RunKey(4, 1)), engine="vmap", device="cpu", lanes=2, reason="nothing compiles it")
REPORTS = [EPOCH, PAUSED, FINISHED, GROUPED]


def packed(report):
    """As it arrives."""
    return json.loads(json.dumps(wire.pack_reports([report])))[0]


def test_reports_come_out_as_they_went_in():
    buffer = bytearray(wire.frame({"reports": wire.pack_reports(REPORTS)}))
    (message,) = wire.unframe(buffer)
    assert wire.unpack_reports(message["reports"]) == REPORTS
    assert not buffer
    for report in REPORTS:  # no field at its default: one that is left out would come out as another
        defaults = {field.name: field.default for field in dataclasses.fields(report)}
        assert all(getattr(report, name) != default for name, default in defaults.items())


def test_messages_come_out_whole_however_they_arrive():
    stream = b"".join(wire.frame({"n": n, "text": "x" * n}) for n in range(50))
    buffer, found = bytearray(), []
    for place in range(0, len(stream), 7):
        buffer += stream[place : place + 7]
        found += wire.unframe(buffer)
    assert [message["n"] for message in found] == list(range(50))


@pytest.mark.parametrize(
    "body",
    [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x01x", b"\0\0\0\x02\xff\xfe", b"\0\1\x86\xa0" + b"[" * 100_000],
)
def test_bytes_that_are_no_messages_are_refused(body):
    with pytest.raises(ValueError, match=r"message|Expecting|decode"):
        list(wire.unframe(bytearray(body)))


def test_messages_before_broken_bytes_are_given():
    """A run has ended, and the next one in the same worker writes into the socket: the first is not lost with it."""
    buffer, found = bytearray(wire.frame({"n": 1}) + wire.frame({"n": 2}) + b"\xff\xff\xff\xff"), []
    with pytest.raises(ValueError, match="a message of"):
        found.extend(wire.unframe(buffer))
    assert found == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_every_field_that_is_missing_or_of_another_kind_is_refused(report):
    whole = packed(report)
    wire.unpack_reports([whole])
    wrong = {int: ["1", 1.5, True, -1, 2**60, [1]], str: [1, None], float: ["1.5", True, [1.0]], list: [7, "ab", {}]}
    for name, value in whole.items():
        without = {other: v for other, v in whole.items() if other != name}
        with pytest.raises(ValueError):
            wire.unpack_reports([without])
        for other in wrong.get(type(value), []):
            with pytest.raises(ValueError):
                wire.unpack_reports([{**whole, name: other}])


@pytest.mark.parametrize(
    ("report", "place", "value"),
    [
        (EPOCH, ("run",), [1, 2]),
        (EPOCH, ("run",), [1, 2, "0"]),
        (EPOCH, ("metrics",), [["loss", 1.0]]),
        (EPOCH, ("metrics", "loss"), "nan"),
        (EPOCH, ("metrics", "loss"), 10**400),
        (EPOCH, ("layers", "0"), [1.0]),
        (EPOCH, ("layers", "0"), "ab"),
        (FINISHED, ("state",), "running"),
        (FINISHED, ("state",), "lost"),
        (FINISHED, ("is",), "Lost"),
        (FINISHED, ("environment",), {"python": "3"}),
        (FINISHED, ("environment", "packages"), ["torch"]),
        (FINISHED, ("environment", "git_dirty"), "no"),
        (FINISHED, ("environment", "shell"), "bash"),
        (GROUPED, ("runs",), [3, 1, 2]),
    ],
)
def test_what_is_wrong_inside_is_refused(report, place, value):
    data = copy.deepcopy(packed(report))
    inner = data
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(ValueError):
        wire.unpack_reports([data])


@pytest.mark.parametrize("data", [None, {}, "ab", 3, [None], ["EpochReport"], [[]]])
def test_what_is_no_list_of_reports_is_refused(data):
    with pytest.raises(ValueError):
        wire.unpack_reports(data)


def test_half_a_surrogate_pair_is_spelled_out():
    data = json.loads(json.dumps(packed(FINISHED) | {"error": "no \udcff luck", "metrics": {"a\ud800": 1.0}}))
    (report,) = wire.unpack_reports([data])
    assert (report.error, report.metrics) == ("no \\udcff luck", {"a\\ud800": 1.0})
