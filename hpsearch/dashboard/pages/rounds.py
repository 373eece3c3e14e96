"""How a coarse-to-fine search narrowed, round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.record import View
from hpsearch.dashboard.wanted import TheView
from hpsearch.parameter import Categorical
from hpsearch.trial import LARGEST, Trial, best_trials
from hpsearch.verdict import Spread, spread

router = APIRouter(include_in_schema=False)
#: rounds in the table: the first and the last ones of a longer search
MOST = 40
EDGE = "lies at the edge"


@final
@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of the search."""

    #: from 1
    number: int
    trials: int
    #: of this round alone; None where no trial of it has a value
    best: Trial | None
    spread: Spread | None
    #: parameter -> the ends that it drew from
    windows: Mapping[str, tuple[Any, Any]]
    #: parameter -> why its window moves or narrows after this round
    reasons: Mapping[str, str]

    @property
    def at_edge(self) -> list[str]:
        """Parameters whose best lay at an end of this round's window."""
        return [name for name, reason in self.reasons.items() if EDGE in reason]


def rounds_of(view: View) -> list[Round]:
    """The rounds, first to last; [] for a strategy that has none."""
    own = [trial for trial in view.trials if not trial.baseline]
    if view.summary.spec["strategy"]["name"] != "coarse_to_fine" or not own:
        return []
    windows: dict[str, tuple[Any, Any]] = {
        name: (p.low, p.high) for name, p in view.subject.space.searched.items() if not isinstance(p, Categorical)
    }
    zooms = [decision for decision in view.decisions if decision.kind == "zoom"]
    found = []
    for k in range(1 + max(trial.batch for trial in own)):
        trials = [trial for trial in own if trial.batch == k]
        best = next(iter(best_trials(trials, view.direction, 1)), None)
        after = [zoom for zoom in zooms if zoom.batch == k]
        found.append(
            Round(
                number=k + 1,
                trials=len(trials),
                best=best,
                spread=None if best is None else spread(list(best.values().values())),
                windows=dict(windows),
                reasons={zoom.subject: zoom.reason for zoom in after},
            )
        )
        windows |= {z.subject: (z.details["new"][0], z.details["new"][1]) for z in after if z.details.get("new")}
    return found


@router.get("/s/{study}/rounds", response_class=HTMLResponse)
@role(Role.READ)
def rounds(
    request: Request, view: TheView, round: Annotated[int | None, Query(ge=1, le=LARGEST)] = None
) -> HTMLResponse:
    """The windows, played or up to a round; a row a round."""
    found: Sequence[Round] = view.once("rounds", lambda: rounds_of(view))
    last = len(found)
    upto = None if round is None or round >= last else round
    shown = found if last <= MOST else [*found[: MOST // 2], *found[last - MOST // 2 :]]
    picture = card("rounds", "Windows" if upto is None else f"Windows up to round {upto}", wide=True, round=upto,
                   played=None if upto else 1)  # fmt: skip
    return study_page(
        request,
        "rounds.html",
        view,
        "rounds",
        picture_card=picture if found else None,
        rounds=shown,
        last=last,
        upto=upto,
        steps=sorted({1 + k * (last - 1) // 11 for k in range(12)}) if last > 1 else [],
    )
