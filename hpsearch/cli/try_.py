"""``hpsearch try``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hpsearch.cli.plan import overrides
from hpsearch.cli.settings import COMMON, Common, device
from hpsearch.cli.terminal import duration, number, out, out_json, params_text, say
from hpsearch.errors import Problem, StudyError, UsageError
from hpsearch.space import Categorical, Float, SearchSpace, Value
from hpsearch.space import Parameter as Hyperparameter
from hpsearch.trial import EpochReport, Finished, State

if TYPE_CHECKING:
    from hpsearch.trial import Lost


def try_(
    file: Path,
    /,
    *settings: str,
    seed: int | None = None,
    device_: Annotated[str | None, Parameter(name="--device")] = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    common: Common = COMMON,
) -> int:
    """Train one setting by hand, now; nothing is recorded.

    Args:
        file: The study file.
        settings: Hyperparameters as lr=0.01; those left out are as in the study's baseline, or its first setting.
        seed: The run's seed; default: the first of the study.
        device_: auto, cpu, cuda, cuda:1 ...
        set_: Change a field of the study file: --set timeout=1m; may be given again.
    """
    from hpsearch.launch import attempt
    from hpsearch.plan import plan
    from hpsearch.read import read_study

    study = read_study(file, overrides(set_))
    given = _params(settings, study.search_space)
    params = {**[*study.baselines, *plan(study, show=1).first][0], **given}
    epochs: list[dict[str, Any]] = []

    def on_report(report: EpochReport) -> None:
        epochs.append({"epoch": report.epoch, **report.metrics})
        if not common.json and not common.quiet:
            metrics = "  ".join(f"{name} {number(value)}" for name, value in report.metrics.items())
            out(f"epoch {report.epoch:<4} {metrics}")

    if not common.quiet:
        say(f"{study.name}  {params_text(params, 6)}", style="dim")
    last = attempt(study, params, device=device(device_), seed=seed, on_report=on_report)
    good = isinstance(last, Finished) and last.state in (State.COMPLETE, State.PRUNED, State.DIVERGED)
    if common.json:
        out_json({"study": study.name, "params": params, "epochs": epochs, **_json(last)})
    elif isinstance(last, Finished):
        if last.error:
            say(last.error.rstrip())
        out(_ending(last, study.metric))
    else:
        say(f"the worker is gone: {last.cause}", style="red")
    return 0 if good else 4


def _ending(last: Finished, metric: str) -> str:
    value = "" if last.value is None else f"  {metric} {number(last.value, 6)} (best epoch {last.best_epoch})"
    reason = f": {last.reason}" if last.reason else ""
    return f"{last.state}{reason}{value}  in {duration(last.seconds)}"


def _json(last: Finished | Lost) -> dict[str, Any]:
    if isinstance(last, Finished):
        names = ("state", "value", "best_epoch", "last_epoch", "reason", "error", "seconds")
        return {name: getattr(last, name) for name in names}
    return {"state": "lost", "reason": last.cause}


def _params(settings: tuple[str, ...], space: SearchSpace) -> dict[str, Value]:
    """``lr=0.01`` as a value of its parameter. It may lie outside the range: trying is what this is for.

    Raises:
        UsageError: no assignment. StudyError: no such hyperparameter, or no value for it; all of them.
    """
    found: dict[str, Value] = {}
    problems = []
    for text in settings:
        name, equals, word = text.partition("=")
        if not equals:
            raise UsageError(f"{text!r} sets no hyperparameter", hint="lr=0.01")
        if name not in space.parameters:
            problems.append(Problem(field=name, message="no such hyperparameter", hint=", ".join(space.parameters)))
            continue
        try:
            found[name] = _value(word, space.parameters[name])
        except ValueError as error:
            problems.append(Problem(field=name, message=str(error), value=word))
    if problems:
        raise StudyError(problems)
    return found


def _value(word: str, parameter: Hyperparameter) -> Value:
    if isinstance(parameter, Categorical):
        words = {_word(choice): choice for choice in parameter.choices}
        if word not in words:
            raise ValueError(f"{word!r} is none of {', '.join(words)}")
        return words[word]
    try:
        return float(word) if isinstance(parameter, Float) else int(word)
    except ValueError:
        kind = "number" if isinstance(parameter, Float) else "whole number"
        raise ValueError(f"{word!r} is no {kind}") from None


def _word(choice: Value) -> str:
    """A choice as a study file spells it."""
    return json.dumps(choice) if choice is None or isinstance(choice, bool) else str(choice)
