"""A study as one HTML page for someone who was not there: what is shown first, then the pictures, then the trials.

The page is one file: the pictures' JavaScript is in it, and opening it asks nothing of a network. All that comes from
the record (names, params, notes) is text in it, never markup.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import jinja2

from hpsearch import __version__
from hpsearch.confirm import Confirmation, confirmation
from hpsearch.errors import UsageError
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
    subject,
    theme,
    timeline,
)
from hpsearch.figures.subject import Subject, seeds_of
from hpsearch.gain import INDEPENDENT, more_trials
from hpsearch.importance import Importances
from hpsearch.importance import importances as importances_of
from hpsearch.parameter import Categorical, Value
from hpsearch.profile import edges_of
from hpsearch.results import Results
from hpsearch.ship import looks
from hpsearch.trial import Direction, State, Trial
from hpsearch.verdict import paired, spread

#: trials in the table: the best, then those without a value
ROWS = 200


@final
@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One thing that the page says, and how loud."""

    text: str
    #: ``result``, ``warning`` or ``note``
    kind: str = "note"
    #: what to type or to write into the study file; empty where there is nothing to do
    way_out: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with the sentence above it."""

    name: str
    sentence: str
    #: plotly JSON; safe within <script>
    json: str


def report(results: Results, path: Path) -> int:
    """Write the page and return its size in bytes. The file appears whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    text = page(results)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        draft = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return len(text.encode("utf-8", "replace"))


def page(results: Results) -> str:
    """The page, as HTML."""
    seen = subject.of(results)
    mattered = importances_of(seen.space, seen.trials, seen.direction)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return templates.get_template("report.html").render(
        study=results.study,
        seeds=results.study.spec["seeds"],
        strategy=seen.strategy,
        metric=seen.metric,
        direction=str(seen.direction),
        counts=[(str(state), n) for state, n in results.study.counts.items() if n],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        verdict=verdict_of(results),
        pictures=list(pictures(results, seen, mattered)),
        names=list(seen.space.parameters),
        rows=rows(seen),
        total=len(seen.trials),
        script=theme.javascript(),
    )


def verdict_of(results: Results) -> list[Sentence]:
    """What may be said of the study, the most important first; that one trial beats another only with an interval."""
    seen = subject.of(results)
    best = seen.best
    if not seen.trials:
        return [Sentence(text="Nothing has run yet.", kind="warning", way_out=f"hpsearch resume {seen.study}")]
    if best is None:
        return list(_without_best(seen))
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


def _without_best(seen: Subject) -> Iterator[Sentence]:
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
    else:
        yield Sentence(
            text=f"None of the {ended} trials that ended is complete: there is no result.",
            kind="warning",
            way_out=f"hpsearch show {seen.study}",
        )
    yield from _losses(seen)


def _best_sentence(seen: Subject, best: Trial) -> Sentence:
    found = spread(list(best.values().values()))
    alone = " (one seed: nobody knows the spread)"
    if found.low is not None:
        alone = f" (mean of {found.n} seeds; 95 % interval {found.low:.4g} to {found.high:.4g}, by {found.method})"
    params = ", ".join(f"{name} {_text(best.params[name])}" for name in seen.space.searched if name in best.params)
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
    if race.optimism is not None:
        yield Sentence(text=f"#{chosen}: {race.optimism.words}.", kind="result")
    left = [
        f"#{one.trial.number} ({one.outcome})" for one in race.contenders if one.outcome not in ("", "winner", "ties")
    ]
    if left:
        yield Sentence(text=f"Left the race: {'; '.join(left)}.")


def _not_raced(seen: Subject, best: Trial, others: Sequence[Trial], direction: Direction) -> Iterator[Sentence]:
    """The best against the baseline and the runner-up, on the search's own seeds."""
    sign = 1.0 if direction is Direction.MINIMIZE else -1.0
    rivals = {min(others, key=lambda t: (sign * (t.value or 0.0), t.number)).number: "the runner-up"}
    rivals |= {t.number: "the baseline" for t in others if t.baseline}
    if best.baseline:
        yield Sentence(text="The best trial is a baseline: the search has found nothing better.", kind="warning")
    by_number = {t.number: t for t in others}
    for number, what in rivals.items():
        names = (f"#{best.number}", f"{what} #{number}")
        found = paired(best.values(), by_number[number].values(), direction, comparisons=len(rivals), names=names)
        text = f"{names[0]} against {names[1]}: {found.words}."
        yield Sentence(text=text, kind="result" if found.beats else "warning")
    luck = f"The best of {len(others) + 1} values is partly luck, and these seeds are the ones that it was chosen by"
    way = f"hpsearch confirm {seen.study}"
    yield Sentence(text=f"{luck}: expect less on fresh ones.", kind="warning", way_out=way)


def _looks(results: Results) -> Iterator[Sentence]:
    """That the test set was looked at; what was seen is not in a report."""
    seen = looks(results.decisions)
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


def pictures(results: Results, seen: Subject, mattered: Importances) -> Iterator[Picture]:
    """The pictures that this study has something to show in."""
    if not seen.ended:
        return
    top = results.top(curves.TOP)
    yield _picture("history", "How the best value fell or rose, trial by trial.", history.figure(history.data(seen)))
    if top:
        told = results.archive.curves(seen.study, [t.number for t in top], [seen.metric])
        found = curves.data(seen, told)
        if found.lines:
            yield _picture("curves", "How the best trials learned, over their seeds.", curves.figure(found))
    name = lr_curve.parameter_of(seen)
    if name is not None:
        words = f"Good values of {name} lie where the line is best; trials that diverged are below."
        yield _picture("lr_curve", words, lr_curve.figure(lr_curve.data(seen, name)))
    zoomed = rounds.data(seen, results.decisions)
    if zoomed is not None:
        yield _picture("rounds", "Where each round looked, and where its best trial was.", rounds.figure(zoomed))
    axes = list(seen.space.searched)
    if not mattered.reason:
        words = "What set the best apart. Where whiskers overlap, the order is not sure."
        yield _picture("importances", words, importances.figure(importances.data(mattered)))
        axes = [share.name for share in mattered.fanova]
    if len(axes) > 1:
        words = f"{axes[0]} and {axes[1]} together, the others averaged."
        yield _picture("interaction", words, interaction.figure(interaction.data(seen, axes[0], axes[1])))
        words = f"How many values of {axes[0]} were tried: a grid tries few, random search a new one with every trial."
        found_grid = grid_or_random.data([seen], axes[0], axes[1])
        yield _picture("grid_or_random", words, grid_or_random.figure(found_grid))
        words = "Each line is a trial; the best ones are dark and thick."
        yield _picture("parallel", words, parallel.figure(parallel.data(seen)))
    yield from _details(results, seen, top)


def _details(results: Results, seen: Subject, top: Sequence[Trial]) -> Iterator[Picture]:
    if len(top) > 1 and len(top[0].runs) > 1:
        words = "The two best trials on the seeds they share: lines that cross are seeds that disagree."
        yield _picture("pairs", words, pairs.figure(pairs.data(seen, top[0], top[1])))
    if top and top[0].runs:
        key = top[0].runs[0].key
        norms = layers.data(f"{seen.study}/{key}", results.archive.layers(seen.study, key))
        if norms is not None:
            yield _picture("layers", "Gradients and weights of the best trial's first seed.", layers.figure(norms))
    lanes = timeline.data(seen)
    if lanes is not None:
        yield _picture("timeline", "Which worker trained what, and when it waited.", timeline.figure(lanes))


def _picture(name: str, sentence: str, figure: Any) -> Picture:
    plain = json.loads(figure.to_json())
    plain["layout"].pop("template", None)
    text = json.dumps(plain, separators=(",", ":"))
    # JSON within <script>: no text of the record may end it.
    return Picture(name=name, sentence=sentence, json=text.replace("<", "\\u003c").replace("&", "\\u0026"))


def rows(seen: Subject) -> list[dict[str, Any]]:
    """The table: the best trials first, then those without a value; at most 200."""
    sign = 1.0 if seen.direction == "minimize" else -1.0

    def place(t: Trial) -> tuple[int, float, int]:
        good = t.state is State.COMPLETE and t.value is not None
        return (0 if good else 1, sign * (t.value or 0.0) if good else 0.0, t.number)

    return [
        {
            "number": t.number,
            "state": str(t.state),
            "value": "–" if t.value is None else f"{t.value:.4g}",
            "sd": "" if t.sd is None else f"± {t.sd:.2g}",
            "n": seeds_of(t),
            "baseline": t.baseline,
            "params": [_text(t.params.get(name)) for name in seen.space.parameters],
        }
        for t in sorted(seen.trials, key=place)[:ROWS]
    ]


def _text(value: Value) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
