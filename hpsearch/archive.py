"""The record as everyone else reads it. Reading never creates or changes anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, final

from hpsearch.errors import NotFoundError
from hpsearch.objective import ObjectiveAddress
from hpsearch.strategy import Decision
from hpsearch.trial import Checkpoint, Lost, Run, RunKey, State, Trial

T = TypeVar("T")


@final
@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A study in one line."""

    name: str
    #: ``running`` (a live coordinator has it), ``complete``, ``stopped``, ``interrupted`` or ``failed``
    state: str
    #: why, where it is not complete
    reason: str
    #: ``study.spec_of``
    spec: Mapping[str, Any]
    fingerprint: str
    code_hash: str
    #: the study file's path and text; empty for a study written in Python
    file: str
    text: str
    #: trials by state; states of none are missing
    counts: Mapping[State, int]
    #: number, value and sd of the best complete trial; None while there is none
    best: tuple[int, float, float | None] | None
    #: seconds since 1970, UTC
    created: float
    updated: float
    #: of coordinator's time, over all restarts
    seconds: float
    #: who holds it now (``process 123 on host``); empty where nobody does
    holder: str
    #: turns written; grows with every change
    rev: int
    #: late reports that were refused
    fenced: int
    #: (address, text), oldest first
    notes: Sequence[tuple[str, str]] = ()
    #: the spec's, then those that the study was given later
    tags: Sequence[str] = ()
    #: (address, tag) of its trials and runs, oldest first
    trial_tags: Sequence[tuple[str, str]] = ()

    @property
    def objective(self) -> ObjectiveAddress:
        """Where its training code is, or was; of a study written in Python, from this folder."""
        source, _, name = str(self.spec["objective"]).rpartition(":")
        folder = Path(self.file).parent if self.file else Path.cwd()
        return ObjectiveAddress(source=source, name=name, folder=folder)


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric of one run over its epochs, of the attempt that counts.

    Where that attempt went on from what an earlier one had saved, the epochs before its first are the earlier one's.
    A number that the training function returned without having reported it is a curve of one point, at the last epoch.
    """

    run: RunKey
    metric: str
    epochs: Sequence[int]
    values: Sequence[float]


class Revision(NamedTuple):
    """While this is the same, so is what a reader sees of a study; its ``seconds`` aside, which pass by themselves.

    ``str`` of it is one word of ASCII, fit for an ETag.
    """

    #: seconds since 1970, UTC: another study of the same name is another one
    created: float
    #: how often a coordinator has taken the study
    opened: int
    #: turns written
    rev: int
    #: as ``StudySummary`` has it: also that a coordinator is gone shows here
    state: str
    #: notes and tags that were given
    said: int

    def __str__(self) -> str:
        return f"{round(self.created * 1e6):x}-{self.opened}-{self.rev}-{self.said}-{self.state}"


class Outline(NamedTuple):
    """What a trial's record comes to, in a few numbers, which tell whether it has changed.

    A trial of which no run is running has not changed while its outline is the same: a run that was started since has
    another attempt, or has paused at a later epoch, and finished states never change.
    """

    #: the trial's own state is final
    final: bool
    runs: int
    #: of the runs
    queued: int
    running: int
    paused: int
    #: sums over the runs that are not final: of their attempts, of their last epochs (0 while there is none)
    attempts: int
    epochs: int


def outline_of(trial: Trial) -> Outline:
    """The outline of a trial as it is stored."""
    unfinished = [run for run in trial.runs if not run.state.final]
    states = [run.state for run in unfinished]
    return Outline(
        final=trial.state.final,
        runs=len(trial.runs),
        queued=states.count(State.QUEUED),
        running=states.count(State.RUNNING),
        paused=states.count(State.PAUSED),
        attempts=sum(run.attempt for run in unfinished),
        epochs=sum(run.last_epoch or 0 for run in unfinished),
    )


@final
@dataclass(frozen=True, kw_only=True)
class Changes:
    """What has changed in a study since a reader looked; all of it is of one moment."""

    revision: Revision
    summary: StudySummary
    #: those that may have changed, whole, in number order
    trials: Sequence[Trial]
    #: of these trials, by number
    outlines: Mapping[int, Outline]
    #: so many more have changed: the next call gives them
    left: int
    #: those that the reader did not have, oldest first
    decisions: Sequence[Decision]


def changed(known: Mapping[int, Outline], found: Mapping[int, Outline], most: int) -> tuple[list[int], int]:
    """Numbers of the trials to read again, ascending: at most ``most`` that have changed, and how many are left.

    Trials with running runs come with the last of them: they may have changed where their outlines have not.
    """
    other = [number for number, outline in found.items() if known.get(number) != outline]
    if len(other) > most:
        return sorted(other)[:most], len(other) - most
    running = [number for number, outline in found.items() if outline.running and known.get(number) == outline]
    return sorted(other + running), 0


def stitched(told: Iterable[tuple[int, int, T]], last: int) -> list[tuple[int, T]]:
    """A run's course through its attempts, as (epoch, what was told).

    Args:
        told: (attempt, epoch, what was told), ordered by attempt, then epoch.
        last: the attempt that counts. While it has told nothing, there is no course.
    """
    course: list[tuple[int, T]] = []
    latest = -1
    for attempt, epoch, item in told:
        while course and course[-1][0] >= epoch:
            course.pop()
        course.append((epoch, item))
        latest = attempt
    return course if latest == last else []


def said(name: str, spec: Mapping[str, Any], words: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    """``notes``, ``tags`` and ``trial_tags`` of a summary, from (kind, address, text), oldest first."""
    words = list(words)
    tags = dict.fromkeys((address, text) for kind, address, text in words if kind == "tag")
    return {
        "notes": [(address, text) for kind, address, text in words if kind == "note"],
        "tags": list(dict.fromkeys([*spec.get("tags", ()), *(text for address, text in tags if address == name)])),
        "trial_tags": [(address, text) for address, text in tags if address != name],
    }


def not_found(study: str, names: Iterable[str]) -> NotFoundError:
    """The error for a study that is not in the record, with the names that are near."""
    near = get_close_matches(study, list(names), n=3, cutoff=0.6)
    words = f"; near names: {', '.join(near)}" if near else ""
    return NotFoundError(f"there is no study {study!r}{words}", hint="hpsearch list names all studies")


def as_seen(trial: Trial, *, live: bool) -> Trial:
    """A stored trial as a reader sees it: its state follows its runs until it is final.

    Runs of a study that no coordinator holds are not running, whatever was stored last.
    """
    runs = trial.runs
    if not live:
        runs = tuple(replace(run, state=State.QUEUED) if run.state is State.RUNNING else run for run in runs)
    if trial.state.final:
        return trial if live else replace(trial, runs=runs)
    return replace(trial, state=state_of(runs), runs=runs)


def state_of(runs: Sequence[Run]) -> State:
    """The state of a trial that is not final: running as soon as one of its runs is, else paused, else queued."""
    states = {run.state for run in runs}
    return next((state for state in (State.RUNNING, State.PAUSED) if state in states), State.QUEUED)


class Archive(ABC):
    """Reads. Every method is one short transaction.

    Raises (each method that names a study):
        NotFoundError: no such study; the message names the near ones.
    """

    @abstractmethod
    def studies(self) -> list[StudySummary]:
        """All studies, the latest changed first."""

    @abstractmethod
    def study(self, name: str) -> StudySummary:
        """One study."""

    @abstractmethod
    def revisions(self) -> dict[str, Revision]:
        """By name, of all studies. One small query, cheap enough to be asked every second."""

    @abstractmethod
    def changes(self, study: str, known: Mapping[int, Outline], *, decisions: int = 0, most: int = 1000) -> Changes:
        """What has changed since a reader looked.

        Args:
            study: its name.
            known: the outlines of the trials that the reader has, as earlier calls gave them.
            decisions: so many of them the reader has.
            most: no more changed trials at once, so that a transaction stays short; those with running runs come
                with the last part, whatever their number.
        """

    @abstractmethod
    def trials(self, study: str, numbers: Sequence[int] | None = None) -> list[Trial]:
        """Its trials (all, or these) with all their runs, in number order."""

    @abstractmethod
    def values(self, study: str) -> list[tuple[int, float]]:
        """(number, value) of its complete trials, in number order: what a list of many studies can afford to read."""

    @abstractmethod
    def curves(self, study: str, numbers: Sequence[int], metrics: Sequence[str] | None = None) -> list[Curve]:
        """The curves of these trials' runs; all metrics, or these. Sealed metrics are never among them."""

    @abstractmethod
    def layers(self, study: str, run: RunKey) -> list[tuple[int, Mapping[str, tuple[float, float]]]]:
        """(epoch, layer -> (gradient norm, weight norm)) of one run."""

    @abstractmethod
    def checkpoints(self, study: str) -> dict[RunKey, Checkpoint]:
        """The checkpoints that are kept."""

    @abstractmethod
    def losses(self, study: str) -> list[Lost]:
        """The attempts that were lost, in the order in which they were; without their company."""

    @abstractmethod
    def decisions(self, study: str) -> list[Decision]:
        """What was decided and why, oldest first."""
