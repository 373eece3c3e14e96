"""Confirm a study's best trials on fresh seeds, and say what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from hpsearch.archive import Archive
from hpsearch.errors import UsageError
from hpsearch.finals import Race, Standing, Terms, begin, fresh_values, judged_values, latest, standing
from hpsearch.launch import Outcome, Place, go_further
from hpsearch.race import judge
from hpsearch.strategy import Decision
from hpsearch.study import Study
from hpsearch.trial import Direction, Trial
from hpsearch.verdict import MOST_SEEDS, Optimism, Spread, optimism, paired, spread


@final
@dataclass(frozen=True, kw_only=True)
class Contender:
    """One trial in a race."""

    trial: Trial
    #: its value over the search's seeds, and over the fresh ones
    searched: Spread
    fresh: Spread
    #: ``winner``, ``ties`` or why it left, in words; empty while the race goes on
    outcome: str
    #: it left because it was shown to be worse, not because it diverged or failed
    shown: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """A race, as far as it has come."""

    terms: Terms
    #: those that are in it first, by their fresh values; then those that left, the last first
    contenders: Sequence[Contender]
    #: how it ended; None while it has not
    end: Decision | None
    #: the number of the trial to take: the winner, or of those that tie the best or a cheaper one (``finals``)
    chosen: int | None
    #: how optimistic the search was of it
    optimism: Optimism | None
    #: seeds of another race that would tell those that tie from the best of them with probability 0.8, if they differ
    #: as here; None: more than ``verdict.MOST_SEEDS``, or nothing ties
    seeds_needed: int | None = None

    @property
    def words(self) -> str:
        """The verdict."""
        return self.end.reason if self.end else "the race is not over"

    @property
    def to_settle(self) -> str:
        """What it would take to tell those that tie apart; empty where nothing ties."""
        if self.end is None or len(self.end.details["ties"]) < 2:
            return ""
        if self.seeds_needed is None:
            return f"more than {MOST_SEEDS:,} seeds would be needed to tell them apart: take the cheaper"
        return f"a race of about {self.seeds_needed:,} seeds would tell them apart, if they differ as here"


def confirmation(trials: Sequence[Trial], decisions: Sequence[Decision], direction: Direction) -> Confirmation | None:
    """The last race of a study; None where there was none.

    Args:
        trials: all of the study.
        decisions: all of the study.
        direction: which way the metric gets better.
    """
    terms, end = latest(decisions)
    if terms is None:
        return None
    now = standing(terms, trials, direction)
    chosen = int(end.subject) if end and end.subject else None
    found = None
    if chosen is not None and (value := trials[chosen].value) is not None:
        found = optimism(value, list(fresh_values(trials[chosen], terms).values()), direction)
    contenders = [_contender(trials[n], now, end) for n in _order(now, trials, direction)]
    needed = _seeds_needed(terms, end, trials, direction) if end else None
    return Confirmation(terms=terms, contenders=contenders, end=end, chosen=chosen, optimism=found, seeds_needed=needed)


@final
@dataclass(frozen=True, kw_only=True)
class Against:
    """A trial against another one of its race."""

    #: shown to be better; False: shown to be worse; None: neither
    better: bool | None
    words: str


def against(trial: Trial, other: Trial, race: Confirmation, direction: Direction) -> Against:
    """Whether a trial is shown to be better than another, as a race of both that is over has it.

    Where the race does not say, by their difference on its seeds. Which trial is asked about was chosen by the same
    values, so p is corrected (``comparisons``).
    """
    by_number = {one.trial.number: one for one in race.contenders}
    ours, theirs = by_number[trial.number], by_number[other.number]
    if ours.outcome == theirs.outcome == "ties":
        return Against(better=None, words=f"#{trial.number} ties with #{other.number}")
    if theirs.shown and ours.outcome == "winner":
        return Against(better=True, words=f"#{other.number} is {theirs.outcome}")
    if ours.shown and theirs.outcome == "winner":
        return Against(better=False, words=f"#{trial.number} is {ours.outcome}")
    found = paired(
        judged_values(trial, race.terms),
        judged_values(other, race.terms),
        direction,
        alpha=race.terms.alpha,
        comparisons=comparisons(len(race.contenders), len(race.terms.looks)),
        names=(f"#{trial.number}", f"#{other.number}"),
    )
    return Against(better=True if found.beats else False if found.beaten else None, words=found.words)


def comparisons(contenders: int, looks: int) -> int:
    """By how many to correct (Bonferroni) a trial that a race has chosen against one that is not in it any more.

    All that could stand in its place, at each look: no more than the race asks for before it drops anyone.
    """
    return looks * max(1, contenders - 1)


def confirm(
    study: Study,
    archive: Archive,
    place: Place,
    *,
    top: int = 8,
    max_seeds: int = 16,
    alpha: float = 0.05,
    again: bool = False,
) -> tuple[Outcome | None, Confirmation]:
    """Race the best trials of a stored study on fresh seeds; a race that was interrupted goes on under its own terms.

    Args:
        study: as it is stored.
        archive: of the same database as ``place``.
        place: where and how its runs are made.
        top, max_seeds, alpha: as ``finals.begin`` takes them.
        again: begin another race, on other seeds, where one is over.

    Returns:
        How the runs ended (None where a race is over already), and the race.

    Raises:
        UsageError: no trial is complete. The others as ``launch.go_further`` says.
    """
    terms, end = latest(archive.decisions(study.name))
    outcome = None
    if terms is None or end is None or again:
        begun = terms is not None and end is None
        if terms is None or not begun:
            number = terms.number + 1 if terms else 1
            trials = archive.trials(study.name)
            terms = begin(
                trials, study.direction, number=number, top=top, first=study.confirm_seeds, max_seeds=max_seeds,
                alpha=alpha,
            )  # fmt: skip
        outcome = go_further(study, Race(terms, study.direction, begun=begun), place)
    found = confirmation(archive.trials(study.name), archive.decisions(study.name), study.direction)
    if found is None:
        raise UsageError("the race was stopped before it began", hint=f"hpsearch confirm {study.name}")
    return outcome, found


def _order(now: Standing, trials: Sequence[Trial], direction: Direction) -> list[int]:
    sign = direction.sign

    def place(number: int) -> tuple[bool, float]:
        mean = spread(list(fresh_values(trials[number], now.terms).values())).mean
        return mean is None, sign * (mean or 0.0)

    return [*sorted(now.active, key=place), *(left.trial for left in reversed(now.left))]


def _seeds_needed(terms: Terms, end: Decision, trials: Sequence[Trial], direction: Direction) -> int | None:
    ties, made = end.details["ties"], terms.seeds[: end.details["seeds"]]
    fresh = {f"#{n}": {s: v for s, v in fresh_values(trials[n], terms).items() if s in made} for n in ties}
    if len(ties) < 2 or not all(fresh.values()):
        return None
    looks = len(terms.looks)
    last = judge(fresh, direction, contenders=len(terms.contenders), look=looks, looks=looks, alpha=terms.alpha)
    needed = [one.seeds_needed for name, one in last.standings.items() if name != last.leader]
    known = [n for n in needed if n is not None]
    # A difference that these seeds have not shown is not promised to fewer.
    return max(*known, len(made) + 1) if len(known) == len(needed) else None


def _contender(trial: Trial, now: Standing, end: Decision | None) -> Contender:
    left = next((one for one in now.left if one.trial == trial.number), None)
    outcome = left.reason if left else ""
    if left is None and end:
        outcome = "winner" if end.details["winner"] == trial.number else "ties"
    return Contender(
        trial=trial,
        searched=spread(list(trial.values().values())),
        fresh=spread(list(fresh_values(trial, now.terms).values())),
        outcome=outcome,
        shown=left is not None and left.shown,
    )
