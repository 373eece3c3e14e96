"""The pictures of a study by their names, each with the sentence that goes above it: what every door shows.

picture("history", source_of(hp.load("digits"))).figure.show()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

from hpsearch.archive import Archive
from hpsearch.compare import confirmed
from hpsearch.compare import searches as searches_of
from hpsearch.errors import NotFoundError, UsageError
from hpsearch.figures import (
    curves,
    grid_or_random,
    history,
    importances,
    interaction,
    layers,
    lr_curve,
    pairs,
    parallel,
    rounds,
    run_metrics,
    searches,
    seeds,
    subject,
    timeline,
    trial_curves,
)
from hpsearch.figures.subject import Subject
from hpsearch.importance import Importances
from hpsearch.importance import importances as importances_of
from hpsearch.importance import order as importance_order
from hpsearch.results import Results
from hpsearch.strategy import Decision
from hpsearch.trial import RunKey, Stage, Trial, best_trials

if TYPE_CHECKING:
    import plotly.graph_objects as go


class BeingMade(Exception):
    """What a picture needs is not there yet; it will be in some seconds."""


@final
@dataclass(frozen=True)
class Source:
    """What pictures are made of: a study's record, or the part of it that a filter leaves."""

    subject: Subject
    decisions: Sequence[Decision]
    archive: Archive
    #: further studies, for pictures of several
    others: Sequence[Source] = ()
    #: who finds out what mattered, where that is to be somebody else; may raise ``BeingMade``
    mattered: Callable[[], Importances] | None = None
    ranked: Callable[[], list[str]] | None = None

    @cached_property
    def importances(self) -> Importances:
        """What mattered; a second of work, and a minute for many trials of many hyperparameters."""
        if self.mattered is not None:
            return self.mattered()
        return importances_of(self.subject.space, self.subject.trials, self.subject.direction)

    @cached_property
    def order(self) -> list[str]:
        """The searched hyperparameters, those that mattered most first; quick."""
        if self.ranked is not None:
            return self.ranked()
        return importance_order(self.subject.space, self.subject.trials, self.subject.direction)

    @cached_property
    def top(self) -> list[Trial]:
        """The trials whose curves are drawn, best first."""
        return best_trials(self.subject.trials, self.subject.direction, curves.TOP)


@final
@dataclass(frozen=True, kw_only=True)
class Options:
    """What a picture is to show, where it offers a choice; None: what says most."""

    #: hyperparameters
    x: str | None = None
    y: str | None = None
    #: numbers of trials
    trials: tuple[int, ...] = ()
    run: RunKey | None = None
    #: rounds up to this one, counted from 1
    round: int | None = None
    #: with a button that plays the rounds
    played: bool = False
    #: for a phone: panels one below the other, names cut short
    narrow: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with the sentence above it."""

    name: str
    sentence: str
    #: None where there is nothing to show, and ``sentence`` says why
    figure: go.Figure | None


def source_of(results: Results) -> Source:
    """A loaded study as pictures see it."""
    return Source(subject=subject.of(results), decisions=results.decisions, archive=results.archive)


def picture(name: str, source: Source, options: Options | None = None) -> Picture:
    """One picture.

    Raises:
        NotFoundError: there is none of this name, or no such trial.
        BeingMade: from ``source``.
        UsageError: a hyperparameter of ``options`` is not searched.
    """
    if name not in PICTURES:
        raise NotFoundError(f"there is no picture {name!r}", hint=f"there are {', '.join(PICTURES)}")
    options = options or Options()
    for axis in (options.x, options.y):
        if axis is not None and axis not in source.subject.space.searched:
            searched = ", ".join(source.subject.space.searched) or "none"
            raise UsageError(f"{axis!r} is no hyperparameter that is searched", hint=f"searched: {searched}")
    if not source.subject.ended and name not in OF_ONE and options.run is None:
        return Picture(name=name, sentence="No trial has ended yet.", figure=None)
    sentence, figure = PICTURES[name](source, options)
    if figure is not None and not figure.data:  # a picture that only says why there is none
        why = figure.layout.annotations[0].text
        sentence, figure = f"{why[:1].upper()}{why[1:]}.", None
    return Picture(name=name, sentence=sentence, figure=figure)


def pictures(source: Source) -> Iterator[Picture]:
    """The pictures that this study has something to show in, in the order of a report."""
    for name in (name for name in PICTURES if name not in OF_ONE):
        found = picture(name, source)
        if found.figure is not None:
            yield found


Drawn = tuple[str, "go.Figure | None"]


def _history(source: Source, options: Options) -> Drawn:
    found = history.data(source.subject)
    if not any(point.value is not None for point in found.points):
        return "No trial has a value.", None
    return "How the best value fell or rose, trial by trial.", history.figure(found)


def _curves(source: Source, options: Options) -> Drawn:
    seen = source.subject
    chosen = [_trial(source, n) for n in options.trials] or source.top
    told = source.archive.curves(seen.study, [t.number for t in chosen], [seen.metric]) if chosen else []
    if not options.trials:
        found = curves.data(seen, told)
        words = "How the best trials learned, over their seeds."
    else:
        fresh = confirmed(chosen)
        seeds = "fresh" if fresh else "the search's"
        found = curves.data(seen, told, chosen=chosen, stage=Stage.CONFIRM if fresh else Stage.SEARCH)
        words = f"How {_numbers(chosen)} learned, over {seeds} seeds."
    if not found.lines:
        return f"No trial has told {seen.metric} epoch by epoch.", None
    return words, curves.figure(found)


def _lr_curve(source: Source, options: Options) -> Drawn:
    name = options.x or lr_curve.parameter_of(source.subject)
    if name is None:
        return "No numeric hyperparameter is searched.", None
    found = lr_curve.data(source.subject, name)
    if not any(value is not None for _, value, _, _ in found.points):
        return f"No trial has a value; these are their places on {name}.", lr_curve.figure(found)
    where = "the line is" if found.quantile else "the dots are"
    below = "; trials that diverged are below" if lr_curve.lost(found) else ""
    return f"Good values of {name} lie where {where} best{below}.", lr_curve.figure(found)


def _rounds(source: Source, options: Options) -> Drawn:
    found = rounds.data(source.subject, source.decisions)
    if found is None:
        return "This strategy does not narrow the search space.", None
    if options.round is not None:
        found = rounds.until(found, min(options.round, found.rounds))
    return "Where each round looked, and where its best trial was.", rounds.figure(
        found, played=options.played, narrow=options.narrow
    )


def _importances(source: Source, options: Options) -> Drawn:
    found = source.importances
    if found.reason:
        return f"Nothing can be said of importance: {found.reason}.", None
    words = "What set the best apart. Where whiskers overlap, the order is not sure."
    return words, importances.figure(importances.data(found))


def axes_of(source: Source, x: str | None = None, y: str | None = None) -> tuple[str, str] | None:
    """Two hyperparameters: the chosen ones, else those that mattered most; None where there are no two."""
    if x is not None and y is not None and x != y:
        return x, y
    order = [name for name in source.order if name not in (x, y)]
    first = x or next(iter(order), None)
    second = next((name for name in (y, *order) if name not in (None, first)), None)
    return None if first is None or second is None else (first, second)


ONE = "Fewer than two hyperparameters are searched."


def _interaction(source: Source, options: Options) -> Drawn:
    axes = axes_of(source, options.x, options.y)
    if axes is None:
        return ONE, None
    words = f"{axes[0]} and {axes[1]} together, the others averaged."
    return words, interaction.figure(interaction.data(source.subject, *axes))


def _grid_or_random(source: Source, options: Options) -> Drawn:
    axes = axes_of(source, options.x, options.y)
    if axes is None:
        return ONE, None
    words = f"How many values of {axes[0]} were tried: a grid tries few, random search a new one with every trial."
    both = [other.subject for other in source.others if {*axes} <= other.subject.space.searched.keys()][:1]
    return words, grid_or_random.figure(grid_or_random.data([source.subject, *both], *axes), narrow=options.narrow)


def _searches(source: Source, options: Options) -> Drawn:
    seen = source.subject
    if not source.others:
        return "There is no other study to compare with.", None
    studies = [source, *source.others]
    if len({(one.subject.metric, one.subject.direction) for one in studies}) > 1:
        return "These studies measure different things.", None
    found = searches_of([(one.archive.study(one.subject.study), one.subject.trials) for one in studies])
    words = "The best value that each had found after as many trials."
    return words, searches.figure(searches.data(seen.metric, found))


def _parallel(source: Source, options: Options) -> Drawn:
    if len(source.subject.space.searched) < 2:
        return ONE, None
    words = "Each line is a trial: the stronger its blue, the better it is, and the best are thick."
    return words, parallel.figure(parallel.data(source.subject), narrow=options.narrow)


def _pairs(source: Source, options: Options) -> Drawn:
    chosen = [_trial(source, n) for n in options.trials] or source.top
    if len(chosen) < 2:
        return "There are no two trials with a value.", None
    if not (options.trials or len(chosen[0].runs) > 1):
        return "With one seed a trial there is nothing to compare seed by seed.", None
    which = f"#{chosen[0].number} and #{chosen[1].number}" if options.trials else "The two best trials"
    fresh = bool(options.trials) and confirmed(chosen[:2])
    shared = "fresh seeds they were confirmed with" if fresh else "seeds they share"
    words = f"{which} on the {shared}: lines that cross are seeds that disagree."
    return words, pairs.figure(pairs.data(source.subject, chosen[0], chosen[1], confirmed=fresh))


def _seeds(source: Source, options: Options) -> Drawn:
    found = seeds.data(source.subject)
    if not found.rows:
        return "No trial is complete.", None
    words = f"Whether the best {len(found.rows)} trials differ by more than their seeds do."
    return words if len(found.rows) > 1 else "The only complete trial, seed by seed.", seeds.figure(found)


def _trial_curves(source: Source, options: Options) -> Drawn:
    seen = source.subject
    chosen = [_trial(source, n) for n in options.trials[:1]] or source.top[:1]
    if not chosen:
        return "No trial has a value.", None
    found = trial_curves.data(seen, chosen[0], source.archive.curves(seen.study, [chosen[0].number], [seen.metric]))
    if not found.lines:
        return f"No run of #{chosen[0].number} has told {seen.metric} epoch by epoch.", None
    return f"{seen.metric} of #{chosen[0].number}, a line a run.", trial_curves.figure(found)


def _run_metrics(source: Source, options: Options) -> Drawn:
    seen = source.subject
    key = options.run or next((run.key for trial in source.top[:1] for run in trial.runs), None)
    if key is None:
        return "No trial has a value.", None
    run = next((run for run in _trial(source, key.trial).runs if run.key == key), None)
    if run is None:
        raise NotFoundError(f"{seen.study} has no run {key}", hint=f"hpsearch show {seen.study}/{key.trial}")
    told = [curve for curve in source.archive.curves(seen.study, [key.trial]) if curve.run == key]
    found = run_metrics.data(f"{seen.study}/{key}", seen.metric, told, run.best_epoch)
    if not found.curves:
        return f"{seen.study}/{key} has told no metric epoch by epoch.", None
    return f"All that {seen.study}/{key} has told, epoch by epoch.", run_metrics.figure(found)


def _layers(source: Source, options: Options) -> Drawn:
    chosen = [_trial(source, n) for n in options.trials] or source.top
    key = options.run or (chosen[0].runs[0].key if chosen and chosen[0].runs else None)
    if key is None:
        return "No trial has a value.", None
    study = source.subject.study
    found = layers.data(f"{study}/{key}", source.archive.layers(study, key))
    if found is None:
        return "No layer norms were recorded; run.watch(model) or a TrainingTask records them.", None
    which = f"of {study}/{key}" if options.run or options.trials else "of the best trial's first seed"
    return f"Gradients and weights {which}.", layers.figure(found, narrow=options.narrow)


def _timeline(source: Source, options: Options) -> Drawn:
    found = timeline.data(source.subject)
    if found is None:
        return "No run has ended yet.", None
    return "Which worker trained what, and when it waited.", timeline.figure(found)


def _numbers(trials: Sequence[Trial]) -> str:
    """``#3``, ``#3 and #5``, ``#3, #5 and #7``."""
    names = [f"#{trial.number}" for trial in trials]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _trial(source: Source, number: int) -> Trial:
    for trial in source.subject.trials:
        if trial.number == number:
            return trial
    raise NotFoundError(f"{source.subject.study} has no trial {number}", hint=f"hpsearch show {source.subject.study}")


#: in the order of a report
PICTURES: dict[str, Callable[[Source, Options], Drawn]] = {
    "history": _history,
    "curves": _curves,
    "lr_curve": _lr_curve,
    "rounds": _rounds,
    "importances": _importances,
    "interaction": _interaction,
    "grid_or_random": _grid_or_random,
    "parallel": _parallel,
    "seeds": _seeds,
    "searches": _searches,
    "pairs": _pairs,
    "layers": _layers,
    "timeline": _timeline,
    "trial_curves": _trial_curves,
    "run_metrics": _run_metrics,
}
#: of one trial or run, which may be running still; a report of a study leaves them out
OF_ONE = frozenset(["trial_curves", "run_metrics"])
