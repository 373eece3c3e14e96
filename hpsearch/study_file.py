"""The grammar of a study file: a tree of plain data -> ``Study``, with every mistake at once.

A part that cannot be read is noted and replaced by something harmless, so that the rest is still checked; what is then
said about the replacement is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, final

from hpsearch.document import Document, dotted
from hpsearch.document import Path as Place
from hpsearch.errors import ObjectiveError, Problem, StudyError, shown
from hpsearch.fields import ELSEWHERE, FIELDS, Fields
from hpsearch.objective import ObjectiveAddress, find
from hpsearch.options import FAMILIES, did_you_mean, pruner_of, strategy_of
from hpsearch.pruner import Pruner
from hpsearch.space import Categorical, Float, Int, Parameter, SearchSpace
from hpsearch.strategy import Strategy
from hpsearch.study import Study, textbook_baseline
from hpsearch.trial import Direction

#: what others call kinds of range, to be understood in a hint only
_OTHER_WORDS = {
    "loguniform": "log",
    "log_uniform": "log",
    "float": "uniform",
    "randint": "int",
    "categorical": "choice",
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
M = TypeVar("M")
_PLACE = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


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
        self._fields = Fields(document)

    def study(self, file: Path | None) -> Study:
        for name in self._data:
            if name not in FIELDS:
                hint = ELSEWHERE.get(name) or did_you_mean(name, list(FIELDS))
                self._fields.wrong((name,), "is no field of a study", hint=hint, key=True)
        search_space, strategy, objective = self._search_space(), self._strategy(), self._objective()
        metric, direction = self._metric()
        seeds, confirm_seeds = self._seeds()
        made = {
            "name": self._fields.text("name", required=True) or "x",
            "objective": objective,
            "search_space": search_space,
            "strategy": strategy,
            "pruner": self._pruner(),
            "metric": metric,
            "direction": direction,
            "seeds": seeds,
            "confirm_seeds": confirm_seeds,
            "seed": self._fields.whole("seed", 0),
            "n_trials": self._fields.whole("n_trials", None),
            "budget_s": self._fields.duration("budget"),
            "timeout_s": self._fields.duration("timeout"),
            "baselines": self._baselines(search_space, objective),
            "max_failures": self._fields.whole("max_failures", None),
            "keep": self._fields.whole("keep", 3),
            "isolate": self._fields.flag("isolate"),
            "threads": self._fields.whole("threads", 1),
            "description": self._fields.text("description"),
            "tags": self._fields.tags(),
            "file": file,
        }
        study = self._checked(made)
        if study is None or self._fields.problems:
            raise StudyError(sorted(self._fields.problems, key=_line), file=self._document.file)
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
                shaken = self._fields.broken & {"search_space", "strategy", "n_trials"} and (
                    top in ("search_space", "strategy", "baseline") or problem.message.startswith("is missing")
                )
                if top in self._fields.broken or shaken:
                    continue
                if top in FAMILIES:
                    field = self._of_member(top, field)
                path: Place = tuple(int(n) if n else name for n, name in _PLACE.findall(field))
                if top == "baseline" and isinstance(self._data.get("baseline"), Mapping):
                    path = (path[0], *path[2:])
                self._fields.note(replace(problem, field=field, hint=problem.hint or FIELDS.get(top, "")), path)
        return None

    def _of_member(self, family: str, field: str) -> str:
        """``strategy.batch`` as it is written: ``strategy.bayesian.batch``."""
        value = self._data.get(family)
        name = next(iter(value), "") if isinstance(value, Mapping) else value
        option = field.removeprefix(f"{family}.")
        return f"{family}.{name}.{option}" if isinstance(name, str) and option != field else field

    def _objective(self) -> ObjectiveAddress:
        value = self._data.get("objective")
        nowhere = ObjectiveAddress(source="nowhere", name="train", folder=self._folder)
        if isinstance(value, ObjectiveAddress):
            return value
        if value is None:
            self._fields.missing("objective")
            return nowhere
        source, _, name = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if not source or not name.isidentifier():
            self._fields.must(("objective",), "file.py:name or package.module:name", value)
            return nowhere
        address = ObjectiveAddress(source=source, name=name, folder=self._folder)
        try:
            find(address)
        except ObjectiveError as error:
            message = str(error).removeprefix(f"objective {address}: ")
            self._fields.wrong(("objective",), f"{shown(value)}: {message}", value, error.hint or FIELDS["objective"])
        return address

    def _metric(self) -> tuple[str, Direction]:
        value = self._data.get("metric")
        if value is None:
            self._fields.missing("metric")
        elif not isinstance(value, Mapping) or len(value) != 1:
            hint = FIELDS["metric"]
            if isinstance(value, str) and value.isprintable():
                hint = f"metric: {{{value[:60]}: minimize}}, or maximize"
            self._fields.wrong(("metric",), f"must be one name with its direction, not {shown(value)}", value, hint)
        else:
            name, direction = next(iter(value.items()))
            if isinstance(direction, str) and direction in list(Direction):
                return str(name), Direction(direction)
            message = f"the direction must be minimize or maximize, not {shown(direction)}"
            self._fields.wrong(
                ("metric", name), message, direction, did_you_mean(direction, [str(d) for d in Direction])
            )
        return "value", Direction.MINIMIZE

    def _seeds(self) -> tuple[tuple[int, ...], int]:
        value, confirm = self._data.get("seeds", 1), 8
        path: Place = ("seeds",)
        if isinstance(value, Mapping):
            for name in value.keys() - {"search", "confirm"}:
                hint = did_you_mean(name, ["search", "confirm"])
                self._fields.wrong(("seeds", name), "is no field of seeds", value[name], hint, key=True)
            confirm = value.get("confirm", 8)
            if isinstance(confirm, bool) or not isinstance(confirm, int):
                self._fields.must(("seeds", "confirm"), "a whole number", confirm)
                confirm = 8
            value, path = value.get("search", 1), ("seeds", "search")
        if isinstance(value, int) and not isinstance(value, bool):
            if 1 <= value <= 10_000:
                return tuple(range(value)), confirm
            self._fields.must(path, "from 1 to 10000, or a list of seeds", value)
        elif isinstance(value, list | tuple | range):
            if all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
                return tuple(value), confirm
            self._fields.must(path, "a list of whole numbers", value)
        else:
            self._fields.must(path, "a number of seeds or a list of them", value)
        return (0,), confirm

    def _strategy(self) -> Strategy:
        value = self._data.get("strategy", "random")
        if isinstance(value, Strategy):
            return value
        name, options = self._named("strategy", value)
        return self._member("strategy", strategy_of, name, options) or strategy_of("random", {})

    def _pruner(self) -> Pruner | None:
        value = self._data.get("pruner")
        if value is None or value is False or value == "none":
            return None
        if isinstance(value, Pruner):
            return value
        return self._member("pruner", pruner_of, *self._named("pruner", value))

    def _named(self, family: str, value: object) -> tuple[str, Mapping[str, object]]:
        """A member's name and its options; an empty name, and noted, where it is no such thing."""
        name: object = value
        options: object = {}
        if isinstance(value, Mapping) and len(value) == 1:
            name, options = next(iter(value.items()))
            options = {} if options is None else options
        if not isinstance(name, str):
            self._fields.must((family,), f"the name of a {family}, or one name with its options", value)
        elif not isinstance(options, Mapping):
            self._fields.must((family, name), "a mapping of options", options)
        else:
            return name, options
        return "", {}

    def _member(
        self, family: str, make: Callable[[str, Mapping[str, object]], M], name: str, options: Mapping[str, object]
    ) -> M | None:
        if family in self._fields.broken:
            return None
        try:
            return make(name, options)
        except StudyError as error:
            self._fields.broken.add(family)
            for problem in error.problems:
                path = tuple(int(n) if n else part for n, part in _PLACE.findall(problem.field))
                self._fields.note(problem, path, key="is no option" in problem.message)
        return None

    def _search_space(self) -> SearchSpace:
        value = self._data.get("search_space")
        harmless = SearchSpace({"x": Float(0, 1)})
        if isinstance(value, SearchSpace):
            return value
        if value is None:
            self._fields.missing("search_space")
        elif not isinstance(value, Mapping):
            self._fields.must(("search_space",), "a mapping of hyperparameters", value)
        else:
            made = {str(name): self._parameter(("search_space", name), inner) for name, inner in value.items()}
            if "search_space" not in self._fields.broken:
                return SearchSpace({name: p for name, p in made.items() if p is not None})
        return harmless

    def _parameter(self, path: Place, value: object) -> Parameter | None:
        """One hyperparameter in its short form; None, and noted, where it is none."""
        if isinstance(value, Float | Int | Categorical):
            return value
        if value is None:
            self._fields.wrong(
                path, "has no value", None, f"{dotted(path[1:])}: {{log: [1e-5, 1]}}, or a list of choices"
            )
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
            hint = f"did you mean {_OTHER_WORDS[key]}?" if not kinds and key in _OTHER_WORDS else hint
            if key in ("low", "high"):
                hint = f"{name}: {{log: [low, high]}}, or uniform, reverse_log, int, log_int"
            self._fields.wrong(
                (*path, key), f"is unknown here; its value is {shown(value[key])}", value[key], hint, key=True
            )
        if len(kinds) != 1 and not (unknown and not kinds):
            named = f"names {' and '.join(kinds)}" if kinds else f"names no kind of range: {shown(dict(value))}"
            self._fields.wrong(path, f"{named}; it needs one", value, f"one of {', '.join([*RANGES, 'choice'])}")
        if unknown or len(kinds) != 1:
            return None
        kind, ends = kinds[0], value[kinds[0]]
        place = (*path, kind)
        if kind == "choice":
            if not isinstance(ends, list | tuple):
                self._fields.wrong(place, f"must be a list, not {shown(ends)}", ends, f"{name}: [relu, tanh]")
                return None
            return self._made(path, {"choices": place}, Categorical, choices=tuple(ends))
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            self._fields.wrong(
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
            self._fields.broken.add("search_space")
            for problem in error.problems:
                field = dotted(path) if cls is Categorical else f"{dotted(path)}.{problem.field}"
                hint = problem.hint or f"{dotted(path[1:])}: {example}"
                self._fields.note(
                    replace(problem, field=field, hint=hint), places.get(problem.field, (*path, problem.field))
                )
            return None
        return parameter

    def _baselines(self, space: SearchSpace, objective: ObjectiveAddress) -> tuple[dict[str, Any], ...]:
        value = self._data.get("baseline")
        if value in (False, "none") or value == []:
            return ()
        if "search_space" in self._fields.broken:
            return ()
        if value is None:
            return (textbook_baseline(space, objective=objective),) if "lr" in space.searched else ()
        many = isinstance(value, list | tuple)
        made = []
        for k, given in enumerate(value if many else [value]):
            path: Place = ("baseline", k) if many else ("baseline",)
            if not isinstance(given, Mapping):
                self._fields.must(path, "a mapping of hyperparameters", given)
                continue
            for name in given.keys() - space.parameters.keys():
                hint = did_you_mean(name, list(space.parameters))
                message = f"is no hyperparameter of this study; its value is {shown(given[name])}"
                self._fields.wrong((*path, name), message, given[name], hint, key=True)
            made.append(textbook_baseline(space, given, objective))
        return tuple(made)


def _line(problem: Problem) -> tuple[int, int]:
    places = re.findall(r":(\d+)(?::(\d+))?$", problem.where)
    return (int(places[0][0]), int(places[0][1] or 0)) if places else (10**9, 0)
