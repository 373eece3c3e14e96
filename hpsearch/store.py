"""The record as the coordinator writes it: one study, one writer, one transaction per turn of the loop.

The loop decides in memory, writes all of it as one ``Turn``, then acts on it. So whatever moment the coordinator dies
at, the record holds whole turns only, and a run that was started but not recorded as started does not exist.
"""

from __future__ import annotations

import math
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from hpsearch.errors import StoreError, StudyChangedError, StudyHeldError, shown
from hpsearch.strategy import Decision
from hpsearch.study import differences
from hpsearch.trial import LARGEST, LONGEST_NAME, EpochReport, Finished, Lost, PausedReport, Run, RunKey, State, Trial

#: the kind of decisions that say how runs were trained
GROUPED = "grouped"
#: the kind of decisions that say that a study has another ``n_trials`` from then on
EXTENDED = "extended"


@final
@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a study: enough to see that it is dead, where it was on this machine."""

    host: str
    pid: int
    #: of the machine's start (``/proc/sys/kernel/random/boot_id``) and of the pid namespace, ``boot/namespace``
    boot_id: str
    #: of the process's start, in clock ticks since boot: tells a reused pid apart
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_dead(self) -> bool:
        """True where it was surely a process of this machine and is gone. False also where nobody can tell."""
        if self.host != socket.gethostname() or not self.boot_id:
            return False
        boot, _, namespace = self.boot_id.partition("/")
        our_boot, _, our_namespace = _boot_id().partition("/")
        if not our_boot or boot != our_boot:
            return bool(our_boot)
        # In another container of the same name a pid means something else: only its lease can tell.
        return namespace == our_namespace and _ticks(self.pid) != self.started


def this_process() -> Holder:
    """The calling process, as the holder of a lease."""
    pid = os.getpid()
    return Holder(host=socket.gethostname(), pid=pid, boot_id=_boot_id(), started=_ticks(pid) or 0)


def _boot_id() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux: nobody is ever known to be dead, and leases run out
        return ""


def _ticks(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot; None where there is none (a zombie is none)."""
    try:
        # The command's name may hold spaces and brackets; what follows the last ")" is fixed (proc(5)).
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])


@final
@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study as it is stored."""

    name: str
    #: ``study.spec_of``
    spec: Mapping[str, Any]
    #: ``study.fingerprint`` of it
    fingerprint: str
    #: sha256 of the objective's source
    code_hash: str
    #: the study file's absolute path and text; empty for a study written in Python
    file: str = ""
    text: str = ""


def clean(text: str) -> str:
    """Text as every store keeps it: NUL and lone surrogates, which not every database takes, spelled ``\\x00``."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def refuse_unfit(turn: Turn) -> None:
    """Refuse what not every database can hold, before any is asked: the same error from each of them.

    Raises:
        StoreError: a number is not finite or not whole within 31 bits, or a metric's name is too long.
    """
    numbers: list[tuple[str, float | None]] = [("the seconds of a turn", turn.seconds)]
    names: set[str] = set()
    wholes: set[int] = {turn.fenced}
    for report in turn.epochs:
        names.update(report.metrics)
        wholes.update((*report.run, report.attempt, report.epoch))
    ends: list[Finished | Lost | PausedReport] = [*turn.finished, *turn.losses, *turn.pauses]
    for done in ends:
        numbers.append((f"the seconds of run {done.run}", done.seconds))
        wholes.update((*done.run, done.attempt))
    for end in turn.finished:
        numbers.append((f"the value of run {end.run}", end.value))
        names.update(end.metrics, end.sealed)
        wholes.update(epoch for epoch in (end.best_epoch, end.last_epoch) if epoch is not None)
    for scored in turn.scores:
        numbers += [
            (f"the value of trial {scored.number}", scored.value),
            (f"its sd (trial {scored.number})", scored.sd),
        ]
        wholes.add(scored.tell_seq)
    for trial in turn.trials:
        numbers += [(f"the value of trial {trial.number}", trial.value), (f"its sd (trial {trial.number})", trial.sd)]
        wholes.update((trial.number, trial.batch, trial.history_seq, *(seed for run in trial.runs for seed in run.key)))
    wholes.update(part for run in turn.runs for part in run.key)
    for claim in turn.claims:
        wholes.update((*claim.run, claim.attempt))
    for what, number in numbers:
        if number is not None and not math.isfinite(number):
            raise StoreError(f"the record holds finite numbers only: {what} is {number}; nothing was written")
    if wholes and not (min(wholes) >= 0 and max(wholes) <= LARGEST):
        wrong = min(wholes) if min(wholes) < 0 else max(wholes)
        raise StoreError(f"the record holds whole numbers from 0 to {LARGEST}, not {shown(wrong)}; nothing was written")
    if long := [name for name in names if len(name) > LONGEST_NAME]:
        words = f"at most {LONGEST_NAME} characters, not {len(long[0])}: {shown(long[0])}"
        raise StoreError(f"the record holds metrics with names of {words}; nothing was written")


def refuse_changed(stored: StudyRecord, given: StudyRecord, *, allow_changed: bool) -> None:
    """Refuse a study that is stored with another spec or, unless allowed, with other code.

    Raises:
        StudyChangedError: with a line for every field that differs.
    """
    if stored.fingerprint != given.fingerprint:
        lines = differences(stored.spec, given.spec) or ["its fingerprint, though no field does"]
        raise StudyChangedError(
            "\n".join([f"the stored study {given.name} differs (stored -> given):", *(f"  {line}" for line in lines)]),
            hint=f"give the study another name, or remove the stored one: hpsearch delete {given.name}",
        )
    if stored.code_hash != given.code_hash and not allow_changed:
        raise StudyChangedError(
            f"the training code of {given.name} has changed since it was stored "
            f"(sha256 {stored.code_hash[:12]} -> {given.code_hash[:12]})",
            hint="--allow-changed-code mixes results of both; another name keeps them apart",
        )


def extension(stored: StudyRecord, given: StudyRecord) -> list[Decision]:
    """What ``open`` leaves in the record where ``n_trials`` is another: cohorts may be larger from then on."""
    old, new = (record.spec.get("n_trials") for record in (stored, given))
    if old == new:
        return []
    return [Decision(kind=EXTENDED, subject="n_trials", reason=f"{new}, was {old}", details={"old": old, "new": new})]


def held(study: str, holder: Holder, seconds: float) -> StudyHeldError:
    """The error for a study that a live coordinator holds, for ``seconds`` more if it is silent."""
    return StudyHeldError(
        f"{study} is held by {holder}",
        hint=f"end it with hpsearch stop {study}; if it is dead, the study is free in {max(seconds, 0):.0f} s",
    )


@final
@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A study as the coordinator finds it when it takes the lease."""

    #: False where this call has created the study
    existed: bool
    #: all trials with all their runs, in number order
    trials: Sequence[Trial]
    #: the runs that a former coordinator had started: their attempts are void, write them as ``Lost``, claim them again
    running: Sequence[RunKey]
    #: lost attempts so far, by run and cause
    losses: Mapping[RunKey, Mapping[str, int]]
    #: seconds that all coordinators have spent on the study
    seconds: float
    #: turns written so far; the next turn is rev + 1
    rev: int
    #: run -> epoch -> the metric that was asked for, as it was reported first (whichever attempt did); {} unless asked
    curves: Mapping[RunKey, Mapping[int, float]] = field(default_factory=dict)
    #: the decisions of kind ``grouped`` so far: how runs were trained
    grouped: Sequence[Decision] = ()
    #: the state that it was left in, and its reason
    left: tuple[str, str] = ("interrupted", "")


@final
@dataclass(frozen=True, kw_only=True)
class Claim:
    """A queued or paused run becomes running, as this attempt.

    A queued run takes its next attempt; a paused one goes on with the attempt it has.
    """

    run: RunKey
    attempt: int
    #: no attempt of the run was ever claimed: files that lie in its place are of another study
    first: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Score:
    """A trial has become final."""

    number: int
    state: State
    value: float | None
    sd: float | None
    tell_seq: int


@final
@dataclass(frozen=True, kw_only=True)
class Turn:
    """All that one turn of the loop changes. Written whole or not at all, in this order."""

    #: new trials with their queued runs (state, params, batch, history_seq, baseline)
    trials: Sequence[Trial] = ()
    #: new queued runs, of another stage than ``search``, of trials that are final already
    runs: Sequence[Run] = ()
    decisions: Sequence[Decision] = ()
    epochs: Sequence[EpochReport] = ()
    pauses: Sequence[PausedReport] = ()
    #: runs that became final
    finished: Sequence[Finished] = ()
    #: attempts that are gone: their runs are queued again
    losses: Sequence[Lost] = ()
    #: queued or paused runs that will not be run
    cancelled: Sequence[RunKey] = ()
    #: runs whose checkpoints are not kept: theirs are removed from the record, and only then their files
    forgotten: Sequence[RunKey] = ()
    scores: Sequence[Score] = ()
    claims: Sequence[Claim] = ()
    #: reports of attempts that were void already: counted, not applied
    fenced: int = 0
    #: seconds of the coordinator's time since the last turn
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        """True where nothing but time has passed."""
        return not (
            self.trials or self.runs or self.decisions or self.epochs or self.pauses or self.finished or self.losses
            or self.cancelled or self.forgotten or self.scores or self.claims or self.fenced
        )  # fmt: skip


@final
@dataclass(kw_only=True)
class Draft:
    """A turn while it is being decided."""

    trials: list[Trial] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    epochs: list[EpochReport] = field(default_factory=list)
    pauses: list[PausedReport] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    losses: list[Lost] = field(default_factory=list)
    forgotten: list[RunKey] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    fenced: int = 0

    def turn(self) -> Turn:
        """It is decided."""
        return Turn(**vars(self))


@final
@dataclass(frozen=True, kw_only=True)
class Command:
    """What a door asks of the coordinator."""

    #: ``stop`` (payload ``{"now": bool}``), ``note`` or ``tag`` (``{"address": ..., "text": ...}``)
    verb: str
    payload: Mapping[str, Any] = field(default_factory=dict)


class Store(ABC):
    """Writes. One object speaks for one coordinator; used by one thread."""

    @abstractmethod
    def open(
        self,
        study: StudyRecord,
        holder: Holder,
        *,
        lease_s: float,
        allow_changed: bool = False,
        curves: str | None = None,
    ) -> Snapshot:
        """Create the study, or take its lease; afterwards nobody else can write to it until the lease runs out.

        A lease is taken over at once where its holder is a dead process of this machine, else when it has run out.
        ``study`` replaces the stored spec's loose fields, file and text; with ``allow_changed`` also the code hash.
        ``curves``: a metric whose curves the snapshot is to hold; None: none.

        Raises:
            StudyChangedError: the stored fingerprint, or without ``allow_changed`` the code hash, differs.
            StudyHeldError: a live coordinator has it; the message names the holder.
            StoreError: the database cannot be used.
        """

    @abstractmethod
    def write(self, turn: Turn) -> None:
        """One transaction. After it returns, the turn is durable; after it raises, nothing of it is there.

        Renews the lease. Idempotent: the same object written again after an unknown outcome changes nothing.
        Epochs that an attempt has reported already (it went on from a rung without its checkpoint) are not kept twice.
        A run's seconds are the sum over its pauses and its end.

        Raises:
            StudyHeldError: the lease is lost. StoreError: the database failed, or the turn does not fit the record
                (a run or trial is unknown or final already, a further run's trial is not final, an attempt is not the
                run's, a value is not finite).
        """

    @abstractmethod
    def renew(self, seconds: float) -> list[Command]:
        """Renew the lease, add to the study's time, and take the commands waiting for it (each is given once)."""

    @abstractmethod
    def close(self, state: str, reason: str = "") -> None:
        """Release the lease: the study is ``complete``, ``stopped``, ``interrupted`` or ``failed``, for that reason.

        Runs that are still running are the next coordinator's to claim again. Where the lease is lost, nothing happens.
        """

    @abstractmethod
    def send(self, study: str, command: Command) -> bool:
        """Leave a command for the study's coordinator. False where no live one will read it (nothing is left).

        ``note`` and ``tag`` need no coordinator: they are in the record when this returns True.

        Raises:
            NotFoundError: no such study.
        """

    @abstractmethod
    def delete(self, study: str) -> None:
        """Remove a study and all its rows.

        Raises:
            NotFoundError: no such study. StudyHeldError: a live coordinator has it.
        """
