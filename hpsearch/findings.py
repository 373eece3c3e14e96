"""What may be said of a study, in sentences: the report and the overview say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import final

from hpsearch.cohort import unheard
from hpsearch.confirm import Confirmation, confirmation
from hpsearch.figures import lr_curve, subject
from hpsearch.figures.subject import Subject
from hpsearch.gain import INDEPENDENT, more_trials
from hpsearch.parameter import Categorical
from hpsearch.profile import edges_of
from hpsearch.results import Results
from hpsearch.ship import looks
from hpsearch.trial import Direction, State, Trial
from hpsearch.verdict import figure, paired, spread
from hpsearch.written import setting_text


@final
@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One thing that is said, and how loud."""

    text: str
    #: ``result``, ``warning`` or ``note``
    kind: str = "note"
    #: what to type or to write into the study file; empty where there is nothing to do
    way_out: str = ""


def verdict_of(results: Results) -> list[Sentence]:
    """What may be said of the study, the most important first; that one trial beats another only with an interval."""
    seen = subject.of(results)
    best = seen.best
    if not seen.trials:
        return [Sentence(text="Nothing has run yet.", kind="warning", way_out=f"hpsearch resume {seen.study}")]
    if best is None:
        return list(_without_best(seen, unheard(results.trials, results.study.spec)))
    said = [_best_sentence(seen, best)]
    others = [t for t in seen.ended if t.state is State.COMPLETE and t.value is not None and t is not best]
    if others and all(t.value == best.value for t in others):
        said.append(
            Sentence(text=f"All {len(others) + 1} complete trials have this value: nothing is shown to be better.",
                     kind="warning")
        )  # fmt: skip
    elif others:
        race = confirmation(results.trials, results.decisions, results.direction)
        said += _raced(seen, race) if race else _not_raced(seen, best, others, results.direction)
    said += _looks(results)
    said += [
        Sentence(text=edge.words, kind="warning", way_out=edge.suggestion)
        for edge in edges_of(seen.space, seen.trials, seen.direction)
    ]
    gain = more_trials(seen.trials, seen.direction, independent=seen.strategy in INDEPENDENT)
    if gain is not None:
        said.append(Sentence(text=gain.words))
    return said + list(_losses(seen))


def _without_best(seen: Subject, early: str) -> Iterator[Sentence]:
    ended = len(seen.ended)
    diverged = sum(t.state is State.DIVERGED for t in seen.trials)
    if not ended:
        yield Sentence(text="No trial has ended yet.", kind="warning", way_out=f"hpsearch status {seen.study}")
    elif diverged == ended:
        text = f"Every one of the {ended} trials diverged: there is no result. Mostly the learning rate is too high."
        name = lr_curve.parameter_of(seen)
        p = None if name is None else seen.space.parameters[name].hard()
        way = ""
        if p is not None and not isinstance(p, Categorical) and getattr(p, "log", False):
            way = f"{name}: {{log: [{p.low / 1000:.3g}, {p.low:.3g}]}}"
        yield Sentence(text=text, kind="warning", way_out=way)
    elif early:
        yield Sentence(text=f"There is no result: {early}.", kind="warning")
    else:
        those = "The one trial that ended is not" if ended == 1 else f"None of the {ended} trials that ended is"
        yield Sentence(
            text=f"{those} complete: there is no result.",
            kind="warning",
            way_out=f"hpsearch show {seen.study}",
        )
    yield from _losses(seen)


def _best_sentence(seen: Subject, best: Trial) -> Sentence:
    found = spread(list(best.values().values()))
    alone = " (one seed: nobody knows the spread)"
    if found.low is not None:
        alone = f" (mean of {found.n} seeds; 95 % interval {found.low:.4g} to {found.high:.4g}, by {found.method})"
    params = ", ".join(
        f"{name} {setting_text(best.params[name])}" for name in seen.space.searched if name in best.params
    )
    return Sentence(
        text=f"The best trial is #{best.number}: {seen.metric} {best.value:.4g}{alone}, with {params}.",
        kind="result",
        way_out=f"hpsearch best {seen.study} --yaml",
    )


def _raced(seen: Subject, race: Confirmation) -> Iterator[Sentence]:
    """What a race on fresh seeds has shown."""
    kind = "result" if race.end and race.end.details["winner"] is not None else "warning"
    again = f"hpsearch confirm {seen.study}"
    chosen = race.chosen
    way = again if race.end is None else f"hpsearch ship {seen.study}/{chosen}" if chosen is not None else ""
    fresh = f"{len(race.contenders)} trials raced on seeds that the search had not used"
    yield Sentence(text=f"{fresh}: {race.words}.", kind=kind, way_out=way)
    if race.to_settle:
        more = f"{again} --again --max-seeds {race.seeds_needed}" if race.seeds_needed is not None else ""
        yield Sentence(text=f"{race.to_settle[0].upper()}{race.to_settle[1:]}.", way_out=more)
    if race.optimism is not None:
        yield Sentence(text=f"#{chosen}: {race.optimism.words}.", kind="result")
    left = [
        f"#{one.trial.number} ({one.outcome})" for one in race.contenders if one.outcome not in ("", "winner", "ties")
    ]
    if left:
        yield Sentence(text=f"Left the race: {'; '.join(left)}.")


def _not_raced(seen: Subject, best: Trial, others: Sequence[Trial], direction: Direction) -> Iterator[Sentence]:
    """The best against the baseline and the runner-up. Its own seeds chose it, so they show nothing of it."""
    sign = direction.sign
    rivals = {min(others, key=lambda t: (sign * (t.value or 0.0), t.number)).number: "the runner-up"}
    rivals |= {t.number: "the baseline" for t in others if t.baseline}
    if best.baseline:
        yield Sentence(text="The best trial is a baseline: the search has found nothing better.", kind="warning")
    by_number = {t.number: t for t in others}
    for number, what in rivals.items():
        found = paired(best.values(), by_number[number].values(), direction)
        if found.difference is None:
            continue
        by = f"{figure(abs(found.difference))} {'better' if found.difference > 0 else 'worse'}"
        on = f"the {found.n} seeds that it was chosen by" if found.n > 1 else "the seed that it was chosen by"
        text = f"#{best.number} against {what} #{number}: {by if found.difference else 'alike'} on {on}; not confirmed."
        yield Sentence(text=text, kind="warning")
    luck = f"The best of {len(others) + 1} values is partly luck, whatever these seeds say"
    way = f"hpsearch confirm {seen.study}"
    yield Sentence(text=f"{luck}: expect less on fresh ones.", kind="warning", way_out=way)


def _looks(results: Results) -> Iterator[Sentence]:
    """That the test set was looked at; what was seen is not in a report."""
    seen = looks(results.archive.decisions(results.study.name))
    if not seen:
        return
    said = [
        f"#{one.trial} by {one.who} on {datetime.fromtimestamp(one.when, UTC):%Y-%m-%d} ({one.reason})" for one in seen
    ]
    several = len(seen) > 1
    times = f"{len(seen)} times" if several else "once"
    text = f"The test set was looked at {times}: {'; '.join(said)}."
    yield Sentence(text=text, kind="warning" if several else "note")


def _losses(seen: Subject) -> Iterator[Sentence]:
    for state, words in ((State.DIVERGED, "diverged"), (State.FAILED, "failed")):
        n = sum(t.state is state for t in seen.trials)
        if n and n < len(seen.trials):
            yield Sentence(text=f"{n} of {len(seen.trials)} trials {words}; they are in every picture.")
    reasons = [run.reason for t in seen.trials for run in t.runs if run.state is State.FAILED and run.reason]
    if reasons:
        common = max(dict.fromkeys(reasons), key=reasons.count)
        way = f"hpsearch show {seen.study}"
        yield Sentence(text=f"Most failed runs ended with: {common[:200]}", kind="warning", way_out=way)
