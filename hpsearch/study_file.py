"""The grammar of a study file: a tree of plain data -> ``Study``, with every mistake at once.

A part that cannot be read is noted and replaced by something harmless, so that the rest is still checked; what is then
said about the replacement is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from hpsearch.document import Document, dotted
from hpsearch.document import Path as Place
from hpsearch.errors import ObjectiveError, Problem, StudyError, shown
from hpsearch.objective import ObjectiveAddress, find
from hpsearch.options import did_you_mean, strategy_of
from hpsearch.space import Categorical, Float, Int, Parameter, SearchSpace
from hpsearch.strategy import Strategy
from hpsearch.study import Study, textbook_baseline
from hpsearch.trial import Direction

#: field -> an example, which is the hint where it is missing or wrong
FIELDS: Mapping[str, str] = {
    "name": "name: digits-mlp",
    "description": "description: how wide and how fast",
    "tags": "tags: [mlp, digits]",
    "objective": "objective: train.py:train",
    "search_space": "search_space: {lr: {log: [1e-5, 1]}}",
    "strategy": "strategy: random, or strategy: {coarse_to_fine: {shrink: 0.5}}",
    "metric": "metric: {val_loss: minimize}",
    "seeds": "seeds: 5, or seeds: [0, 1, 2], or seeds: {search: 1, confirm: 8}",
    "seed": "seed: 0",
    "n_trials": "n_trials: 64",
    "budget": "budget: 2h, or 90m, 1h30m, 45s, or seconds as a number",
    "timeout": "timeout: 10m, or 1h30m, 45s, or seconds as a number",
    "baseline": "baseline: {lr: 0.01}, or a list of such, or false for none",
    "max_failures": "max_failures: 5",
    "isolate": "isolate: true",
    "threads": "threads: 1",
}
#: fields one might expect -> where to say it instead
ELSEWHERE: Mapping[str, str] = {
    "workers": "how many workers is said when it runs: hpsearch run STUDY --workers 2",
    "device": "where it runs is said when it runs: hpsearch run STUDY --device cuda:0",
    "pruner": "pruners come with fused trials, in a later version; leave it out",
    "prune": "pruners come with fused trials, in a later version; leave it out",
    "direction": "the direction stands with the metric: metric: {val_loss: minimize}",
    "notes": "write it under description",
    "parameters": "hyperparameters stand under search_space",
    "trials": "the number of trials is n_trials",
}
#: kind of range -> the fields of Float or Int that it sets, and an example
RANGES: Mapping[str, tuple[type[Float] | type[Int], dict[str, bool], str]] = {
    "log": (Float, {"log": True}, "[1e-5, 1]"),
    "uniform": (Float, {}, "[0, 0.5]"),
    "reverse_log": (Float, {"reverse_log": True}, "[0.5, 0.999]"),
    "int": (Int, {}, "[1, 8]"),
    "log_int": (Int, {"log": True}, "[16, 1024]"),
}
RANGE_OPTIONS = ("step", "points", "hard_low", "hard_high")
_DURATION = re.compile(r"(?:([\d.]+)d)?\s*(?:([\d.]+)h)?\s*(?:([\d.]+)m)?\s*(?:([\d.]+)s)?")
_PLACE = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_BAD = object()


def build(document: Document, folder: Path, file: Path | None = None) -> Study:
    """The study that ``document`` describes; ``folder`` is what its objective is relative to.

    Raises:
        StudyError: with every mistake in it, in the order of their lines.
    """
    return _Builder(document, folder).study(file)


@final
class _Builder:
    def __init__(self, document: Document, folder: Path) -> None:
        self._document = document
        self._data = document.data
        self._folder = folder
        self._problems = list(document.problems)
        #: fields (dotted) of the study for which a replacement stands in
        self._broken: set[str] = set()

    def study(self, file: Path | None) -> Study:
        for name in self._data:
            if name not in FIELDS:
                hint = ELSEWHERE.get(name) or did_you_mean(name, list(FIELDS))
                self._wrong((name,), "is no field of a study", hint=hint, key=True)
        search_space, strategy, objective = self._search_space(), self._strategy(), self._objective()
        metric, direction = self._metric()
        seeds, confirm_seeds = self._seeds()
        made = {
            "name": self._text("name", required=True) or "x",
            "objective": objective,
            "search_space": search_space,
            "strategy": strategy,
            "metric": metric,
            "direction": direction,
            "seeds": seeds,
            "confirm_seeds": confirm_seeds,
            "seed": self._whole("seed", 0),
            "n_trials": self._whole("n_trials", None),
            "budget_s": self._duration("budget"),
            "timeout_s": self._duration("timeout"),
            "baselines": self._baselines(search_space, objective),
            "max_failures": self._whole("max_failures", None),
            "isolate": self._flag("isolate"),
            "threads": self._whole("threads", 1),
            "description": self._text("description"),
            "tags": self._tags(),
            "file": file,
        }
        study = self._checked(made)
        if study is None or self._problems:
            raise StudyError(sorted(self._problems, key=_line), file=self._document.file)
        return study

    def _checked(self, made: dict[str, Any]) -> Study | None:
        """The study; or None, with what its own check says of all that is not broken already."""
        try:
            return Study(**made)
        except StudyError as error:
            for problem in error.problems:
                field = problem.field.replace("budget_s", "budget").replace("timeout_s", "timeout")
                field = field.replace("confirm_seeds", "seeds.confirm").replace("baselines", "baseline")
                top = re.split(r"[.\[]", field)[0]
                shaken = self._broken & {"search_space", "strategy"} and (
                    top in ("search_space", "strategy", "baseline") or problem.message.startswith("is missing")
                )
                if top in self._broken or shaken:
                    continue
                path: Place = tuple(int(n) if n else name for n, name in _PLACE.findall(field))
                if top == "baseline" and isinstance(self._data.get("baseline"), Mapping):
                    path = (path[0], *path[2:])
                self._note(replace(problem, field=field, hint=problem.hint or FIELDS.get(top, "")), path)
        return None

    def _note(self, problem: Problem, path: Place, *, key: bool = False) -> None:
        where = problem.where or self._document.where(path, key=key)
        self._problems.append(replace(problem, where=where))

    def _wrong(self, path: Place, message: str, value: object = None, hint: str = "", *, key: bool = False) -> object:
        self._broken.add(str(path[0]))
        self._note(Problem(field=dotted(path), message=message, value=value, hint=hint), path, key=key)
        return _BAD

    def _must(self, path: Place, what: str, value: object) -> None:
        hint = FIELDS.get(str(path[0]), "")
        if isinstance(value, str) and "number" in what and re.fullmatch(r"[-+.\deE_,]+", value):
            hint = f"write the number without quotes, commas and underscores; {hint}"
        self._wrong(path, f"must be {what}, not {shown(value)}", value, hint)

    def _text(self, name: str, *, required: bool = False) -> str:
        value = self._data.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            self._must((name,), "a string", value)
        elif required:
            self._missing(name)
        return ""

    def _missing(self, name: str) -> None:
        self._wrong((name,), "is missing" if name not in self._data else "has no value", None, FIELDS[name])

    def _whole(self, name: str, default: Any) -> Any:
        value = self._data.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self._must((name,), "a whole number", value)
            return default
        return value

    def _flag(self, name: str) -> bool:
        value = self._data.get(name, False)
        if not isinstance(value, bool):
            self._must((name,), "true or false", value)
            return False
        return value

    def _tags(self) -> tuple[str, ...]:
        value = self._data.get("tags")
        tags = [value] if isinstance(value, str) else value or []
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) and tag for tag in tags):
            self._must(("tags",), "a list of strings", value)
            return ()
        return tuple(tags)

    def _duration(self, name: str) -> float | None:
        value = self._data.get(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                return float("inf")
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        try:
            parts = [float(part) if part else 0.0 for part in match.groups()] if match and match[0] else None
        except ValueError:  # 1.2.3h
            parts = None
        if parts is None:
            self._must((name,), "a time", value)
            return None
        return sum(part * seconds for part, seconds in zip(parts, (86400, 3600, 60, 1), strict=True))

    def _objective(self) -> ObjectiveAddress:
        value = self._data.get("objective")
        nowhere = ObjectiveAddress(source="nowhere", name="train", folder=self._folder)
        if isinstance(value, ObjectiveAddress):
            return value
        if value is None:
            self._missing("objective")
            return nowhere
        source, _, name = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if not source or not name.isidentifier():
            self._must(("objective",), "file.py:name or package.module:name", value)
            return nowhere
        address = ObjectiveAddress(source=source, name=name, folder=self._folder)
        try:
            find(address)
        except ObjectiveError as error:
            message = str(error).removeprefix(f"objective {address}: ")
            self._wrong(("objective",), f"{shown(value)}: {message}", value, error.hint or FIELDS["objective"])
        return address

    def _metric(self) -> tuple[str, Direction]:
        value = self._data.get("metric")
        if value is None:
            self._missing("metric")
        elif not isinstance(value, Mapping) or len(value) != 1:
            hint = FIELDS["metric"]
            if isinstance(value, str) and value.isprintable():
                hint = f"metric: {{{value[:60]}: minimize}}, or maximize"
            self._wrong(("metric",), f"must be one name with its direction, not {shown(value)}", value, hint)
        else:
            name, direction = next(iter(value.items()))
            if isinstance(direction, str) and direction in list(Direction):
                return str(name), Direction(direction)
            message = f"the direction must be minimize or maximize, not {shown(direction)}"
            self._wrong(("metric", name), message, direction, did_you_mean(direction, [str(d) for d in Direction]))
        return "value", Direction.MINIMIZE

    def _seeds(self) -> tuple[tuple[int, ...], int]:
        value, confirm = self._data.get("seeds", 1), 8
        path: Place = ("seeds",)
        if isinstance(value, Mapping):
            for name in value.keys() - {"search", "confirm"}:
                hint = did_you_mean(name, ["search", "confirm"])
                self._wrong(("seeds", name), "is no field of seeds", value[name], hint, key=True)
            confirm = value.get("confirm", 8)
            if isinstance(confirm, bool) or not isinstance(confirm, int):
                self._must(("seeds", "confirm"), "a whole number", confirm)
                confirm = 8
            value, path = value.get("search", 1), ("seeds", "search")
        if isinstance(value, int) and not isinstance(value, bool):
            if 1 <= value <= 10_000:
                return tuple(range(value)), confirm
            self._must(path, "from 1 to 10000, or a list of seeds", value)
        elif isinstance(value, list | tuple | range):
            if all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
                return tuple(value), confirm
            self._must(path, "a list of whole numbers", value)
        else:
            self._must(path, "a number of seeds or a list of them", value)
        return (0,), confirm

    def _strategy(self) -> Strategy:
        value = self._data.get("strategy", "random")
        if isinstance(value, Strategy):
            return value
        name: object = value
        options: object = {}
        if isinstance(value, Mapping) and len(value) == 1:
            name, options = next(iter(value.items()))
            options = {} if options is None else options
        if not isinstance(name, str):
            self._must(("strategy",), "the name of a strategy, or one name with its options", value)
        elif not isinstance(options, Mapping):
            self._must(("strategy", name), "a mapping of options", options)
        else:
            try:
                return strategy_of(name, options)
            except StudyError as error:
                self._broken.add("strategy")
                for problem in error.problems:
                    path = tuple(int(n) if n else part for n, part in _PLACE.findall(problem.field))
                    self._note(problem, path, key="is no option" in problem.message)
        return strategy_of("random", {})

    def _search_space(self) -> SearchSpace:
        value = self._data.get("search_space")
        harmless = SearchSpace({"x": Float(0, 1)})
        if isinstance(value, SearchSpace):
            return value
        if value is None:
            self._missing("search_space")
        elif not isinstance(value, Mapping):
            self._must(("search_space",), "a mapping of hyperparameters", value)
        else:
            made = {str(name): self._parameter(("search_space", name), inner) for name, inner in value.items()}
            if "search_space" not in self._broken:
                return SearchSpace({name: p for name, p in made.items() if p is not None})
        return harmless

    def _parameter(self, path: Place, value: object) -> Parameter | None:
        """One hyperparameter in its short form; None, and noted, where it is none."""
        if isinstance(value, Float | Int | Categorical):
            return value
        if value is None:
            self._wrong(path, "has no value", None, f"{dotted(path[1:])}: {{log: [1e-5, 1]}}, or a list of choices")
            return None
        if isinstance(value, Mapping):
            return self._range(path, value)
        choices = value if isinstance(value, list | tuple) else (value,)
        return self._made(path, {"choices": path}, Categorical, choices=tuple(choices))

    def _range(self, path: Place, value: Mapping[str, object]) -> Parameter | None:
        name = dotted(path[1:])
        # ``log: true`` beside ``int`` is a flag, not a kind.
        flags = {"log": value["log"]} if "int" in value and isinstance(value.get("log"), bool) else {}
        kinds = [key for key in value if key in (*RANGES, "choice") and key not in flags]
        options = {key: inner for key, inner in value.items() if key not in kinds and key not in flags}
        allowed = RANGE_OPTIONS if kinds != ["choice"] else ()
        unknown = [key for key in options if key not in allowed]
        for key in unknown:
            hint = did_you_mean(key, [*RANGES, "choice", *allowed] if not kinds else list(allowed) or ["choice"])
            if key in ("low", "high"):
                hint = f"{name}: {{log: [low, high]}}, or uniform, reverse_log, int, log_int"
            self._wrong((*path, key), f"is unknown here; its value is {shown(value[key])}", value[key], hint, key=True)
        if len(kinds) != 1 and not (unknown and not kinds):
            named = f"names {' and '.join(kinds)}" if kinds else f"names no kind of range: {shown(dict(value))}"
            self._wrong(path, f"{named}; it needs one", value, f"one of {', '.join([*RANGES, 'choice'])}")
        if unknown or len(kinds) != 1:
            return None
        kind, ends = kinds[0], value[kinds[0]]
        place = (*path, kind)
        if kind == "choice":
            if not isinstance(ends, list | tuple):
                self._wrong(place, f"must be a list, not {shown(ends)}", ends, f"{name}: [relu, tanh]")
                return None
            return self._made(path, {"choices": place}, Categorical, choices=tuple(ends))
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            self._wrong(
                place, f"must be [low, high], not {shown(ends)}", ends, f"{name}: {{{kind}: {RANGES[kind][2]}}}"
            )
            return None
        cls, fixed, _ = RANGES[kind]
        places = {"low": (*place, 0), "high": (*place, 1)}
        return self._made(path, places, cls, low=ends[0], high=ends[1], **{**fixed, **flags, **options})

    def _made(self, path: Place, places: Mapping[str, Place], cls: Any, **fields: Any) -> Parameter | None:
        example = (
            "[relu, tanh]" if cls is Categorical else f"{{{places['low'][2]}: {RANGES[str(places['low'][2])][2]}}}"
        )
        try:
            parameter: Parameter = cls(**fields)
        except StudyError as error:
            self._broken.add("search_space")
            for problem in error.problems:
                field = dotted(path) if cls is Categorical else f"{dotted(path)}.{problem.field}"
                hint = problem.hint or f"{dotted(path[1:])}: {example}"
                self._note(replace(problem, field=field, hint=hint), places.get(problem.field, (*path, problem.field)))
            return None
        return parameter

    def _baselines(self, space: SearchSpace, objective: ObjectiveAddress) -> tuple[dict[str, Any], ...]:
        value = self._data.get("baseline")
        if value in (False, "none") or value == []:
            return ()
        if "search_space" in self._broken:
            return ()
        if value is None:
            return (textbook_baseline(space, objective=objective),) if "lr" in space.searched else ()
        many = isinstance(value, list | tuple)
        made = []
        for k, given in enumerate(value if many else [value]):
            path: Place = ("baseline", k) if many else ("baseline",)
            if not isinstance(given, Mapping):
                self._must(path, "a mapping of hyperparameters", given)
                continue
            for name in given.keys() - space.parameters.keys():
                hint = did_you_mean(name, list(space.parameters))
                message = f"is no hyperparameter of this study; its value is {shown(given[name])}"
                self._wrong((*path, name), message, given[name], hint, key=True)
            made.append(textbook_baseline(space, given, objective))
        return tuple(made)


def _line(problem: Problem) -> tuple[int, int]:
    places = re.findall(r":(\d+)(?::(\d+))?$", problem.where)
    return (int(places[0][0]), int(places[0][1] or 0)) if places else (10**9, 0)
