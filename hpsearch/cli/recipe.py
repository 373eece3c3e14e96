"""A trial as a study file that trains it again: the stored study, narrowed to one setting."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from hpsearch.archive import StudySummary
from hpsearch.space import Categorical, Float, Int
from hpsearch.trial import Trial

KINDS = {"Float": Float, "Int": Int, "Categorical": Categorical}


def recipe(study: StudySummary, trial: Trial) -> str:
    """A YAML study file with this trial's setting as its only one.

    It keeps the search space, so that ``strategy`` can be changed back, and names the one cell of a grid. A value
    outside the space (a baseline's) becomes a fixed one.
    """
    spec = study.spec
    space: dict[str, Any] = {}
    cell: dict[str, Any] = {}
    for name, stored in spec["search_space"].items():
        fields = {key: value for key, value in stored.items() if key != "type"}
        parameter = KINDS[stored["type"]](**fields)
        value = trial.params[name]
        if parameter.hard().size == 1 or not parameter.contains(value):
            space[name] = value
        else:
            space[name] = short(stored)
            cell[name] = [value]
    lines = [
        f"# {study.name}/{trial.number}: {spec['metric']} {trial.value!r}, the mean of {len(trial.search_runs)} run(s)",
        f"name: {study.name[:88]}-{trial.number}",
        f"objective: {_json(spec['objective'])}",
        f"metric: {{{_json(spec['metric'])}: {spec['direction']}}}",
        "search_space:",
        *(f"  {_json(name)}: {_json(value)}" for name, value in space.items()),
        f"strategy: {_json({'grid': {'values': cell}})}",
        f"seeds: {_json(spec['seeds'])}",
        f"seed: {spec['seed']}",
        "baseline: false",
    ]
    return "\n".join(lines) + "\n"


def short(stored: Mapping[str, Any]) -> Any:
    """A stored parameter in the short form of study files."""
    if stored["type"] == "Categorical":
        return stored["choices"]
    ends = [stored["low"], stored["high"]]
    if stored["type"] == "Int":
        form: dict[str, Any] = {"log_int" if stored["log"] else "int": ends}
    else:
        form = {"log" if stored["log"] else "reverse_log" if stored["reverse_log"] else "uniform": ends}
    if stored["step"] not in (None, 1 if stored["type"] == "Int" else None):
        form["step"] = stored["step"]
    return form | {key: stored[key] for key in ("points", "hard_low", "hard_high") if stored[key] is not None}


def _json(value: Any) -> str:
    """JSON is YAML; whole floats keep their point, so that they stay floats."""
    assert not isinstance(value, float) or math.isfinite(value)
    return json.dumps(value, ensure_ascii=True)
