"""``/metrics``: the record as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Response

from hpsearch.archive import StudySummary
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.wanted import TheRecord

router = APIRouter(include_in_schema=False)
STATES = ("running", "complete", "stopped", "interrupted", "failed")
Sample = tuple[dict[str, str], float]


@router.get("/metrics")
@role(Role.READ)
def metrics(record: TheRecord) -> Response:
    """Studies by state; of each study its trials by state, its revision and how long ago it changed."""
    text = "".join(lines(record.studies(), time.time()))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def lines(studies: Sequence[StudySummary], now: float) -> Iterator[str]:
    """The lines of the exposition.

    Args:
        studies: all of the record.
        now: seconds since 1970.
    """
    states = Counter(study.state for study in studies)
    yield from _gauge(
        "hpsearch_studies", "Studies by state.", [({"state": s}, states[s]) for s in sorted({*STATES, *states})]
    )
    yield from _gauge(
        "hpsearch_trials",
        "Trials of a study by state.",
        [({"study": s.name, "state": str(state)}, n) for s in studies for state, n in s.counts.items()],
    )
    yield from _gauge(
        "hpsearch_best_value",
        "Value of the best complete trial.",
        [({"study": s.name, "metric": str(s.spec["metric"])}, s.best[1]) for s in studies if s.best],
    )
    yield from _gauge(
        "hpsearch_study_revision",
        "Turns written; grows with every change.",
        [({"study": s.name}, s.rev) for s in studies],
    )
    yield from _gauge(
        "hpsearch_study_seconds_since_change",
        "Seconds since the study changed.",
        [({"study": s.name}, max(0.0, now - s.updated)) for s in studies],
    )


def _gauge(name: str, about: str, samples: Sequence[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {about}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        told = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{told}}} {float(value)!r}\n"


def escaped(text: str) -> str:
    """A label's value: backslash, quote and line end."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
