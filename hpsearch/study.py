"""A study: what is searched, as a study file says it. Frozen data, no verbs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, final

from hpsearch.declaration import declared_epochs, declared_optimizer
from hpsearch.errors import ObjectiveError, Problem, StudyError, shown
from hpsearch.objective import TEXTBOOK, ObjectiveAddress, find
from hpsearch.pruner import Pruner
from hpsearch.space import Categorical, Float, Params, SearchSpace
from hpsearch.strategy import Strategy
from hpsearch.trial import Direction

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PARAMETER = re.compile(r"[^\W\d][\w-]{0,99}")
#: a grid over more parameters than this asks for a confirmation: the textbook's "grid for 2 or 3, random above"
GRID_PARAMETERS = 3
#: words of metrics' names of which more is better, and less
_RISING = {"acc", "accuracy", "auc", "f1", "r2", "precision", "recall"}
_FALLING = {"loss", "error", "mae", "mse", "rmse", "nll", "perplexity"}


@final
@dataclass(frozen=True, kw_only=True)
class Study:
    """What is searched.

    Raises:
        StudyError: with every mistake that can be seen without running anything.
    """

    #: letters, digits, ``.``, ``_`` and ``-``; names the study in the database and in addresses
    name: str
    objective: ObjectiveAddress
    search_space: SearchSpace
    strategy: Strategy
    #: the metric's name, as the training code reports it
    metric: str
    direction: Direction = Direction.MINIMIZE
    #: what stops trials early; None: every run trains to its end
    pruner: Pruner | None = None
    #: every trial trains once with each of these seeds
    seeds: tuple[int, ...] = (0,)
    #: how many fresh seeds ``hpsearch confirm`` starts with
    confirm_seeds: int = 8
    #: of the search and of the data split
    seed: int = 0
    #: trials that the strategy chooses; None: until the budget or the strategy ends
    n_trials: int | None = None
    #: seconds of wall-clock time, summed over restarts; None: no limit
    budget_s: float | None = None
    #: seconds that one attempt at a run may take, of a run among others its share of their time; None: no limit
    timeout_s: float | None = None
    #: settings tried first, outside ``n_trials``; they may lie outside the search space
    baselines: tuple[Params, ...] = ()
    #: failed trials above which the study stops; None: never
    max_failures: int | None = None
    #: so many of the best trials keep the weights of their runs' best epochs, where hpsearch has the training loop
    keep: int = 3
    #: a process of its own for every run
    isolate: bool = False
    #: torch threads of a worker
    threads: int = 1
    description: str = ""
    tags: tuple[str, ...] = ()
    #: where it was read from; None for a study written in Python
    file: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        problems = check(self)
        if problems:
            raise StudyError(problems)


def check(study: Study) -> list[Problem]:
    """Every mistake in a study that shows without running anything, except mistakes inside a parameter."""
    problems: list[Problem] = []

    def wrong(field: str, message: str, value: object = None, hint: str = "") -> None:
        problems.append(Problem(field=field, message=message, value=value, hint=hint))

    if not NAME.fullmatch(study.name):
        wrong(
            "name",
            f"{shown(study.name)} cannot name a study",
            study.name,
            "letters, digits, '.', '_', '-'; at most 100",
        )
    if not study.search_space.parameters:
        wrong("search_space", "is empty", hint="lr: {log: [1e-5, 1]}")
    elif not study.search_space.searched:
        wrong("search_space", "has only fixed values: there is nothing to search", hint="lr: {log: [1e-5, 1]}")
    for name in study.search_space.parameters:
        if not PARAMETER.fullmatch(name):
            hint = "letters, digits, '_' and '-', not a digit first; at most 100"
            wrong(f"search_space.{shown(name)}", "cannot name a hyperparameter", name, hint)
    if not study.metric:
        wrong("metric", "is empty", hint="metric: {val_loss: minimize}")
    if not study.seeds:
        wrong("seeds", "names no seed", hint="seeds: 3 trains every trial with seeds 0, 1, 2")
    if len(set(study.seeds)) < len(study.seeds):
        wrong("seeds", f"names a seed twice: {shown(list(study.seeds))}", study.seeds)
    if any(not 0 <= seed < 2**31 for seed in study.seeds):
        wrong("seeds", f"must be from 0 to 2147483647, not {shown(list(study.seeds))}", study.seeds)
    if not 0 <= study.seed < 2**31:
        wrong("seed", f"must be from 0 to 2147483647, not {shown(study.seed)}", study.seed)
    for name, low in [("n_trials", 1), ("confirm_seeds", 1), ("threads", 1), ("max_failures", 0), ("keep", 0)]:
        number = getattr(study, name)
        if number is not None and number < low:
            wrong(name, f"must be at least {low}, not {shown(number)}", number)
    for name in ("budget_s", "timeout_s"):
        seconds = getattr(study, name)
        if seconds is not None and not 0 < seconds < float("inf"):
            wrong(name, f"must be above 0 seconds, not {seconds}", seconds)
    if not any(problem.field.startswith("search_space") for problem in problems):
        problems.extend(study.strategy.problems(study.search_space))
        if study.n_trials is None and study.budget_s is None and study.strategy.size(study.search_space) is None:
            wrong(
                "n_trials",
                f"is missing: {study.strategy.name} has no end of its own",
                hint="n_trials: 64, or budget: 2h",
            )
        problems.extend(_check_epochs(study.search_space))
        if study.pruner is not None:
            problems.extend(_check_pruner(study, study.pruner))
    for k, baseline in enumerate(study.baselines):
        problems.extend(_check_baseline(f"baseline[{k}]", baseline, study.search_space))
    return problems


def cohort_of(study: Study) -> int | None:
    """How many trials its pruner compares with each other; None where it has none, or nobody knows."""
    if study.pruner is None:
        return None
    size = study.pruner.cohort if study.pruner.cohort is not None else study.strategy.batch_size
    if size is not None:
        return size
    ends = [n for n in (study.n_trials, study.strategy.size(study.search_space)) if n is not None]
    return min(ends) if ends else None


def epochs_of(study: Study) -> int | None:
    """How many epochs a run takes at most: ``epochs`` of the search space, or what the task's class says.

    None where neither does. The pruner's ``max_epochs`` is its own affair.
    """
    values = _ends(study.search_space)
    return max(values) if values else declared_epochs(study.objective)


def _ends(space: SearchSpace) -> list[int]:
    """The whole numbers that ``epochs`` may be, those between the ends of a range aside; [] without it."""
    parameter = space.parameters.get("epochs")
    if parameter is None:
        return []
    values = parameter.choices if isinstance(parameter, Categorical) else parameter.outer
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]


def _check_epochs(space: SearchSpace) -> list[Problem]:
    """``epochs`` is a number of epochs."""
    parameter = space.parameters.get("epochs")
    if parameter is None:
        return []
    values = parameter.choices if isinstance(parameter, Categorical) else parameter.outer
    if not isinstance(parameter, Float) and len(_ends(space)) == len(values) and min(_ends(space)) >= 1:
        return []
    message = f"must be whole numbers of at least 1, not {shown(list(values))}"
    hint = "epochs: 20, epochs: [10, 20] or epochs: {int: [5, 50]}"
    return [Problem(field="search_space.epochs", message=message, value=list(values), hint=hint)]


def _check_pruner(study: Study, pruner: Pruner) -> list[Problem]:
    """Its options, and whether its cohorts are known and fit the strategy."""
    epochs = epochs_of(study)
    problems = pruner.problems(epochs)
    if epochs is None and not _is_there(study.objective):
        # Its training code may say it; it is gone from here, which is for others to say.
        problems = [problem for problem in problems if problem.field != "pruner.max_epochs"]
    batch = study.strategy.batch_size
    if pruner.cohort is not None and batch is not None and pruner.cohort >= 1 and batch % pruner.cohort:
        message = (
            f"must divide the {batch} trials that {study.strategy.name} chooses together, not be {pruner.cohort}: "
            "they are all asked for at once, and the next only when they have ended"
        )
        hint = "leave it out: then it is these trials"
        problems.append(Problem(field="pruner.cohort", message=message, value=pruner.cohort, hint=hint))
    if cohort_of(study) is None and study.budget_s is not None:  # without it n_trials is missing, which is said
        message = f"is missing: {study.strategy.name} has no batches, and nothing says how many trials there will be"
        hint = f"pruner: {{{pruner.name}: {{cohort: 81}}}}, or n_trials: 81"
        problems.append(Problem(field="pruner.cohort", message=message, hint=hint))
    return problems


def _is_there(objective: ObjectiveAddress) -> bool:
    try:
        find(objective)
    except ObjectiveError:
        return False
    return True


def _check_baseline(field: str, baseline: Params, space: SearchSpace) -> list[Problem]:
    """A baseline names the same hyperparameters; its values may leave their ranges, but not their kind."""
    problems = []
    missing, unknown = space.parameters.keys() - baseline.keys(), baseline.keys() - space.parameters.keys()
    if missing or unknown:
        words = [f"has no value for {n}" for n in sorted(missing)] + [
            f"names {n}, no parameter" for n in sorted(unknown)
        ]
        problems.append(Problem(field=field, message="; ".join(words), value=dict(baseline)))
    for name in sorted(space.parameters.keys() & baseline.keys()):
        parameter, value = space.parameters[name], baseline[name]
        if isinstance(parameter, Categorical):
            good = value is None or isinstance(value, str | bool | int | float)
        else:
            good = isinstance(value, int | float if isinstance(parameter, Float) else int) and not isinstance(
                value, bool
            )
        if isinstance(value, float) and not math.isfinite(value):
            good = False
        if not good:
            message = f"{shown(value)} is no value for {type(parameter).__name__}"
            problems.append(Problem(field=f"{field}.{name}", message=message, value=value))
    return problems


#: fields that may change under a stored study: the budget (it may grow), words, and how it is run
LOOSE = frozenset(
    [
        "n_trials",
        "budget_s",
        "description",
        "tags",
        "file",
        "threads",
        "isolate",
        "max_failures",
        "confirm_seeds",
        "keep",
    ]
)


def spec_of(study: Study) -> dict[str, Any]:
    """The study as plain JSON data. What is not in ``LOOSE`` decides which trials there are."""
    spec: dict[str, Any] = {f.name: getattr(study, f.name) for f in fields(study) if f.name != "file"}
    spec["objective"] = str(study.objective)
    spec["search_space"] = {
        name: {"type": type(p).__name__, **asdict(p)} for name, p in study.search_space.parameters.items()
    }
    # The order of the axes decides which point is which trial, and not every database keeps the order of keys.
    spec["order"] = list(study.search_space.parameters)
    spec["strategy"] = {"name": study.strategy.name, **_options(study.strategy)}
    # Left out where there is none, so that studies stored before there were pruners have the fingerprint they had.
    del spec["pruner"]
    if study.pruner is not None:
        spec["pruner"] = {"name": study.pruner.name, **_options(study.pruner)}
    spec["direction"] = str(study.direction)
    spec["baselines"] = [dict(b) for b in study.baselines]
    plain: dict[str, Any] = json.loads(json.dumps(spec, allow_nan=False))
    return plain


def _options(member: Strategy | Pruner) -> dict[str, Any]:
    # Every member is a dataclass of its options (strategy.py, pruner.py); a custom one may have none.
    return {f.name: getattr(member, f.name) for f in fields(member)}  # type: ignore[arg-type]


def fingerprint(spec: Mapping[str, Any]) -> str:
    """sha256 of the part of a spec that decides which trials there are and what they are worth."""
    fixed = {name: value for name, value in spec.items() if name not in LOOSE}
    text = json.dumps(fixed, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(stored: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two specs, a line a field: ``search_space.lr.low: 1e-05 -> 0.0001``. LOOSE fields aside."""
    lines: list[str] = []
    for name in dict.fromkeys([*stored, *given]):
        path = f"{prefix}{name}"
        if not prefix and name in LOOSE:
            continue
        old, new = stored.get(name), given.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{path}.")
        elif not prefix and name == "order" and sorted(old or ()) != sorted(new or ()):
            continue  # names were added or removed, and search_space says so
        elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
            lines.append(f"{path}: {_word(old)} -> {_word(new)}")
    return lines


def warnings_of(study: Study) -> list[str]:
    """What is allowed but seldom meant, each in a sentence: metrics the wrong way round, grids that are too large."""
    return [*_direction_warning(study), *_grid_warnings(study)]


def _direction_warning(study: Study) -> list[str]:
    words = set(re.split(r"[\W_]+", study.metric.lower()))
    usual = Direction.MAXIMIZE if words & _RISING else Direction.MINIMIZE if words & _FALLING else study.direction
    if usual is study.direction:
        return []
    best = "lowest" if study.direction is Direction.MINIMIZE else "highest"
    return [
        f"the best trial will be that of the {best} {study.metric}; metric: {{{study.metric}: {usual}}} turns it round"
    ]


def _grid_warnings(study: Study) -> list[str]:
    space, cells = study.search_space, study.strategy.size(study.search_space)
    if study.strategy.name != "grid" or cells is None:
        return []
    lines = []
    if len(space.searched) > GRID_PARAMETERS:
        runs = cells * len(study.seeds)
        lines.append(
            f"a grid over {len(space.searched)} hyperparameters means {cells:,} cells x {len(study.seeds)} "
            f"seed{'s' * (len(study.seeds) > 1)} = {runs:,} runs; above {GRID_PARAMETERS} hyperparameters random "
            "search finds as much with fewer, since every trial tries a new value of each (strategy: random)"
        )
    if study.n_trials is not None and study.n_trials < cells:
        lines.append(
            f"n_trials: {study.n_trials:,} ends the grid before its {cells:,} cells are tried; what is tried covers "
            "the space evenly (without n_trials the grid runs to its end)"
        )
    return lines


#: what the textbook starts with, where the user names no optimizer's own values
_TEXTBOOK_FIXED: Params = {"weight_decay": 0.0, "l1": 0.0, "dropout": 0.0, "label_smoothing": 0.0, "batch_size": 128}


def textbook_baseline(
    space: SearchSpace, given: Params | None = None, objective: ObjectiveAddress | None = None
) -> dict[str, Any]:
    """A setting that needs no search: ``given``, filled up with what the textbook starts with.

    Fixed values stay. ``lr``, ``momentum`` and ``betas`` follow the optimizer: the ``optimizer`` of the setting; or
    else the one that the code of ``objective`` names; or else SGD with momentum 0.9 where ``momentum`` is searched,
    and Adam at 3e-4 where it is not. No regularisation
    (weight_decay, l1, dropout, label_smoothing 0), even where that lies outside the range; a choice takes the
    textbook's value or its first; every other range takes its middle.
    """
    given = given or {}
    setting = {**space.fixed, **given}
    optimizer = setting.get("optimizer")
    choices = space.parameters.get("optimizer")
    if optimizer is None and isinstance(choices, Categorical):
        optimizer = choices.choices[0]
    if optimizer is None and objective:
        optimizer = declared_optimizer(objective)
    if str(optimizer) not in TEXTBOOK:
        optimizer = "momentum" if "momentum" in space.parameters else "adam"
    known: Params = {**_TEXTBOOK_FIXED, **TEXTBOOK[str(optimizer)], "optimizer": optimizer}
    baseline: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if name in setting:
            baseline[name] = setting[name]
        elif isinstance(parameter, Categorical):
            usual = name in known and parameter.contains(known[name])
            baseline[name] = known[name] if usual else parameter.choices[0]
        elif name in known and (isinstance(parameter, Float) or parameter.contains(known[name])):
            baseline[name] = known[name]
        else:
            baseline[name] = parameter.from_unit(0.5)
    return {**baseline, **given}


def _word(value: object) -> str:
    return "(none)" if value is None else json.dumps(value)
