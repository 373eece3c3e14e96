"""Is this trial one to ship? The checklist, and the looks at the sealed test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.confirm import Confirmation, confirmation
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import study_page
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheView
from hpsearch.errors import ObjectiveError
from hpsearch.objective import ObjectiveAddress, find
from hpsearch.read import study_of
from hpsearch.ship import Check, Look, checklist, looks
from hpsearch.trial import LARGEST, Checkpoint, RunKey, Trial

router = APIRouter(include_in_schema=False)
#: of the check that looks at files, where the training code is on another machine
CODE, ELSEWHERE = "same code and software", "it cannot be said here: the training code is not on this machine"


@final
@dataclass(frozen=True, kw_only=True)
class Shipping:
    """What speaks for a trial, and what does not."""

    trial: Trial
    checks: Sequence[Check]
    race: Confirmation | None
    #: of the study, oldest first
    looks: Sequence[Look]
    #: of the trial's runs
    kept: Mapping[RunKey, Checkpoint]


def chosen(view: View) -> int | None:
    """The trial that the last race has chosen, else the best; None where no trial is complete."""
    race = confirmation(view.trials, view.decisions, view.direction)
    if race is not None and race.chosen is not None:
        return race.chosen
    return next((trial.number for trial in view.results.top(1)), None)


def shipping(view: View, number: int) -> Shipping:
    """The checklist of one trial. Of the training code it reads the file's bytes and runs nothing."""
    summary = view.summary
    folder = Path(summary.file).parent if summary.file else Path.cwd()
    study = study_of(summary.spec, folder)
    checks, race = checklist(study, summary, view.archive, number, view.trials)
    if not _code_is_here(study.objective):
        checks = [replace(c, holds=None, words=ELSEWHERE) if c.name == CODE and c.holds is False else c for c in checks]
    return Shipping(
        trial=view.trial(number),
        checks=checks,
        race=race,
        looks=looks(view.decisions),
        kept={key: found for key, found in sorted(view.archive.checkpoints(view.name).items()) if key.trial == number},
    )


def _code_is_here(objective: ObjectiveAddress) -> bool:
    """Whether there is a file of it; nothing is imported to find out."""
    if objective.file is not None:
        return objective.file.is_file()
    try:
        return find(objective).is_file()
    except ObjectiveError:
        return False


@router.get("/s/{study}/ship", response_class=HTMLResponse)
@role(Role.READ)
def ship(
    request: Request, view: TheView, t: Annotated[int | None, Query(description="a trial", ge=0, le=LARGEST)] = None
) -> HTMLResponse:
    """The checklist of a trial; without a number, of the one that the race chose, else of the best."""
    number = chosen(view) if t is None else view.trial(t).number
    found = None if number is None else view.once(("ship", number), lambda: shipping(view, number))
    return study_page(
        request,
        "ship.html",
        view,
        "ship",
        found=found,
        number=number,
        may_reveal=found is not None and found.race is not None and found.race.chosen == number,
    )
