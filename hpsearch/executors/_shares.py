"""Who gets what: assignments dealt out evenly over workers, groups to workers of their own."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment

Place = TypeVar("Place", bound=Hashable)


def spread(
    assignments: Sequence[Assignment], rooms: Mapping[Place, int], lanes: int, cold: Collection[Place], whose: str
) -> dict[Place, list[Assignment]]:
    """Give each to the place that has the fewest, of those the warm ones first; a group to one that has none.

    Args:
        assignments: no more than there is room for.
        rooms: place -> how many more runs it takes; as many as ``lanes`` where it has nothing in hand.
        lanes: how many runs a place takes at once.
        cold: places whose workers have yet to start.
        whose: ``a local executor``, for the message.

    Raises:
        ExecutorError: there are more groups than idle places, one is larger than a place, or the groups leave too
            little room for the others.
    """
    idle = sorted((place for place, room in rooms.items() if room == lanes), key=cold.__contains__)
    groups: dict[int, list[Assignment]] = {}
    for assignment in assignments:
        if assignment.group is not None:
            groups.setdefault(assignment.group, []).append(assignment)
    if len(groups) > len(idle) or any(len(group) > lanes for group in groups.values()):
        sizes = ", ".join(str(len(group)) for group in groups.values())
        raise ExecutorError(
            f"groups of {sizes} runs were started on {whose} with {len(idle)} idle workers of {lanes} lanes"
        )
    shares = dict(zip(idle, groups.values(), strict=False))
    loads = {place: lanes - room for place, room in rooms.items() if place not in shares and room}
    singles = [assignment for assignment in assignments if assignment.group is None]
    if len(singles) > lanes * len(loads) - sum(loads.values()):
        raise ExecutorError(f"{len(singles)} runs were started beside groups that leave them too few workers")
    for assignment in singles:
        place = min(loads, key=lambda place: (loads[place], place in cold))
        loads[place] += 1
        shares.setdefault(place, []).append(assignment)
    return shares
