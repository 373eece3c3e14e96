"""The fields of a study file: which there are, the plain ones read, and every mistake kept with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

from hpsearch.document import Document, dotted
from hpsearch.document import Path as Place
from hpsearch.errors import Problem, shown

#: field -> an example, which is the hint where it is missing or wrong
FIELDS: Mapping[str, str] = {
    "name": "name: digits-mlp",
    "description": "description: how wide and how fast",
    "tags": "tags: [mlp, digits]",
    "objective": "objective: train.py:train",
    "search_space": "search_space: {lr: {log: [1e-5, 1]}}",
    "strategy": "strategy: random, or strategy: {coarse_to_fine: {shrink: 0.5}}",
    "pruner": "pruner: median, or pruner: {successive_halving: {eta: 3}}, or none",
    "metric": "metric: {val_loss: minimize}",
    "seeds": "seeds: 5, or seeds: [0, 1, 2], or seeds: {search: 1, confirm: 8}",
    "seed": "seed: 0",
    "n_trials": "n_trials: 64",
    "budget": "budget: 2h, or 90m, 1h30m, 45s, or seconds as a number",
    "timeout": "timeout: 10m, or 1h30m, 45s, or seconds as a number",
    "baseline": "baseline: {lr: 0.01}, or a list of such, or false for none",
    "max_failures": "max_failures: 5",
    "keep": "keep: 3",
    "isolate": "isolate: true",
    "threads": "threads: 1",
}
#: fields one might expect -> where to say it instead
ELSEWHERE: Mapping[str, str] = {
    "workers": "how many workers is said when it runs: hpsearch run STUDY --workers 2",
    "device": "where it runs is said when it runs: hpsearch run STUDY --device cuda:0",
    "prune": "it is called pruner: pruner: median",
    "early_stopping": "what stops trials early is called pruner: pruner: median",
    "epochs": "epochs is a hyperparameter: search_space: {epochs: 20}",
    "direction": "the direction stands with the metric: metric: {val_loss: minimize}",
    "notes": "write it under description",
    "parameters": "hyperparameters stand under search_space",
    "trials": "the number of trials is n_trials",
}
_DURATION = re.compile(r"(?:([\d.]+)d)?\s*(?:([\d.]+)h)?\s*(?:([\d.]+)m)?\s*(?:([\d.]+)s)?")


@final
class Fields:
    """The fields of a document. What cannot be read is noted, and a default stands in for it."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.data = document.data
        self.problems = list(document.problems)
        #: fields (the first part of their path) for which a replacement stands in
        self.broken: set[str] = set()

    def note(self, problem: Problem, path: Place, *, key: bool = False) -> None:
        """Keep a mistake, with the line of what stands at ``path`` (``key``: of its name)."""
        where = problem.where or self._document.where(path, key=key)
        self.problems.append(replace(problem, where=where))

    def wrong(self, path: Place, message: str, value: object = None, hint: str = "", *, key: bool = False) -> None:
        """Note that what stands at ``path`` is wrong: a replacement stands in for the whole field."""
        self.broken.add(str(path[0]))
        self.note(Problem(field=dotted(path), message=message, value=value, hint=hint), path, key=key)

    def must(self, path: Place, what: str, value: object) -> None:
        """Note that the value at ``path`` must be ``what``."""
        hint = FIELDS.get(str(path[0]), "")
        if isinstance(value, str) and "number" in what and re.fullmatch(r"[-+.\deE_,]+", value):
            hint = f"write the number without quotes, commas and underscores; {hint}"
        self.wrong(path, f"must be {what}, not {shown(value)}", value, hint)

    def text(self, name: str, *, required: bool = False) -> str:
        """A string; empty where there is none."""
        value = self.data.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            self.must((name,), "a string", value)
        elif required:
            self.missing(name)
        return ""

    def missing(self, name: str) -> None:
        """Note that a field is not there."""
        self.wrong((name,), "is missing" if name not in self.data else "has no value", None, FIELDS[name])

    def whole(self, name: str, default: Any) -> Any:
        """A whole number, or ``default``."""
        value = self.data.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.must((name,), "a whole number", value)
            return default
        return value

    def flag(self, name: str) -> bool:
        """True or false, the default."""
        value = self.data.get(name, False)
        if not isinstance(value, bool):
            self.must((name,), "true or false", value)
            return False
        return value

    def tags(self) -> tuple[str, ...]:
        """The tags: a list of strings, or one string."""
        value = self.data.get("tags")
        tags = [value] if isinstance(value, str) else value or []
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) and tag for tag in tags):
            self.must(("tags",), "a list of strings", value)
            return ()
        return tuple(tags)

    def duration(self, name: str) -> float | None:
        """Seconds, also written ``1h30m``; None where there is no such field."""
        value = self.data.get(name)
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
            self.must((name,), "a time", value)
            return None
        return sum(part * seconds for part, seconds in zip(parts, (86400, 3600, 60, 1), strict=True))
