"""Study files, in YAML, TOML or Python, and stored specs -> ``Study``.

``options`` knows the strategies' options, ``document`` the text, ``study_file`` the fields; here are the ways in.
A study in Python is the one case where reading a study runs its code.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any

from hpsearch.archive import StudySummary
from hpsearch.document import Document, parse
from hpsearch.errors import ObjectiveError, Problem, StudyError, UsageError, shown
from hpsearch.fields import FIELDS
from hpsearch.objective import ObjectiveAddress, find
from hpsearch.options import FAMILIES, pruner_of, schemas, strategy_of
from hpsearch.pruner import Pruner
from hpsearch.space import Categorical, Float, Int, Parameter, SearchSpace
from hpsearch.strategy import Strategy
from hpsearch.study import Study
from hpsearch.study_file import RANGE_OPTIONS, RANGES, build
from hpsearch.trial import Direction

_SUFFIXES = (".yaml", ".yml", ".toml", ".py")
_TYPES: Mapping[str, type[Parameter]] = {"Float": Float, "Int": Int, "Categorical": Categorical}


def read_study(path: Path | str, overrides: Mapping[str, object] | None = None) -> Study:
    """The study in a file: ``.yaml``, ``.yml``, ``.toml``, or ``.py`` that defines ``study = hp.define(...)``.

    ``overrides``: dotted field -> YAML text (``{"search_space.lr.points": "5"}``) or a value; as ``--set`` gives them.
    Only a ``.py`` file is executed; its folder is importable meanwhile.

    Raises:
        StudyError: no such file, or with every mistake in it, each a Problem with ``file:line:column``.
    """
    file, name = Path(path), str(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "there is no such file"
        near = _near_files(file)
        hint = f"did you mean {near}?" if near else "hpsearch init writes a study to start from"
        raise StudyError([Problem(field="file", message=f"{shown(name)}: {what}", hint=hint, where=name)], file=name)
    if file.suffix.lower() not in _SUFFIXES:
        message = f"{shown(file.name)} is no study file: it ends with none of {', '.join(_SUFFIXES)}"
        raise StudyError([Problem(field="file", message=message, where=name)], file=name)
    try:
        raw = file.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise StudyError([Problem(field="file", message=message, where=name)], file=name) from error
    if file.suffix.lower() == ".py":
        study = replace(_run_python(raw, file.resolve(), name), file=file.resolve())
        return _overridden(study, overrides, name) if overrides else study
    document = parse(raw, name)
    for field, value in (overrides or {}).items():
        document.override(field, value)
    return build(document, file.resolve().parent, file.resolve())


def define(**fields: object) -> Study:
    """A study written in Python: the fields of a study file, in the same short forms.

    Beside them ``objective`` may be the training function or TrainingTask itself (found again by its file and name),
    ``search_space`` may hold ``hp.Float(...)``, ``hp.Int(...)``, ``hp.Categorical(...)``, and ``strategy`` and
    ``pruner`` may be ``hp.Random()``, ``hp.Median()`` and the like. Relative paths are relative to the calling file.

        study = hp.define(name="digits", objective=train, search_space={"lr": {"log": [1e-5, 1]}},
                          metric={"val_loss": "minimize"}, strategy="random", n_trials=64, seeds=5)

    Raises:
        StudyError: with every mistake, each a Problem that names the line of this call.
    """
    caller: FrameType | None = inspect.currentframe()
    caller = caller.f_back if caller else None
    source = caller.f_globals.get("__file__") if caller else None
    folder = Path(source).resolve().parent if source else Path.cwd()
    document = Document(file=source or "", data=dict(fields))
    if source and caller:
        document.values[()] = str(caller.f_lineno)
    return build(_with_address(document, folder), folder)


def study_of(spec: Mapping[str, Any], folder: Path) -> Study:
    """The study whose ``study.spec_of`` this is; ``folder`` is what its objective is relative to.

    Its file and its training code need not be there any more.

    Raises:
        StudyError: a strategy that is not among those known by name, or a spec of another version.
    """
    try:
        made = {f.name: spec[f.name] for f in fields(Study) if f.name in spec}
        source, _, name = spec["objective"].rpartition(":")
        made["objective"] = ObjectiveAddress(source=source, name=name, folder=folder)
        made["search_space"] = space_of(spec)
        options = {key: value for key, value in spec["strategy"].items() if key != "name"}
        made["strategy"] = strategy_of(spec["strategy"]["name"], options)
        if spec.get("pruner"):
            options = {key: value for key, value in spec["pruner"].items() if key != "name"}
            made["pruner"] = pruner_of(spec["pruner"]["name"], options)
    except (KeyError, TypeError, AttributeError) as error:
        message = f"the stored spec cannot be read: {type(error).__name__}: {error}"
        raise StudyError([Problem(field="spec", message=message, hint="was it stored by another version?")]) from error
    made["direction"] = Direction(spec["direction"])
    for field in ("seeds", "tags"):
        made[field] = tuple(spec[field])
    made["baselines"] = tuple(dict(baseline) for baseline in spec["baselines"])
    return Study(**made)


def stored_study(summary: StudySummary, *, tell: Callable[[str], None]) -> Study:
    """A study as it is stored, with its file, whose training code can be run again.

    Args:
        summary: of the study.
        tell: hears, in words, that its file has changed, or where its code is looked for.

    Raises:
        UsageError: the file is gone.
    """
    if not summary.file:
        tell(f"{summary.name} was written in Python; its training code is looked for from this folder")
        return study_of(summary.spec, Path.cwd())
    file = Path(summary.file)
    if not file.is_file():
        # Going on without it would leave the record without the file's text and without the code's folder.
        hint = f"put it back: hpsearch show {summary.name} --yaml > {file}" if summary.text else "put it back"
        raise UsageError(f"the study file of {summary.name}, {file}, is gone", hint=hint)
    if summary.text and file.read_text("utf-8-sig", "replace") != summary.text:
        tell(f"note: {file} has changed; the study goes on as it is stored")
    return replace(study_of(summary.spec, file.parent), file=file)


def space_of(spec: Mapping[str, Any]) -> SearchSpace:
    """The search space of a ``study.spec_of``, whatever its strategy is."""
    space = spec["search_space"]
    return SearchSpace({name: _parameter(space[name]) for name in spec.get("order", space)})


def _parameter(spec: Mapping[str, Any]) -> Parameter:
    options = {key: value for key, value in spec.items() if key != "type"}
    return _TYPES[spec["type"]](**options)


def _near_files(file: Path) -> str:
    try:
        here = [p.name for p in file.parent.iterdir() if p.suffix in _SUFFIXES]
    except OSError:
        return ""
    near = difflib.get_close_matches(file.name, here, n=1)
    return str(file.with_name(near[0])) if near else ""


# -- studies in Python


def _run_python(raw: bytes, file: Path, name: str) -> Study:
    """Run a study's file and take its ``study``."""

    def wrong(message: str, line: int | None = None, hint: str = "") -> StudyError:
        where = f"{name}:{line}" if line else name
        return StudyError([Problem(field="study", message=message, hint=hint, where=where)], file=name)

    module = ModuleType(f"hpsearch_study_{file.stem}")
    module.__file__ = str(file)
    try:
        # compile, not importlib: reading a study leaves no __pycache__ behind.
        code = compile(raw, str(file), "exec", dont_inherit=True)
        with _importable(file.parent, module):
            exec(code, module.__dict__)  # noqa: S102 - the stated exception: a study written in Python
    except StudyError as error:
        raise StudyError(error.problems, file=name) from error
    except SyntaxError as error:
        raise wrong(f"is no valid Python: {error.msg}", error.lineno) from error
    except (Exception, SystemExit) as error:
        line = _line_in(file, error.__traceback__)
        raise wrong(f"running the file raised {type(error).__name__}: {shown(str(error))}", line) from error
    study = module.__dict__.get("study")
    if isinstance(study, Study):
        return study
    others = [key for key, value in vars(module).items() if isinstance(value, Study)]
    hint = f"call it study: it is {others[0]} now" if others else "study = hp.define(...)"
    said = "defines no study" if study is None else f"its study is a {type(study).__name__}, no Study"
    raise wrong(said, hint=hint)


@contextlib.contextmanager
def _importable(folder: Path, module: ModuleType) -> Iterator[None]:
    """The folder on the path and the module in ``sys.modules`` (dataclasses look there), for as long as it runs."""
    sys.path.insert(0, str(folder))
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        sys.modules.pop(module.__name__, None)


def _line_in(file: Path, trace: TracebackType | None) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == str(file)]
    return lines[-1] if lines else None


def _with_address(document: Document, folder: Path) -> Document:
    """The document with its objective as an address, where it is given as the function or class itself."""
    objective = document.data.get("objective")
    if objective is None or isinstance(objective, str | ObjectiveAddress):
        return document
    address, why = _address_of(objective, folder)
    if address is None:
        hint = "give it a name at the top of a .py file, or say objective='train.py:train'"
        where = document.where(())
        problem = Problem(field="objective", message=why, value=objective, hint=hint, where=where)
        document.problems.append(problem)
        # Something that needs no look at a file, so that this stays one mistake.
        address = ObjectiveAddress(source="nowhere", name="train", folder=folder)
    return replace(document, data={**document.data, "objective": address})


def _address_of(objective: object, folder: Path) -> tuple[ObjectiveAddress | None, str]:
    """Where a worker finds this function or class again; or why it cannot."""
    name = getattr(objective, "__qualname__", None)
    if name is None or not (inspect.isclass(objective) or inspect.isroutine(objective)):
        return None, f"must be a function or a class, not {shown(objective)}"
    if "<lambda>" in name:
        return None, "is a lambda: workers find the training code by its file and name, and it has no name"
    if "." in name:
        return None, f"{shown(name)} is defined inside another function or class, where workers cannot find it"
    try:
        source = inspect.getsourcefile(inspect.unwrap(objective))
    except TypeError:
        source = None
    if source is None or not Path(source).is_file() or "ipykernel" in source:
        return None, f"{name} is defined in no file (a notebook, or typed in): workers cannot find it"
    spec = getattr(sys.modules.get(objective.__module__), "__spec__", None)
    if spec is not None and spec.parent and Path(source).with_name("__init__.py").is_file():
        where = objective.__module__  # in a package, where relative imports must work
    else:
        where = os.path.relpath(Path(source).resolve(), folder)
    address = ObjectiveAddress(source=where, name=name, folder=folder)
    try:
        find(address)
    except ObjectiveError as error:
        return None, str(error).removeprefix(f"objective {address}: ")
    return address, ""


# -- overrides of a study that is made already


def _overridden(study: Study, overrides: Mapping[str, object], name: str) -> Study:
    """The study with ``--set`` applied: back to the fields of a file, and read again."""
    data: dict[str, Any] = {
        "name": study.name,
        "description": study.description,
        "tags": list(study.tags),
        "objective": study.objective,
        "search_space": dict(study.search_space.parameters),
        "strategy": study.strategy,
        "pruner": study.pruner,
        "metric": {study.metric: str(study.direction)},
        "seeds": {"search": list(study.seeds), "confirm": study.confirm_seeds},
        "seed": study.seed,
        "n_trials": study.n_trials,
        "budget": study.budget_s,
        "timeout": study.timeout_s,
        "baseline": [dict(baseline) for baseline in study.baselines],
        "max_failures": study.max_failures,
        "keep": study.keep,
        "isolate": study.isolate,
        "threads": study.threads,
    }
    for field in overrides:
        parts = field.split(".")
        if len(parts) > 1 and parts[0] in FAMILIES and data[parts[0]] is not None:
            data[parts[0]] = _member_fields(data[parts[0]])
        if parts[0] == "search_space" and len(parts) > 2 and parts[1] in data["search_space"]:
            data["search_space"][parts[1]] = _short(data["search_space"][parts[1]])
    document = Document(file=name, data=data)
    for field, value in overrides.items():
        document.override(field, value)
    return build(document, study.objective.folder, study.file)


def _member_fields(member: Strategy | Pruner) -> dict[str, Any]:
    return {member.name: {f.name: getattr(member, f.name) for f in fields(member)}}  # type: ignore[arg-type]


def _short(value: Any) -> Any:
    """A parameter as a study file writes it."""
    if isinstance(value, Categorical):
        return {"choice": list(value.choices)}
    if not isinstance(value, Float | Int):
        return value
    flags = {flag: True for flag in ("log", "reverse_log") if getattr(value, flag, False)}
    kind = next(k for k, (cls, wanted, _) in RANGES.items() if cls is type(value) and wanted == flags)
    options = {name: getattr(value, name) for name in RANGE_OPTIONS if getattr(value, name) is not None}
    return {kind: [value.low, value.high], **options}


# -- the schema, for editors


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a study file, for editors that complete and check as one types."""
    number, whole = {"type": "number"}, {"type": "integer"}
    scalar = {"type": ["number", "string", "boolean", "null"]}
    space = {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/parameter"}}
    setting = {"type": "object", "additionalProperties": scalar}
    duration = {
        "anyOf": [number, {"type": "string", "pattern": r"^\s*([\d.]+d)?\s*([\d.]+h)?\s*([\d.]+m)?\s*([\d.]+s)?$"}]
    }
    seeds = {"anyOf": [{**whole, "minimum": 1}, {"type": "array", "items": whole, "minItems": 1, "uniqueItems": True}]}
    two = {"search": seeds, "confirm": {**whole, "minimum": 1}}
    direction = {"enum": [str(d) for d in Direction]}
    properties: dict[str, dict[str, Any]] = {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"},
        "description": {"type": "string"},
        "tags": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "objective": {"type": "string", "pattern": ".+:[^:]+"},
        "search_space": space,
        "strategy": {"$ref": "#/$defs/strategy"},
        "pruner": {"anyOf": [{"$ref": "#/$defs/pruner"}, {"enum": [None, False, "none"]}]},
        "metric": {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": direction},
        "seeds": {"anyOf": [*seeds["anyOf"], {"type": "object", "properties": two, "additionalProperties": False}]},
        "seed": {**whole, "minimum": 0},
        "n_trials": {**whole, "minimum": 1},
        "budget": duration,
        "timeout": duration,
        "baseline": {"anyOf": [setting, {"type": "array", "items": setting}, {"enum": [False, "none"]}]},
        "max_failures": {**whole, "minimum": 0},
        "keep": {**whole, "minimum": 0},
        "isolate": {"type": "boolean"},
        "threads": {**whole, "minimum": 1},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hpsearch study",
        "type": "object",
        "properties": {name: {"description": f"e.g. {FIELDS[name]}", **rest} for name, rest in properties.items()},
        "required": ["name", "objective", "search_space", "metric"],
        "additionalProperties": False,
        "$defs": {"parameter": _parameter_schema(scalar), **{family: _family_schema(family) for family in FAMILIES}},
    }


def _parameter_schema(scalar: dict[str, Any]) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = []
    for kind, (cls, _, _) in RANGES.items():
        one = {"type": "integer" if cls is Int else "number"}
        ends = {"type": "array", "items": one, "minItems": 2, "maxItems": 2, "description": "[low, high]"}
        options = {name: {"type": "integer"} if name == "points" else one for name in RANGE_OPTIONS}
        flag = {"log": {"type": "boolean"}} if kind == "int" else {}
        properties = {kind: ends, **options, **flag}
        kinds.append({"type": "object", "properties": properties, "required": [kind], "additionalProperties": False})
    choices = {"type": "array", "items": scalar, "minItems": 1}
    choice = {
        "type": "object",
        "properties": {"choice": choices},
        "required": ["choice"],
        "additionalProperties": False,
    }
    return {"anyOf": [*kinds, choice, choices, {"type": ["number", "string", "boolean"]}]}


def _family_schema(family: str) -> dict[str, Any]:
    named = [
        {"type": "object", "properties": {name: options}, "required": [name], "additionalProperties": False}
        for name, options in schemas(family).items()
    ]
    return {"anyOf": [{"enum": list(FAMILIES[family])}, *named]}
