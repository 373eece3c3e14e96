"""The rounds of a search: the trials that its strategy chose together, and the windows that it drew them from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.dashboard.record import View
from hpsearch.parameter import Categorical
from hpsearch.strategy import Decision
from hpsearch.trial import State, Trial, best_trials
from hpsearch.verdict import Spread, spread

EDGE = "lies at the edge"
Window = tuple[float, float]


@final
@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of the search; baselines are in none."""

    #: from 1: its trials' ``batch`` + 1
    number: int
    trials: int
    #: of its trials
    states: Mapping[State, int]
    #: of this round alone; None where no trial of it has a value
    best: Trial | None
    #: of ``best``, over its seeds
    spread: Spread | None
    #: of this round and all before
    best_so_far: Trial | None
    #: parameter -> the ends that it drew from; only what narrows
    windows: Mapping[str, Window]
    #: parameter -> why its window moves or narrows after this round
    reasons: Mapping[str, str]

    @property
    def at_edge(self) -> list[str]:
        """Parameters whose best lay at an end of this round's window."""
        return [name for name, reason in self.reasons.items() if EDGE in reason]


def narrows(view: View) -> bool:
    """Whether the study's strategy narrows the search space round by round."""
    return view.subject.strategy == "coarse_to_fine"


def rounds_of(view: View) -> Sequence[Round]:
    """The rounds, from the first to the last that has a trial."""
    return view.once("rounds", lambda: _rounds(view))


def _rounds(view: View) -> list[Round]:
    chosen: dict[int, list[Trial]] = defaultdict(list)
    for trial in view.trials:
        if not trial.baseline:
            chosen[trial.batch].append(trial)
    zooms: dict[int, list[Decision]] = defaultdict(list)
    for decision in view.decisions:
        if decision.kind == "zoom":
            zooms[decision.batch].append(decision)
    windows: dict[str, Window] = {}
    if zooms or narrows(view):
        numeric = {n: p for n, p in view.subject.space.searched.items() if not isinstance(p, Categorical)}
        windows = {name: (p.low, p.high) for name, p in numeric.items()}
    found: list[Round] = []
    top: list[Trial] = []
    for k in range(1 + max(chosen, default=-1)):
        best = next(iter(best_trials(chosen[k], view.direction, 1)), None)
        top = best_trials([*top, *chosen[k]], view.direction, 1)
        found.append(
            Round(
                number=k + 1,
                trials=len(chosen[k]),
                states=Counter(trial.state for trial in chosen[k]),
                best=best,
                spread=None if best is None else spread(list(best.values().values())),
                best_so_far=top[0] if top else None,
                windows=dict(windows),
                reasons={zoom.subject: zoom.reason for zoom in zooms[k]},
            )
        )
        windows |= {z.subject: (z.details["new"][0], z.details["new"][1]) for z in zooms[k] if z.details.get("new")}
    return found
