"""What the server leaves to a process of its own: seconds of work, by libraries that would stay in its memory.

One process at a time, and only for one job: importances of a study's trials, or its report. It gets plain data as JSON
and ends with its answer. Importances are kept; while a study runs, those of nine tenths of its trials do.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, final

from hpsearch.archive import StudySummary
from hpsearch.errors import StoreError
from hpsearch.figures.subject import Subject
from hpsearch.importance import Importances, Method, Share, importances, usable
from hpsearch.pictures import NotYet
from hpsearch.read import space_of
from hpsearch.trial import Direction, State, Trial

#: seconds after which to ask again
AGAIN_S = 2
#: how often trials are drawn anew: each time costs a tenth of a second of CPU
RESAMPLES = 20
#: fANOVA takes half a minute of that many trials, so beyond it there is PED-ANOVA alone, of a sample
BOTH, SAMPLE = 300, 500
#: choices of trials whose importances are kept
KEPT = 64
#: a job is ended after so many seconds
LONGEST_S = 300.0
#: while a study runs, importances are computed anew when it has so many more trials
GROWTH = 1.1
#: of the libraries that count their threads in the environment
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from hpsearch.dashboard.apart import main; main()"


@final
@dataclass(frozen=True)
class _Kept:
    """Importances, and of what."""

    #: of the trials
    signature: int
    n: int
    found: Importances


@final
class Apart:
    """Has jobs done, one after the other."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        #: held while a process is there
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = False
        self._closed = False

    def importances(self, choice: Hashable, study: StudySummary, seen: Subject) -> Importances:
        """What mattered among the trials of ``seen``; ``choice`` names which of the study's trials these are.

        Raises:
            NotYet: it is being computed.
        """
        ended = [(t.number, t.value) for t in seen.trials if t.state in (State.COMPLETE, State.DIVERGED)]
        key, signature = (study.name, study.created, choice), hash(tuple(ended))
        with self._lock:
            kept = self._kept.get(key)
            busy = self._busy
        if kept is not None and kept.signature == signature:
            return kept.found
        old = kept is not None and study.state == "running" and kept.n <= len(ended)
        if kept is not None and old and (busy or len(ended) < GROWTH * kept.n):
            return kept.found
        if not busy:
            job, n_usable = _job_of(study, seen)
            if not job:
                return importances(seen.space, seen.trials, seen.direction, methods=())
            self._start(key, _Kept(signature, len(ended), Importances(n_usable=n_usable)), job)
        if kept is not None and old:
            return kept.found
        raise NotYet(AGAIN_S)

    def report(self, url: str, study: str) -> bytes:
        """The page of ``hpsearch report``.

        Raises:
            StoreError: it could not be made.
        """
        try:
            return self._done({"job": "report", "url": url, "study": study})
        except OSError as error:
            raise StoreError(f"the report was not made: {error}", hint=f"hpsearch report {study}") from None

    def begin(self) -> None:
        """Take jobs (again)."""
        self._closed = False

    def close(self) -> None:
        """End what is being computed, and begin nothing more."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()

    def _start(self, key: Hashable, kept: _Kept, job: Mapping[str, Any]) -> None:
        with self._lock:
            if self._busy or self._closed:
                return
            self._busy = True

        def work() -> None:
            found = kept.found
            try:
                told = json.loads(self._done(job))
                shares = {method: [Share(**share) for share in told.pop(method)] for method in ("ped_anova", "fanova")}
                found = replace(found, **told | shares | {"n_usable": found.n_usable})
            except (OSError, ValueError) as error:
                found = replace(found, reason=f"the process that computed them was lost ({error})")
            finally:
                with self._lock:
                    self._busy = False
                    self._kept[key] = replace(kept, found=found)
                    self._kept.move_to_end(key)
                    while len(self._kept) > KEPT:
                        self._kept.popitem(last=False)

        threading.Thread(target=work, name="importances", daemon=True).start()

    def _done(self, job: Mapping[str, Any]) -> bytes:
        """What a process says about a job.

        Raises:
            OSError: it was lost.
        """
        with self._turn:
            if self._closed:
                raise OSError("the server is closing")
            with subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | _THREADS,
                start_new_session=True,  # Ctrl-C is the server's
            ) as process:
                self._process = process
                try:
                    told, _ = process.communicate(json.dumps(job).encode(), timeout=LONGEST_S)
                except subprocess.TimeoutExpired:
                    raise OSError(f"it took longer than {LONGEST_S:.0f} s") from None
                finally:
                    process.kill()
            if process.returncode:
                raise OSError(f"it ended with {process.returncode}")
            return told


def _job_of(study: StudySummary, seen: Subject) -> tuple[dict[str, Any], int]:
    """(the job, how many trials could be used); an empty job where nothing can be said."""
    used = usable(seen.space, seen.trials)
    few = random.Random(0).sample(used, SAMPLE) if len(used) > SAMPLE else used
    if importances(seen.space, few, seen.direction, methods=()).reason:
        return {}, len(used)
    trials = [(t.number, dict(t.params), str(t.state), t.value) for t in few]
    methods: list[Method] = ["ped_anova"] if len(used) > BOTH else ["ped_anova", "fanova"]
    job = {"job": "importances", "spec": dict(study.spec), "trials": trials}
    return job | {"methods": methods, "resamples": RESAMPLES}, len(used)


def main() -> None:
    """The process: a job from standard input, its answer to standard output."""
    with contextlib.suppress(OSError):
        os.nice(5)  # what trains goes first
    job = json.load(sys.stdin)
    if job["job"] == "report":
        from hpsearch.report import page
        from hpsearch.results import load

        sys.stdout.buffer.write(page(load(job["study"], db=job["url"])).encode("utf-8", "replace"))
        return
    trials = [Trial(number=n, params=params, state=State(state), value=v) for n, params, state, v in job["trials"]]
    spec = job["spec"]
    found = importances(
        space_of(spec), trials, Direction(spec["direction"]), resamples=job["resamples"], methods=job["methods"]
    )
    sys.stdout.write(json.dumps(asdict(found)))
