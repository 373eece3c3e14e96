"""Trials seed by seed, with the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.compare import Difference, TrialRow, confirmed, origin_differences, param_differences, trial_row, verdicts
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheView
from hpsearch.errors import UsageError
from hpsearch.trial import LARGEST, Trial
from hpsearch.verdict import Paired, Spread, spread

router = APIRouter(include_in_schema=False)
#: trials that are compared at once
MOST = 6
#: pairs whose seeds are drawn, and trials whose layers are
DRAWN = 2

Number = Annotated[int | None, Query(ge=0, le=LARGEST)]


@final
@dataclass(frozen=True, kw_only=True)
class Compared:
    """Trials of one study side by side."""

    #: as many as there are trials; addresses are ``#3``
    rows: Sequence[TrialRow]
    #: the mean of each over the seeds it is judged by
    spreads: Sequence[Spread]
    #: judged by seeds of the confirmation, by which they were not chosen
    fresh: bool
    pairs: Sequence[Paired]
    params: Sequence[Difference]
    #: params that are the same in all of them
    same: Sequence[tuple[str, Any]]
    origins: Sequence[Difference]


def compared(view: View, trials: Sequence[Trial]) -> Compared:
    """What can be said of these trials: on the seeds of their confirmation where all have some, else on all seeds."""
    fresh = confirmed(trials)
    rows = [replace(trial_row(view.name, t, confirmed=fresh), address=f"#{t.number}") for t in trials]
    params = param_differences(trials)
    differ = {row.name for row in params}
    return Compared(
        rows=rows,
        spreads=[spread(list(row.judged.values())) for row in rows],
        fresh=fresh,
        pairs=verdicts(rows, view.direction),
        params=params,
        same=[(name, value) for name, value in trials[0].params.items() if name not in differ],
        origins=origin_differences([view.summary] * len(trials), trials),
    )


@router.get("/s/{study}/compare", response_class=HTMLResponse)
@role(Role.READ)
def compare(
    request: Request,
    view: TheView,
    a: Number = None,
    b: Number = None,
    t: Annotated[list[int] | None, Query(max_length=MOST)] = None,
) -> HTMLResponse:
    """Two trials (or a few) seed by seed; without numbers, a form with the best two in it."""
    numbers = list(dict.fromkeys(n for n in (a, b, *(t or ())) if n is not None))
    if len(numbers) > MOST:
        raise UsageError(f"{len(numbers)} trials are too many to compare", hint=f"at most {MOST}: ?t=1&t=2")
    proposed = [trial.number for trial in view.results.top(2)]
    proposed += [trial.number for trial in view.trials if trial.number not in proposed][: 2 - len(proposed)]
    if len(numbers) < 2:
        return study_page(
            request, "compare.html", view, "compare", found=None, cards=[], numbers=numbers,
            chosen=[*numbers, *(n for n in proposed if n not in numbers), "", ""][:2],
        )  # fmt: skip
    trials = [view.trial(n) for n in numbers]
    found = view.once(("compare", tuple(numbers)), lambda: compared(view, trials))
    cards = [card("pairs", f"Seed by seed: #{numbers[0]} and #{n}", trial=(numbers[0], n)) for n in numbers[1:]][:DRAWN]
    cards += [card("curves", "Learning curves", trial=tuple(numbers))]
    layers = [card("layers", f"Layers of #{n}", wide=True, trial=(n,)) for n in numbers[:DRAWN]]
    return study_page(
        request, "compare.html", view, "compare", found=found, cards=cards, layers=layers, numbers=numbers,
        chosen=numbers[:2],
    )  # fmt: skip
