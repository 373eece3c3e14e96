"""One trial: its runs, what they have learned, where they were trained, what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from hpsearch import reproduce
from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.pages.frame import card, study_page
from hpsearch.dashboard.record import View
from hpsearch.dashboard.standing import stages
from hpsearch.dashboard.wanted import TheNumber, TheRecord, TheView
from hpsearch.errors import UsageError
from hpsearch.further import CONFIRMED, DROP, REVEAL
from hpsearch.strategy import Decision
from hpsearch.trial import Environment, Run, Trial, best_trials
from hpsearch.written import printable, redacted

router = APIRouter(include_in_schema=False)
#: rows of runs, errors, and characters of an error, its end
RUNS, ERRORS, CHARACTERS = 200, 6, 6000
#: kinds of decisions whose subject is a trial, or a run
ABOUT = ("prune", DROP, CONFIRMED, REVEAL, "rerun")


@final
@dataclass(frozen=True, kw_only=True)
class Failure:
    """What ended some runs alike."""

    #: ``seeds 0, 2``
    who: str
    state: str
    reason: str
    #: a traceback, or its end
    error: str


@final
@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where runs were trained: what all share, and in what they differ."""

    same: Sequence[tuple[str, str]]
    #: (what, [(value, ``seeds 0, 2``)])
    differs: Sequence[tuple[str, Sequence[tuple[str, str]]]]


@router.get("/s/{study}/t/{number}", response_class=HTMLResponse)
@role(Role.READ)
def trial(request: Request, view: TheView, record: TheRecord, number: TheNumber) -> HTMLResponse:
    """All there is of one trial."""
    found = view.trial(number)
    address = f"{view.name}/{number}"
    rank = ranks(view).get(number)
    return study_page(
        request,
        "trial.html",
        view,
        "trials",
        trial=found,
        address=address,
        rank=rank,
        ranked=len(ranks(view)),
        rival=next((n for n in ranks(view) if n != number), None) if rank else None,
        stages=stages(found),
        runs=found.runs[:RUNS],
        cards=[
            card("trial_curves", "Learning curves, seed by seed", trial=number),
            *([card("layers", "Layers", run=str(found.runs[0].key))] if found.runs else []),
        ],
        around=surroundings(found.runs),
        failures=failures(found.runs),
        notes=[(said, text) for said, text in view.summary.notes if _is_about(said, view.name, number)],
        tags=[(said, word) for said, word in view.summary.trial_tags if _is_about(said, view.name, number)],
        decisions=decisions_about(view.decisions, number),
        previous=number - 1 if number else None,
        following=number + 1 if number + 1 < len(view.trials) else None,
        commands=[
            ("As a study file of its own", f"hpsearch show {address} --yaml"),
        ],
        listings=listings(view, found, record.portable_url),
    )


def listings(view: View, trial: Trial, db: str) -> list[tuple[str, str]]:
    """How to train it again, in words and as what to type: a command, where there is something to compare with; Python.

    Args:
        view: of its study.
        trial: it.
        db: the database's address, without a password.
    """
    found = [("Python that needs no record", reproduce.snippet(view.summary, trial))]
    with suppress(UsageError):  # it has not ended
        found.insert(0, ("A command that compares each epoch", reproduce.command(view.summary, trial, db=db)))
    return [(words, text.rstrip("\n")) for words, text in found]


def ranks(view: View) -> dict[int, int]:
    """Number -> place of each complete trial, from 1, best first."""

    def make() -> dict[int, int]:
        best = best_trials(view.trials, view.direction, len(view.trials))
        return {trial.number: k for k, trial in enumerate(best, 1)}

    return view.once("ranks", make)


def decisions_about(decisions: Iterable[Decision], number: int) -> list[Decision]:
    """What was decided of a trial, oldest first; a race is about all that are in it."""
    return [one for one in decisions if _names(one, number)]


def _names(one: Decision, number: int) -> bool:
    """Whether its subject is the trial or a run of it (of others the subject is a count), or it is one of several."""
    if number in (*one.details.get("contenders", ()), *one.details.get("ties", ())):
        return True
    return one.kind in ABOUT and one.subject.partition("/")[0] == str(number)


def _is_about(said: str, study: str, number: int) -> bool:
    return said == f"{study}/{number}" or said.startswith(f"{study}/{number}/")


def failures(runs: Sequence[Run]) -> list[Failure]:
    """What went wrong, said once for all runs that it ended; the most frequent first."""
    alike: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.reason or run.error:
            alike.setdefault((str(run.state), run.reason, run.error), []).append(run)
    ordered = sorted(alike.items(), key=lambda item: -len(item[1]))
    return [
        Failure(who=_seeds(some), state=state, reason=reason, error=ending(error))
        for (state, reason, error), some in ordered[:ERRORS]
    ]


def ending(error: str) -> str:
    """The end of a traceback, as text; that is where the message is."""
    text = printable(redacted(error.rstrip()), lines=True)
    return text if len(text) <= CHARACTERS else f"… {len(text) - CHARACTERS:,} characters before\n{text[-CHARACTERS:]}"


def surroundings(runs: Sequence[Run]) -> Surroundings:
    """Where runs were trained."""
    known = [(run, _lines(run.environment)) for run in runs if run.environment]
    same: list[tuple[str, str]] = []
    differs: list[tuple[str, list[tuple[str, str]]]] = []
    for what in dict.fromkeys(name for _, lines in known for name in lines):
        values: dict[str, list[Run]] = {}
        for run, lines in known:
            values.setdefault(lines.get(what, "–"), []).append(run)
        if len(values) == 1:
            same.append((what, next(iter(values))))
        else:
            differs.append((what, [(value, _seeds(some)) for value, some in values.items()]))
    return Surroundings(same=same, differs=differs)


def _lines(environment: Environment) -> dict[str, str]:
    commit = environment.git_commit[:12] + (", with changes" if environment.git_dirty else "")
    found: dict[str, Any] = {
        "device": environment.device,
        "machine": environment.machine,
        "Python": environment.python,
        "commit": commit or "no git checkout",
        "data": environment.data,
        **environment.packages,
    }
    return {name: printable(str(text)) for name, text in found.items() if text}


def _seeds(runs: Sequence[Run]) -> str:
    """``seeds 0, 2``; many are counted."""
    names = [str(run.key).partition("/")[2] for run in runs]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"seed{'s' * (len(names) > 1)} {', '.join(names[:12])}{more}"
