"""Strategies and pruners by name, and their options checked against their fields. Pydantic's room.

A member is a frozen dataclass, and its fields are the schema of its options. So a new one is its file and one line in
``STRATEGIES`` or ``PRUNERS``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

from hpsearch.errors import Problem, StudyError, shown
from hpsearch.pruner import Pruner
from hpsearch.strategy import Strategy

if TYPE_CHECKING:
    from pydantic import BaseModel

#: name in a study file -> module and class; imported only when named
STRATEGIES: Mapping[str, tuple[str, str]] = {
    "grid": ("hpsearch.strategies.grid", "Grid"),
    "random": ("hpsearch.strategies.random", "Random"),
    "coarse_to_fine": ("hpsearch.strategies.coarse_to_fine", "CoarseToFine"),
    "bayesian": ("hpsearch.strategies.bayesian", "Bayesian"),
}
PRUNERS: Mapping[str, tuple[str, str]] = {
    "median": ("hpsearch.pruners.median", "Median"),
    "successive_halving": ("hpsearch.pruners.successive_halving", "SuccessiveHalving"),
    "hyperband": ("hpsearch.pruners.hyperband", "Hyperband"),
}
#: field of a study file -> its members
FAMILIES: Mapping[str, Mapping[str, tuple[str, str]]] = {"strategy": STRATEGIES, "pruner": PRUNERS}
#: other words for them, to be understood in a hint only: a study file has one word for one thing
_OTHER_WORDS = {
    "c2f": "coarse_to_fine",
    "coarse": "coarse_to_fine",
    "zoom": "coarse_to_fine",
    "bayes": "bayesian",
    "tpe": "bayesian",
    "gp": "bayesian",
    "optuna": "bayesian",
    "sobol": "random",
    "halving": "successive_halving",
    "sha": "successive_halving",
    "asha": "successive_halving",
    "bohb": "hyperband",
    "median_stopping": "median",
}


def did_you_mean(word: object, known: Sequence[str]) -> str:
    """``did you mean strategy?``, or all that are known where none is near."""
    plain = str(word)[:100].lower().replace("-", "_").replace(" ", "_")
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def strategy_of(name: str, options: Mapping[str, object]) -> Strategy:
    """The strategy of that name with these options, the others at their defaults.

    Raises:
        StudyError: no such strategy, or options it does not have or cannot take; fields ``strategy.<name>.<option>``.
    """
    strategy: Strategy = _member("strategy", name, options)
    return strategy


def pruner_of(name: str, options: Mapping[str, object]) -> Pruner:
    """The pruner of that name with these options, the others at their defaults.

    Raises:
        StudyError: no such pruner, or options it does not have or cannot take; fields ``pruner.<name>.<option>``.
    """
    pruner: Pruner = _member("pruner", name, options)
    return pruner


def schemas(family: str) -> dict[str, dict[str, Any]]:
    """Name of each member -> JSON Schema of its options."""
    made = {name: getattr(import_module(module), cls) for name, (module, cls) in FAMILIES[family].items()}
    return {name: _model(cls).model_json_schema() for name, cls in made.items()}


def _member(family: str, name: str, options: Mapping[str, object]) -> Any:
    known = FAMILIES[family]
    if name not in known:
        other = _OTHER_WORDS.get(name.lower())
        hint = f"did you mean {other}?" if other in known else did_you_mean(name, list(known))
        raise StudyError([Problem(field=family, message=f"{shown(name)} is no {family}", value=name, hint=hint)])
    module, cls = known[name]
    made = getattr(import_module(module), cls)
    if not options:
        return made()
    from pydantic import ValidationError

    try:
        # As JSON, where strict means: numbers are numbers, and a list will do for a tuple.
        checked = _model(made).model_validate_json(json.dumps(dict(options), default=shown))
    except ValidationError as error:
        raise StudyError(_problems(family, made, options, error)) from None
    given = {field: getattr(checked, field) for field in checked.model_fields_set}
    try:
        return made(**given)
    except StudyError as error:
        raise StudyError([_within(problem, family, name) for problem in error.problems]) from None


def _within(problem: Problem, family: str, name: str) -> Problem:
    from dataclasses import replace

    field = problem.field.removeprefix(family).removeprefix(".").removeprefix(name).removeprefix(".")
    return replace(problem, field=f"{family}.{name}.{field}".rstrip("."))


def _model(member: type[Strategy | Pruner]) -> type[BaseModel]:
    """A pydantic model with the dataclass's fields: a dataclass itself cannot be told to forbid others."""
    from pydantic import ConfigDict, create_model

    hints = get_type_hints(member)
    made: dict[str, Any] = {}
    for f in fields(member):  # type: ignore[arg-type]
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        made[f.name] = (hints[f.name], ... if default is MISSING else default)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model(member.__name__, __config__=config, **made)


#: pydantic's error type -> our words
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a string",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "is": "a mapping",
    "none": "null",
}


def _problems(family: str, member: type[Strategy | Pruner], options: Mapping[str, object], error: Any) -> list[Problem]:
    """Pydantic's errors in our words, one for each field (a union gives one for each member)."""
    wanted: dict[tuple[str | int, ...], list[str]] = {}
    for one in error.errors(include_url=False):
        path = _path(one["loc"], options, one["type"])
        wanted.setdefault(path, []).append(_words(one))
    names = [f.name for f in fields(member)]  # type: ignore[arg-type]
    problems = []
    for path, words in wanted.items():
        field = ".".join([family, member.name, *(p if str(p).isprintable() else shown(p) for p in map(str, path))])
        value = _value(options, path)
        if words == ["extra"]:
            message, hint = f"is no option of {member.name}", did_you_mean(path[-1], names)
            message += f"; its value is {shown(value)}"
        elif words == ["missing"]:
            message, hint = "is missing", ""
        else:
            message, hint = f"must be {' or '.join(dict.fromkeys(words))}, not {shown(value)}", ""
            hint = "remove the quotes" if isinstance(value, str) and "number" in message else "hpsearch schema"
        problems.append(Problem(field=field, message=message, value=value, hint=hint))
    return problems


def _words(one: Mapping[str, Any]) -> str:
    kind, ctx = one["type"], one.get("ctx", {})
    if kind in ("extra_forbidden", "missing"):
        return str(kind).removesuffix("_forbidden")
    if "expected" in ctx:
        return str(ctx["expected"])
    for limit, word in [("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")]:
        if limit in ctx:
            return f"{word} {ctx[limit]}"
    return _WANTED.get(str(kind).split("_")[0], "something else")


def _path(loc: Sequence[str | int], options: Mapping[str, object], kind: str) -> tuple[str | int, ...]:
    """``loc`` without pydantic's names for the members of a union: only what is there in the options."""
    path: list[str | int] = []
    node: object = options
    for part in loc:
        in_list = isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)
        if in_list or (isinstance(node, Mapping) and part in node):
            node = node[part]  # type: ignore[index]
        elif kind != "missing":
            continue
        path.append(part)
    return tuple(path)


def _value(node: Any, path: Sequence[str | int]) -> object:
    for part in path:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return None
    return node
