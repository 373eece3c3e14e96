"""All runs that a worker has in hand: put into groups, trained together where they can be, else one after the other.

Runs share a group when their models have one structure and their loops one optimizer, batch size and data. Lanes that
end or pause are freed at the end of their epoch, and filled with the next runs of the group. What cannot be fused
trains alone, by the ordinary loop, and the reason is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import final

from hpsearch.errors import ObjectiveError
from hpsearch.executor import Assignment
from hpsearch.objective import TrainingTask, Workload
from hpsearch.training import worker
from hpsearch.training.group import Ended, Group
from hpsearch.training.guard import clean_process, keep_memory
from hpsearch.training.load import load
from hpsearch.training.member import Member, prepare_member
from hpsearch.training.step import expect
from hpsearch.training.structure import CannotFuse
from hpsearch.trial import Grouped, Report, RunKey

Send = Callable[[Sequence[Report]], None]
#: what runs that wait together share: for good, and now (``Member.pace``)
Place = tuple[Hashable, Hashable]


@final
class Trainer:
    """Trains what a worker has in hand, and keeps the last group for what it is given next.

    Where all runs of a group end together, as runs of a fixed number of epochs do, nothing is in hand until the
    coordinator has heard of it. What comes then has the lanes as they are: probed, measured, compiled, captured.

    Args:
        device: ``cpu``, ``cuda:0`` ...; ``auto`` is the first GPU there is, else the CPU.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._hand: _Hand | None = None

    def train(
        self,
        assignments: Sequence[Assignment],
        workload: Workload,
        *,
        send: Send,
        stopped: Callable[[RunKey], bool],
        more: Callable[[], Sequence[Assignment]],
        alone: Callable[[], None] = lambda: None,
    ) -> None:
        """Make an attempt at each: epoch reports as they come, and for each in the end one Finished or PausedReport.

        Args:
            assignments: the runs in hand, at most ``workload.lanes``.
            workload: what all runs of the study share.
            send: takes the reports of one moment: those of an epoch of a group go together.
            stopped: True when the run is to end at its next report (Finished, cancelled).
            more: runs that have been given meanwhile; asked between epochs, so that they fill lanes that are free.
            alone: called before a run trains alone, beside those that wait.
        """
        keep_memory()
        hand, self._hand = self._hand, None  # where an exception ends it, it is not gone on with
        if hand is None or hand.workload != workload:
            hand = _Hand(workload, worker.found(self._device))
        hand.send, hand.stopped, hand.more, hand.alone = send, stopped, more, alone
        hand.train(assignments)
        self._hand = hand


@final
class _Hand:
    """The runs in hand: those that wait in groups, and those that train alone, each with the reason."""

    send: Send
    stopped: Callable[[RunKey], bool]
    more: Callable[[], Sequence[Assignment]]
    alone: Callable[[], None]

    def __init__(self, workload: Workload, device: str) -> None:
        self.workload, self._device = workload, device
        #: by what they share for good, and by their pace
        self._groups: dict[Place, deque[Member]] = {}
        self._alone: deque[tuple[Assignment, str]] = deque()
        self._said: set[str] = set()
        #: structures whose lanes may not differ in some floats, and how far they are parted: 1 or 2
        self._parted: dict[Hashable, int] = {}
        self._most = workload.lanes
        #: why no two runs may train together; "": they may
        self._never = ""
        #: a run has been put into a group
        self._placed = False
        #: the last group, and what its runs shared for good, while none has a lane
        self._kept: tuple[Hashable, Group] | None = None

    def train(self, assignments: Sequence[Assignment]) -> None:
        """Until nothing is in hand."""
        self._said.clear()
        self._take(assignments)
        while self._groups or self._alone:
            if self._groups:
                self._train_group(next(iter(self._groups)))
            else:
                self._let_go()
                self._train_alone(*self._alone.popleft())
            self._take(self.more())

    def _take(self, assignments: Sequence[Assignment]) -> None:
        """Put runs that were given into groups."""
        if not assignments:
            return
        if self.workload.lanes == 1:
            self._alone.extend((assignment, "") for assignment in assignments)
            return
        with clean_process(self.workload.threads):
            try:
                objective = load(self.workload.objective)
            except ObjectiveError:
                objective = None
            for assignment in assignments:
                if isinstance(objective, TrainingTask):
                    self._place(assignment, objective)
                else:  # a plain function; or the ordinary way says what is wrong
                    self._alone.append((assignment, ""))

    def _place(self, assignment: Assignment, task: TrainingTask) -> None:
        if self._never:
            self._alone.append((assignment, self._never))
            return
        changes: list[str] = []
        try:
            member = prepare_member(assignment, task, self.workload, self._device, self.stopped, changes)
        except CannotFuse as reason:
            self._alone.append((assignment, str(reason)))
        except BaseException:  # noqa: BLE001 - whatever its factory raises, the ordinary way reports it
            self._alone.append((assignment, ""))
        else:
            expect(member.steps, self._device)
            self._queue(member)
        if changes and self._placed:
            self._never = (
                f"{type(task).__name__}.model changes what all runs share ({', '.join(changes[:3])}); "
                "a number that loss or metrics need is better an attribute of the module, and part of its output"
            )
        self._placed = self._placed or bool(self._groups)
        if self._never:
            self._all_alone(self._never)

    def _all_alone(self, reason: str) -> None:
        """From now on no two runs train together."""
        self._never = reason
        self._go_alone([member for queue in self._groups.values() for member in queue], reason)
        for queue in self._groups.values():
            queue.clear()
        self._groups.clear()

    def _go_alone(self, members: Sequence[Member], reason: str) -> None:
        """From where they stand."""
        for member in members:
            if member.states:
                member.course.save(member.states)
            self._alone.append((replace(member.assignment, from_epoch=member.course.epoch), reason))

    def _queue(self, member: Member) -> None:
        self._groups.setdefault(self._place_of(member), deque()).append(member)

    def _put_back(self, members: Sequence[Member]) -> None:
        """In front of those that wait, in their order."""
        for member in reversed(members):
            self._groups.setdefault(self._place_of(member), deque()).appendleft(member)

    def _place_of(self, member: Member) -> Place:
        return (member.key, member.parted(self._parted.get(member.key, 0))), member.pace

    def _train_group(self, key: Place) -> None:
        queue = self._groups[key]
        with clean_process(self.workload.threads):
            load(self.workload.objective)  # its folder is on sys.path while it trains
            group = self._resumed(key) or self._begun(key)
            if group is not None:
                self._train_lanes(group, key[1])
        if not queue and self._groups.get(key) is queue:
            del self._groups[key]

    def _train_lanes(self, group: Group, first: Hashable) -> None:
        """Until none of its lanes has a run, and none of the pace of the first ones waits; then it is kept."""
        reason = group.reason
        while group.members:
            key = self._place_of(group.members[0])[0]
            ended = group.run_epoch(self.send)
            if ended.over:
                self._settle(ended, group)
                return
            if group.members and group.reason != reason:  # a rung was left after the beginning: in validation
                reason = group.reason
                self._say(group, group.members)
            self._take(self.more())
            if self._never:
                self._go_alone(group.disband(), self._never)
                return
            # Where lanes share their batches, with runs of their pace.
            self._fill(group, self._place_of(group.members[0]) if group.members else (key, first))
        self._kept = key, group

    def _resumed(self, key: Place) -> Group | None:
        """The group that was kept, with the first of these runs in its lanes; None where it is not theirs."""
        if self._kept is None or self._kept[0] != key[0]:
            self._let_go()
            return None
        group = self._kept[1]
        group.resume()
        self._fill(group, key)
        if not group.members:  # they begin one of their own
            self._let_go()
            return None
        self._say(group, [*group.members, *self._groups.get(key, ())])
        return group

    def _let_go(self) -> None:
        """Free what the group that was kept has."""
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def _begun(self, key: Place) -> Group | None:
        """A new group of the first of these runs; None where they cannot be one: they are placed otherwise."""
        queue = self._groups[key]
        first = [queue.popleft() for _ in range(min(len(queue), self._most))]
        group = Group(first, self.workload, self._most, self._device)
        try:
            ended, waiting = group.begin()
        except CannotFuse as reason:
            group.close()
            if reason.never:
                self._go_alone(first, str(reason))
                self._all_alone(str(reason))
            else:
                self._part([*first, *queue], key, reason)
            return None
        queue.extendleft(reversed(waiting))
        if ended.over:
            self._settle(ended, group)
            return None
        self._say(group, [*group.members, *queue])
        return group

    def _settle(self, ended: Ended, group: Group) -> None:
        """What an epoch could not go on with: too little memory, or an exception whose nobody knows."""
        if ended.too_large:
            self._most = max(1, len(ended.members) // 2)
            self._put_back(ended.members)
            reason = f"out of memory with {len(ended.members)} lanes"
            self._report(ended.members, f"{group.engine}", self._most, reason)
        elif ended.sift and len(ended.members) > 1:
            self._sift(ended)
        else:
            self._go_alone(ended.members, ended.reason)
        if ended.never:
            self._all_alone(ended.reason)

    def _sift(self, ended: Ended) -> None:
        """Train an epoch in halves, and halves of what raises again, until that goes alone; the others join again."""
        order, fine = {member.assignment.run: k for k, member in enumerate(ended.members)}, list[Member]()
        parts = deque(_halves(ended.members))
        while parts:
            some = parts.popleft()
            group = Group(some, self.workload, len(some), self._device, captured=False)
            ended, _ = group.begin()
            if not ended.over:
                ended = group.run_epoch(self.send)
            if not ended.over:
                fine += group.disband()
            elif len(ended.members) > 1 and (ended.sift or ended.too_large):
                parts.extend(_halves(ended.members))
            else:
                self._go_alone(ended.members, ended.reason)
        self._put_back(sorted(fine, key=lambda member: order[member.assignment.run]))

    def _fill(self, group: Group, place: Place) -> None:
        """Give free lanes to runs that wait there; where one cannot join, it and those behind it are parted."""
        queue = self._groups.get(place, deque())
        while queue and len(group.members) < min(self._most, group.slots):
            try:
                group.add(queue[0])
            except CannotFuse as reason:
                if group.members:
                    self._part(list(queue), place, reason, group.members)
                return
            queue.popleft()
        if not queue:
            self._groups.pop(place, None)

    def _part(self, members: Sequence[Member], key: Place, reason: CannotFuse, joined: Sequence[Member] = ()) -> None:
        """Try again with lanes that differ in less; where they differ in nothing, each trains alone.

        ``joined``: those of the group that have lanes, which they keep.
        """
        del self._groups[key]
        form = members[0].key
        level = self._parted.get(form, 0)
        parted = self._place_of(members[0]) != key  # meanwhile, for the sake of others
        differ = level < 2 and not reason.alike and len({member.parted(2) for member in [*joined, *members]}) > 1
        if parted or differ:
            self._parted[form] = level if parted else level + 1
            for member in members:
                self._queue(member)
            return
        self._go_alone(members, str(reason))

    def _say(self, group: Group, members: Sequence[Member]) -> None:
        self._report(members, group.engine, len(group.members), group.reason)

    def _report(self, members: Sequence[Member], engine: str, lanes: int, reason: str) -> None:
        runs = tuple(member.assignment.run for member in members)
        self.send([Grouped(runs=runs, engine=engine, device=self._device, lanes=lanes, reason=reason)])

    def _train_alone(self, assignment: Assignment, reason: str) -> None:
        if reason:
            runs = tuple(a.run for a, why in [(assignment, reason), *self._alone] if why == reason)
            if reason not in self._said:
                self._said.add(reason)
                self.send([Grouped(runs=runs, engine="solo", device=self._device, lanes=1, reason=reason)])
        self.alone()
        worker.execute(
            assignment,
            self.workload,
            send=lambda report: self.send([report]),
            stopped=lambda: self.stopped(assignment.run),
            device=self._device,
        )


def _halves(members: Sequence[Member]) -> list[Sequence[Member]]:
    middle = len(members) // 2
    return [members[:middle], members[middle:]]
