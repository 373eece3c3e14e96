"""One run: one training of a trial with one seed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.logs import LINES, tail
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.pages.trial import ending, surroundings
from hpsearch.dashboard.wanted import TheNumber, TheView
from hpsearch.errors import NotFoundError
from hpsearch.trial import Run, RunKey, Trial

router = APIRouter(include_in_schema=False)
TheRun = Annotated[str, Path(description="the seed, or `seed.repeat`", pattern=r"^\d{1,9}(\.\d{1,9})?$")]


@router.get("/s/{study}/t/{number}/{seed}", response_class=HTMLResponse)
@role(Role.READ)
def run(request: Request, view: TheView, number: TheNumber, seed: TheRun) -> HTMLResponse:
    """All there is of one run."""
    trial = view.trial(number)
    found = run_of(view.name, trial, seed)
    place = trial.runs.index(found)
    address = f"{view.name}/{found.key}"
    return study_page(
        request,
        "run.html",
        view,
        "trials",
        trial=trial,
        run=found,
        seed=seed_text(found),
        address=address,
        around=surroundings([found]).same,
        error=ending(found.error) if found.error else "",
        log=tail(view.results.files, found.key),
        files=view.results.files,
        most=LINES,
        cards=[
            card("run_metrics", "Metrics", run=str(found.key)),
            card("layers", "Layers", run=str(found.key)),
        ],
        notes=[text for said, text in view.summary.notes if said == address],
        previous=seed_text(trial.runs[place - 1]) if place else None,
        following=seed_text(trial.runs[place + 1]) if place + 1 < len(trial.runs) else None,
        again=f"hpsearch rerun {address}",
    )


def run_of(study: str, trial: Trial, seed: str) -> Run:
    """One run of a trial.

    Raises:
        NotFoundError: the trial has no such run.
    """
    wanted = RunKey.of(f"{trial.number}/{seed}")
    for found in trial.runs:
        if found.key == wanted:
            return found
    seeds = ", ".join(seed_text(one) for one in trial.runs[:40])
    raise NotFoundError(f"{study}/{trial.number} has no run with seed {seed}", hint=f"its seeds: {seeds or 'none yet'}")


def seed_text(run: Run) -> str:
    """``3``, or ``3.1`` for a repetition: as an address has it."""
    return str(run.key).partition("/")[2]
