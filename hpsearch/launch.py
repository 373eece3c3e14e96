"""Run a study: pick its store and its executor, and search.

outcome = hp.run(hp.read_study("studies/digits_random.yaml"), workers=2)
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, final

from hpsearch.attempt import connect, executor_of, on_cuda, record_of, time_alone, time_together, watch, workload_of
from hpsearch.declaration import is_function, is_task
from hpsearch.errors import NotFoundError, Problem, StudyChangedError, StudyError
from hpsearch.executor import Assignment, Executor
from hpsearch.further import Chooser
from hpsearch.objective import Workload, find
from hpsearch.plan import Measured, batch_of
from hpsearch.progress import Ending, Progress
from hpsearch.search import Observer, search
from hpsearch.settings import database, empty_checkpoints, files_folder, forget_checkpoints
from hpsearch.space import Params
from hpsearch.store import this_process
from hpsearch.strategy import History
from hpsearch.study import Study, differences, spec_of
from hpsearch.trial import EpochReport, Finished, Lost, Report, RunKey

if TYPE_CHECKING:
    from hpsearch.executors.ray import ClusterOptions

#: a study whose coordinator is silent for so long is free for another one
LEASE_S = 60.0
#: an inline run blocks its coordinator, which cannot renew its lease meanwhile
INLINE_LEASE_S = 24 * 3600.0
#: lanes of a worker where nobody says how many: more leave a core's caches, or no longer make a GPU faster
CPU_LANES, CUDA_LANES = 64, 256
#: how many seconds a database server that has gone is waited for; once the user has asked for an end; now
PATIENCE_S = (300.0, 10.0, 0.0)


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a study ended."""

    study: str
    #: ``complete``, ``stopped``, ``interrupted`` or ``failed``
    state: str
    reason: str
    progress: Progress
    #: as ``hpsearch run`` ends: 0 complete, 4 no usable result, 130 interrupted or stopped, 143 by SIGTERM
    exit_code: int


@final
class Interrupts:
    """Counts SIGINT and SIGTERM: once is "in good order", twice is "now"."""

    def __init__(self) -> None:
        self.level = 0
        self.terminated = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.level = min(self.level + 1, 2)
        self.terminated = self.terminated or signum == signal.SIGTERM

    def patience_s(self) -> float:
        """How long a lost database is worth waiting for."""
        return PATIENCE_S[self.level]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the two signals over; give them back afterwards."""
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(
    study: Study,
    *,
    db: str | None = None,
    workers: int | None = None,
    on: str = "local",
    device: str = "auto",
    cluster: ClusterOptions | None = None,
    fuse: int | str = "auto",
    extend: bool = False,
    allow_changed_code: bool = False,
    files: Path | None = None,
    grace_s: float = 30.0,
    observer: Observer | None = None,
    tell: Callable[[str], None] = lambda text: None,
    signals: bool = False,
) -> Outcome:
    """Run a study to its end, from where its record stands.

    Args:
        study: from ``read_study`` or ``define``.
        db: the database's URL (``database`` says the default).
        workers: worker processes; None: one a CUDA device, or one a core; on Ray as many as the cluster holds.
        on: ``local`` (worker processes), ``ray`` (a cluster) or ``inline`` (this process, for debugging).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        cluster: which Ray cluster, and how much of it a worker has; None: one that is started on this machine.
        fuse: how many runs a worker trains together (``lanes_of``); no trial depends on it.
        extend: the study may have a larger budget (``n_trials``, ``budget``) than the stored one of its name.
        allow_changed_code: go on though the training code has changed since the study began.
        files: in it is the folder of its logs and checkpoints (``files_folder`` says the default).
        grace_s: how long a first SIGINT or SIGTERM lets running runs finish.
        observer: hears of the progress a few times a second.
        tell: hears, in words, that the database server is gone (it is waited for) and back.
        signals: handle SIGINT and SIGTERM here (main thread only); the first drains, the second stops now.

    Raises:
        StudyChangedError: the stored study of this name has another spec, budget or code.
        StudyHeldError: another coordinator has it.
        StudyError: ``on`` or ``fuse`` cannot be.
        ObjectiveError, UnusableError, StoreError, ExecutorError: as ``errors.py`` says.
    """
    find(study.objective)
    lanes_of(study, fuse, device)
    place = Place(
        db=db, workers=workers, on=on, device=device, cluster=cluster, fuse=fuse, files=files, grace_s=grace_s,
        allow_changed_code=allow_changed_code, observer=observer, tell=tell, signals=signals,
    )  # fmt: skip
    return _launch(study, place, check=partial(_refuse_budget, study, database(db), extend=extend))


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how runs are made: as ``run`` takes it."""

    db: str | None = None
    workers: int | None = None
    on: str = "local"
    device: str = "auto"
    cluster: ClusterOptions | None = None
    fuse: int | str = "auto"
    files: Path | None = None
    grace_s: float = 30.0
    allow_changed_code: bool = False
    observer: Observer | None = None
    tell: Callable[[str], None] = lambda text: None
    signals: bool = False


def go_further(study: Study, chooser: Chooser, place: Place) -> Outcome:
    """Make further runs of a stored study's final trials, as ``chooser`` says; its search is left as it stands.

    Raises:
        NotFoundError: it is not stored. The others as ``run`` says.
    """
    from hpsearch.stores.sql import open_archive

    find(study.objective)
    lanes_of(study, place.fuse, place.device)
    stored = open_archive(database(place.db)).study(study.name)
    return _launch(study, place, chooser=chooser, leave=(stored.state, stored.reason))


def _launch(
    study: Study,
    place: Place,
    *,
    check: Callable[[], None] = lambda: None,
    chooser: Chooser | None = None,
    leave: tuple[str, str] | None = None,
) -> Outcome:
    """Find the workers, open the store, and search or go further; ``check``: what the record has against it."""
    url, record = database(place.db), record_of(study)
    files, interrupts = files_folder(url, study.name, place.files), Interrupts()
    with ExitStack() as ours:
        # Ours come up while the database's libraries do; a cluster, which may take minutes, waits for its answer.
        early = None if place.on == "ray" else ours.enter_context(_workers(study, place, files))
        from hpsearch.stores.sql import open_store

        check()
        store = open_store(url, patience_s=interrupts.patience_s, tell=place.tell)
        executor, workload = early or ours.enter_context(_workers(study, place, files))
        with interrupts.installed() if place.signals else nullcontext():
            ending = search(
                study,
                record,
                store=store,
                executor=executor,
                workload=workload,
                holder=this_process(),
                interrupt=interrupts,
                lease_s=INLINE_LEASE_S if place.on == "inline" else LEASE_S,
                grace_s=place.grace_s,
                allow_changed=place.allow_changed_code,
                observer=place.observer or (lambda progress: None),
                chooser=chooser,
                leave=leave,
                forget=partial(forget_checkpoints, files, paused=is_task(study.objective)),
                empty=partial(empty_checkpoints, files),
            )
    if ending.error:
        raise ending.error
    return Outcome(
        study=study.name,
        state=ending.state,
        reason=ending.reason,
        progress=ending.progress,
        exit_code=_exit_code(ending, interrupts),
    )


@contextmanager
def _workers(study: Study, place: Place, files: Path) -> Iterator[tuple[Executor, Workload]]:
    """The executor, closed at the end, and what its runs share; the first worker begins to come up."""
    from hpsearch.executors.local import LocalExecutor

    device, ray = place.device, None
    if place.on == "ray":
        ray = connect(study, place.cluster, device, files)
        device = ray.device
        if ray.warning:
            place.tell(ray.warning)
    lanes, fixed = lanes_of(study, place.fuse, device)
    workload = replace(workload_of(study, device, files), lanes=lanes, fixed_lanes=fixed)
    with closing(executor_of(place.on, place.workers, device, lanes, ray)) as executor:
        if isinstance(executor, LocalExecutor):
            executor.warm(workload)
        yield executor, workload


def lanes_of(study: Study, fuse: int | str, device: str = "auto") -> tuple[int, bool]:
    """(How many runs a worker takes, whether exactly so many train together).

    Args:
        study: one of ``isolate``, or with a plain function, trains each run alone.
        fuse: a number; ``off``: 1; ``auto``: 64 on the CPU and 256 on a CUDA device, of which as many as pay.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...

    Raises:
        StudyError: ``fuse`` is something else.
    """
    number = isinstance(fuse, int) and not isinstance(fuse, bool) and fuse >= 1
    if not number and fuse not in ("auto", "off"):
        hint = "a number of runs of at least 1, auto or off"
        raise StudyError([Problem(field="fuse", message=f"{fuse!r} is no number of runs", hint=hint)])
    if fuse == "off" or study.isolate or is_function(study.objective):
        return 1, False
    if fuse != "auto":
        return int(fuse), True
    if not is_task(study.objective):
        return 1, False
    return (CUDA_LANES if on_cuda(device) else CPU_LANES), False


def workers_of(workers: int | None, device: str) -> int:
    """How many worker processes ``run`` has: ``workers``, else one for each GPU of the device, else one a core."""
    from hpsearch.executors.local import processes

    return processes(workers, device)


def alone_because(study: Study, fuse: int | str) -> str:
    """Why ``lanes_of`` gives each worker one run at a time, in words."""
    if study.isolate:
        return "isolate gives each run a process of its own"
    if is_function(study.objective):
        return "a plain training function; a TrainingTask could be fused"
    if fuse in ("off", 1):
        return f"every run, as --fuse {fuse} says"
    return f"{study.objective} is not seen to be a TrainingTask without importing it; --fuse {CPU_LANES} tries"


def measure(
    study: Study, *, device: str = "auto", fuse: int | str = "auto", workers: int | None = None
) -> Measured | None:
    """Time the first epochs of the runs that ``run``'s workers would take first; records nothing.

    Where a worker has lanes they train in as many worker processes, dealt out as ``run`` deals them; else one of them
    trains, alone. None where they come to nothing.

    Args:
        study: its baselines and first settings are tried, with its seeds.
        device, fuse, workers: as ``run`` takes them.

    Raises:
        StudyError: ``fuse`` cannot be.
        ObjectiveError: there is no such training code.
        ExecutorError: no worker can be started.
    """
    lanes, fixed = lanes_of(study, fuse, device)
    count = workers_of(workers, device)
    runs = _first_runs(study, lanes * count)
    if lanes == 1:
        return time_alone(study, runs[0], device=device)
    return time_together(study, runs, device=device, workers=count, lanes=lanes, fixed_lanes=fixed)


def _first_runs(study: Study, count: int) -> list[Assignment]:
    """Those that ``run`` would begin with, at most so many."""
    seeds = len(study.seeds)
    history = History(search_space=study.search_space, direction=study.direction, seed=study.seed)
    trials = -(-count // seeds) - len(study.baselines)
    batch = batch_of(study)
    ends = [n for n in (trials, batch, study.n_trials) if n is not None]
    chosen = study.strategy.ask(history, min(ends)) if min(ends) > 0 else []
    runs = [
        Assignment(run=RunKey(number, seed), params=params, attempt=1)
        for number, params in enumerate([*study.baselines, *chosen])
        for seed in study.seeds
    ]
    return runs[:count]


def attempt(
    study: Study,
    params: Params,
    *,
    device: str = "auto",
    seed: int | None = None,
    lanes: int = 1,
    on_report: Callable[[EpochReport], None] = lambda report: None,
) -> Finished | Lost:
    """Train one setting by hand, now, in a worker process; recorded nowhere.

    Args:
        study: its first baseline, or its first setting, is trained.
        params: overrules that.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        seed: of the run; None: the first of the study.
        lanes: 1: by the plain loop. 2: as the only lane of a group, to the bit as a study trains it on a CPU.
        on_report: hears of each epoch.

    Raises:
        StudyError: names a hyperparameter that the study does not have.
    """
    from hpsearch.plan import plan

    unknown = sorted(params.keys() - study.search_space.parameters.keys())
    if unknown:
        hint = f"it has {', '.join(study.search_space.parameters)}"
        raise StudyError([Problem(field=n, message="is no hyperparameter of this study", hint=hint) for n in unknown])
    first = [*study.baselines, *plan(study, show=1).first][0]

    last: list[Finished | Lost] = []

    def passed_on(report: Report) -> bool:
        if isinstance(report, EpochReport):
            on_report(report)
        elif isinstance(report, Finished | Lost):
            last.append(report)
        return False

    key = RunKey(0, study.seeds[0] if seed is None else seed)
    again = Assignment(run=key, params={**first, **params}, attempt=1)
    watch(study, [again], device=device, lanes=lanes, isolated=True, hear=passed_on)
    return last[0]


def _refuse_budget(study: Study, url: str, *, extend: bool) -> None:
    """A stored study's budget grows on request only, and never shrinks: its trials are there."""
    from hpsearch.stores.sql import open_archive

    try:
        stored = open_archive(url).study(study.name).spec
    except NotFoundError:
        return
    given = spec_of(study)
    if differences(stored, given):
        # The store says what differs, under the lease.
        return
    for name in ("n_trials", "budget_s"):
        old, new = stored.get(name), given.get(name)
        if old == new:
            continue
        grows = new is None or (old is not None and new > old)
        if grows and extend:
            continue
        what = f"the stored study {study.name} has {name}: {_budget(old)}, this one {_budget(new)}"
        shrinks = f"a budget never shrinks; hpsearch resume {study.name} goes on with the stored one"
        hint = "--extend raises the budget of the same study" if grows else shrinks
        raise StudyChangedError(what, hint=hint)


def _budget(value: Any) -> str:
    return "none" if value is None else str(value)


def _exit_code(ending: Ending, interrupts: Interrupts) -> int:
    if ending.state == "complete":
        return 0 if ending.progress.best else 4
    return 143 if interrupts.terminated else 130
