"""The runs that wait for a worker, in the order in which they are to begin; and quarantine for runs that lose workers.

When a worker is lost with several runs in hand, nobody knows which of them did it, so it is charged to them together.
The first time they are tried again as a group, on a worker of their own. When a group loses its worker, it is halved,
and so on down to single runs; a run that was alone is charged by its own budget. So one poisonous run among K costs
each of the others at most log2(K) + 1 more attempts. A group that comes through is no group any more.

Pure data: no clock, no I/O. A new coordinator starts without groups, which costs one more attempt at most.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import final

from hpsearch.trial import Lost, RunKey


@final
class Backlog:
    """The runs that wait.

    Args:
        place: a run's place in the study; the lowest begins first.
    """

    def __init__(self, place: Callable[[RunKey], tuple[int, ...]]) -> None:
        self._place = place
        self._ordinary: list[tuple[bool, tuple[int, ...], RunKey]] = []
        #: the members of each group that have not ended, in order; a worker has them all, or they all wait
        self._groups: dict[int, list[RunKey]] = {}
        self._group_of: dict[RunKey, int] = {}
        #: members of groups that no worker has
        self._back: set[RunKey] = set()
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._ordinary) + len(self._back)

    def add(self, runs: Iterable[RunKey], *, first: bool = False) -> None:
        """These runs wait; ``first``: before all that are not (runs that were let go on at a rung)."""
        for key in runs:
            if key in self._group_of:
                self._back.add(key)
            else:
                heapq.heappush(self._ordinary, (not first, self._place(key), key))

    def leave(self, key: RunKey) -> None:
        """The run has ended or paused: it belongs to no group any more."""
        number = self._group_of.pop(key, None)
        if number is not None:
            self._groups[number].remove(key)
            if not self._groups[number]:
                del self._groups[number]

    def crashed(self, losses: Sequence[Lost]) -> None:
        """Workers are lost that had several runs in hand: these runs wait again, in quarantine."""
        together: dict[tuple[frozenset[RunKey], int | None], list[RunKey]] = defaultdict(list)
        for loss in losses:
            together[frozenset({loss.run, *loss.company}), self._group_of.get(loss.run)].append(loss.run)
        for (_, number), members in together.items():
            members.sort(key=self._place)
            self._back.update(members)
            if number is None:
                self._found(members)
            else:
                self._halve(number)

    def take(self, capacity: int, idle: int) -> list[tuple[RunKey, int | None]]:
        """The runs to start now, each with the number of its group (None: it shares a worker with any).

        Groups come first, each whole, on an idle worker. As nobody says how the free lanes are spread, a group is
        counted as all of ``capacity // idle`` lanes: no worker that has nothing in hand can have more. So ordinary
        runs never get a lane of a worker that a group has just been given; what is left free is filled at the next
        call.

        Args:
            capacity: lanes that are free, over all workers.
            idle: workers that have nothing in hand.
        """
        taken: list[tuple[RunKey, int | None]] = []
        lanes = capacity // idle if idle else 0
        for number in self._waiting(lanes) if lanes else []:
            if not idle:
                break
            taken += [(key, number) for key in self._groups[number]]
            self._back.difference_update(self._groups[number])
            capacity, idle = capacity - lanes, idle - 1
        for _ in range(min(capacity, len(self._ordinary))):
            taken.append((heapq.heappop(self._ordinary)[2], None))
        return taken

    def _waiting(self, lanes: int) -> list[int]:
        """The groups of which no worker has a run, lowest number first; one that no worker could take is halved."""
        for number in list(self._groups):
            self._fit(number, lanes)
        return [number for number in sorted(self._groups) if self._back.issuperset(self._groups[number])]

    def _fit(self, number: int, lanes: int) -> None:
        if len(self._groups[number]) > lanes and self._back.issuperset(self._groups[number]):
            for half in self._halve(number):
                self._fit(half, lanes)

    def _found(self, members: Sequence[RunKey]) -> int:
        number = next(self._numbers)
        self._groups[number] = list(members)
        self._group_of.update(dict.fromkeys(members, number))
        return number

    def _halve(self, number: int) -> list[int]:
        members = self._groups.pop(number)
        middle = (len(members) + 1) // 2
        return [self._found(half) for half in (members[:middle], members[middle:]) if half]
