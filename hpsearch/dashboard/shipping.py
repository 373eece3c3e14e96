"""Whether a trial is one to ship: the checklist, and the looks at the sealed test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from hpsearch.confirm import Confirmation, confirmation
from hpsearch.dashboard.record import View
from hpsearch.errors import ObjectiveError
from hpsearch.objective import ObjectiveAddress, find
from hpsearch.read import study_of
from hpsearch.ship import Check, Look, checklist, looks
from hpsearch.trial import Checkpoint, RunKey, Trial

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
    return view.once(("ship", number), lambda: _shipping(view, number))


def _shipping(view: View, number: int) -> Shipping:
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
