"""A study at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.record import View
from hpsearch.dashboard.standing import estimate, standing
from hpsearch.dashboard.wanted import TheFilter, TheSource, TheView
from hpsearch.findings import Sentence, verdict_of
from hpsearch.trial import Direction, Trial, best_trials
from hpsearch.verdict import Spread, paired

router = APIRouter(include_in_schema=False)
#: trials in the table
TOP = 10
#: notes that are shown, the newest
NOTES = 10
#: tags that are shown, those of the study first
TAGS = 40


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One of the best trials."""

    trial: Trial
    value: Spread | None
    #: by how much the best is better on the seeds that both have; None for the best, and where they have none
    behind: float | None


@router.get("/s/{study}", response_class=HTMLResponse)
@role(Role.READ)
def overview(request: Request, view: TheView, source: TheSource, wanted: TheFilter) -> HTMLResponse:
    """The best so far, what is shown of it, the pictures that say most, the first trials."""
    top = best_of(best_trials(source.subject.trials, view.direction, TOP), view.direction)
    best = best_trials(view.trials, view.direction, 1)
    return study_page(
        request,
        "overview.html",
        view,
        "",
        wanted,
        cards=_cards(view),
        best=estimate(best[0]) if best else None,
        best_trial=best[0] if best else None,
        standing=standing(view.summary),
        said=findings(view),
        top=top,
        shown=len(source.subject.trials),
        notes=list(view.summary.notes)[-NOTES:][::-1],
        tags=[*((view.name, word) for word in view.summary.tags), *view.summary.trial_tags][:TAGS],
    )


def findings(view: View) -> list[Sentence]:
    """What may be said of the study, as its report says it."""
    return view.once("findings", lambda: verdict_of(view.results))


def best_of(trials: Sequence[Trial], direction: Direction) -> list[Row]:
    """The best trials, each beside the first. Their own seeds have ordered them: a test would find too much."""
    return [
        Row(
            trial=trial,
            value=estimate(trial),
            behind=None if trial is trials[0] else paired(trials[0].values(), trial.values(), direction).difference,
        )
        for trial in trials
    ]


def _cards(view: View) -> list[object]:
    """The pictures that say most of such a study."""
    zooms = view.summary.spec["strategy"]["name"] == "coarse_to_fine"
    return [
        card("history", "Best so far"),
        card("rounds", "Coarse to fine") if zooms else card("curves", "Learning curves"),
        card("lr_curve", "Where the best values lie"),
        card("grid_or_random", "Grid or random?"),
        card("importances", "Importance, with uncertainty"),
        card("seeds", "Is the winner really better?"),
        card("parallel", "All hyperparameters", wide=True),
    ]
