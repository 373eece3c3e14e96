"""A stored trial once more: as a command that compares with the record, as Python without it, as a study file."""

from __future__ import annotations

import json
import math
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from hpsearch.archive import StudySummary
from hpsearch.errors import UsageError
from hpsearch.space import Categorical, Float, Int
from hpsearch.trial import Run, State, Trial

#: states of runs that there is something to compare with
REPEATABLE = (State.COMPLETE, State.PRUNED, State.DIVERGED)
#: of the spec -> of ``define``: what decides how a run is trained
_FIELDS = {"seed": "seed", "timeout_s": "timeout", "threads": "threads", "isolate": "isolate"}


def command(study: StudySummary, trial: Trial, run: Run | None = None, *, db: str) -> str:
    """Lines of a shell that train a trial (or one run) again, and compare each epoch with the record.

    Args:
        study: whose it is.
        trial: it.
        run: of it; None: all.
        db: the database's address, without a password.

    Raises:
        UsageError: none of it has ended.
    """
    address = f"{study.name}/{run.key if run else trial.number}"
    runs = [run] if run else list(trial.search_runs)
    good = [f"{study.name}/{each.key}" for each in runs if each.state in REPEATABLE]
    # A trial's address means all its runs, extra ones too, and rerun refuses them if one has failed.
    whole = all(each.state in REPEATABLE for each in (runs if run else trial.runs))
    words = [*([address] if whole else good), "--verify"]
    lines = _origin(study, trial, run)
    if not good:
        if not all(each.state is State.FAILED for each in runs):
            raise UsageError(
                f"{address} has not ended", hint=f"hpsearch show {address} --python trains it all the same"
            )
        words = [address, "--failed"]
        lines.append("# it has failed: there is nothing to compare with; this repeats it and records that")
    lines += [] if study.file else ["# in the folder of the training code:"]
    return "\n".join([*lines, shlex.join(["hpsearch", "rerun", *words, "--db", db])]) + "\n"


def snippet(study: StudySummary, trial: Trial, run: Run | None = None) -> str:
    """A Python program that trains a trial (or one run) again, prints its values, and needs no database.

    It needs hpsearch and the training code, and gives the same bits as far as ``rerun`` does.

    Args:
        study: whose it is.
        trial: it.
        run: of it; None: all runs of the search.
    """
    spec = study.spec
    runs = [run] if run else list(trial.search_runs)
    source, _, name = str(spec["objective"]).rpartition(":")
    folder = f"Path({str(Path(study.file).parent)!r})" if study.file else "Path.cwd()  # of the training code"
    fields: dict[str, Any] = {
        "name": f"{study.name[:88]}-{trial.number}",
        "metric": {spec["metric"]: spec["direction"]},
        "search_space": {name: short(spec["search_space"][name]) for name in spec.get("order", trial.params)},
        "baseline": dict(trial.params),
        "strategy": "random",
        "n_trials": 1,
        **{ours: spec[stored] for stored, ours in _FIELDS.items() if spec.get(stored) is not None},
    }
    lines = [f"{_COMMENTS.get(field, '')}    {field}={_indented(value)}," for field, value in fields.items()]
    return _PROGRAM.format(
        origin="\n".join(_origin(study, trial, run)),
        folder=folder,
        source=source,
        objective=name,
        fields="\n".join(lines),
        code_hash=study.code_hash,
        recorded={each.key.seed: each.value for each in runs},
        lanes={each.key.seed: _lanes(each) for each in runs},
        device="cpu" if all(each.environment and each.environment.device == "cpu" for each in runs) else "auto",
    )


_COMMENTS = {"baseline": "    # the trial's setting, which is trained\n", "seed": "    # splits the data\n"}
_PROGRAM = """\
{origin}
import statistics
from pathlib import Path

import hpsearch as hp
from hpsearch.launch import attempt
from hpsearch.objective import ObjectiveAddress, source_hash

folder = {folder}
study = hp.define(
    objective=ObjectiveAddress(source={source!r}, name={objective!r}, folder=folder),
{fields}
)
if source_hash(study.objective) != {code_hash!r}:
    print("note: the training code has changed since it was recorded")
recorded = {recorded!r}
values = []
for seed, lanes in {lanes!r}.items():  # 2: as the only lane of a group
    run = attempt(study, {{}}, seed=seed, lanes=lanes, device={device!r})
    assert hasattr(run, "value"), run  # else its worker was lost
    values.append(run.value)
    print(seed, run.state, run.value, "as recorded" if run.value == recorded[seed] else f"not {{recorded[seed]}}")
    if run.error:
        print(run.error)
if len(values) > 1 and None not in values:
    print("mean", statistics.fmean(values))
"""


def _indented(value: Any) -> str:
    return pformat(value, width=72, sort_dicts=False).replace("\n", "\n    ")


def _origin(study: StudySummary, trial: Trial, run: Run | None) -> list[str]:
    """Comments: what was recorded, and where."""
    spec, runs = study.spec, [run] if run else list(trial.search_runs)
    value = run.value if run else trial.value
    many = "" if run else f", the mean of {len(runs)} run{'s' * (len(runs) != 1)}"
    state = run.state if run else trial.state
    said = f"{spec['metric']} {value!r}{many}" if value is not None else str(state)
    lines = [f"{study.name}/{run.key if run else trial.number}: {said}"]
    if State.PRUNED in {each.state for each in runs}:
        lines.append("it was pruned: rerun trains as far as it came, Python to the end, which gives another value")
    lines.append(f"training code {spec['objective']}, sha256 {study.code_hash[:12]}")
    machines = [each.environment for each in runs if each.environment]
    for machine in machines[:1]:
        changed = " with changes" if machine.git_dirty else ""
        commit = [f"commit {machine.git_commit[:12]}{changed}"] if machine.git_commit else []
        lines.append(
            ", ".join([*commit, f"Python {machine.python}", f"torch {machine.torch}", machine.device, machine.machine])
        )
    return [f"# {part}" for line in lines for part in textwrap.wrap(line, 78, break_on_hyphens=False)]


def _lanes(run: Run) -> int:
    """As ``launch.attempt`` takes them: how it was trained then."""
    return 1 if not run.engine or run.engine.startswith("solo") else 2


# As a study file

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
