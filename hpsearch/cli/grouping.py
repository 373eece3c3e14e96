"""How ``hpsearch plan`` says what trains together and what alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from hpsearch.cli.terminal import headed, params_text

if TYPE_CHECKING:
    from hpsearch.plan import Filling, Measured, MeasuredGroup
    from hpsearch.study import Study

#: groups that have a line
SHOWN = 12


@final
@dataclass(frozen=True, kw_only=True)
class Grouping:
    """What a plan knows of groups."""

    study: Study
    #: of the whole study; None where nobody knows
    runs: int | None
    workers: int
    #: None where nothing was measured
    measured: Measured | None
    #: why each run trains alone without being tried; empty where lanes were tried, or nothing was to be measured
    alone: str
    #: None where a batch fills the lanes
    filling: Filling | None

    def lines(self) -> Iterator[str]:
        """Lines of at most 80 cells, for people; none where nothing is known."""
        if self.alone:
            yield headed("alone", self.alone)
            return
        if self.measured is None:
            return
        measured, fused = self.measured, self.measured.fused
        one = len(measured.groups) == 1 and not measured.failed and not measured.unseen
        if not one:
            yield headed("tried", self._tried(measured))
        what = self._tried(measured) if one else ""
        yield from _group_lines("fused", fused, what)
        if self.filling is not None:
            yield headed("", self._filling(self.filling))
        yield from _group_lines("alone", [group for group in measured.groups if group not in fused], what)
        if measured.failed:
            yield headed("failed", f"{_runs(measured.failed)}: {measured.failure}")
        if measured.unseen:
            yield headed("unknown", f"{_runs(measured.unseen)}, not begun when the time was up")

    def json(self) -> dict[str, Any]:
        """The same as data."""
        filling = self.filling
        return {
            "alone": self.alone or None,
            "groups": [_json(group) for group in self.measured.groups] if self.measured else [],
            "failed": self.measured.failed if self.measured and not self.alone else None,
            "unseen": self.measured.unseen if self.measured and not self.alone else None,
            "filling": None
            if filling is None
            else {
                "batch": filling.batch,
                "runs": filling.runs,
                "lanes": filling.lanes,
                "filled_by": filling.filled_by,
            },
        }

    def _tried(self, measured: Measured) -> str:
        """``12 of 24 runs of the first batch, on 2 workers``; where one has several groups, what parts them."""
        from hpsearch.plan import batch_of

        batch, total, of = batch_of(self.study), self.runs, ""
        if batch is not None:
            total, of = (batch + len(self.study.baselines)) * len(self.study.seeds), " of the first batch"
        all_of = f"all {_runs(measured.runs)}" if measured.runs > 1 else "the only run"
        text = f"{measured.runs:,} of {_runs(total)}" if total and measured.runs < total else all_of
        text = _runs(measured.runs) if total is None else f"{text}{of}"
        text += f", on {measured.workers} workers" * (measured.workers > 1)
        if len(measured.fused) < 2:
            return text
        names = list(measured.fused[0].shared)
        why = f" by {' and '.join(names)}" if names else " as their models differ" * (self._most_groups > 1)
        return f"{text}, in {len(measured.fused)} groups{why}"

    def _filling(self, filling: Filling) -> str:
        seeds, groups = len(self.study.seeds), self._most_groups
        batch = f"a batch of {_of(filling.batch, 'trial')} x {_of(seeds, 'seed')}"
        if groups > 1:
            each = " of a worker" * (self.workers > 1)
            return f"{batch} is {_runs(filling.runs)} in {groups} groups{each}, for {filling.lanes:,} lanes"
        return (
            f"{batch} fills {filling.runs:,} of {filling.lanes:,} lanes; one of {filling.filled_by:,} would fill them"
        )

    @property
    def _most_groups(self) -> int:
        """That a worker has."""
        counts = Counter(group.worker for group in self.measured.fused) if self.measured else Counter[int]()
        return max(counts.values(), default=0)


def _group_lines(head: str, groups: Sequence[MeasuredGroup], what: str) -> Iterator[str]:
    """A line for each group; ``what`` is its runs in words, where there is one group only."""
    texts = [_text(group, what) for group in groups]
    for text in texts[:SHOWN]:
        yield headed(head, text)
    if len(groups) > SHOWN:
        yield headed("", f"and {len(groups) - SHOWN} groups more")


def _text(group: MeasuredGroup, what: str) -> str:
    said = group.said
    what = what or ", ".join([_runs(len(said.runs)), *([params_text(group.shared)] if group.shared else [])])
    if said.engine == "solo":
        return f"{what}: {said.reason}"
    why = f": {said.reason}" if said.reason else "; more are no faster" * (not group.full)
    return f"{what}: {said.how}{why}"


def _json(group: MeasuredGroup) -> dict[str, Any]:
    said = group.said
    return {
        "engine": said.engine,
        "device": said.device,
        "worker": group.worker,
        "lanes": said.lanes,
        "runs": [str(run) for run in said.runs],
        "shared": group.shared,
        "reason": said.reason,
        "epoch_s": group.epoch_s,
    }


def _runs(count: int) -> str:
    return _of(count, "run")


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
