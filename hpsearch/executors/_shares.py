"""Who gets what: assignments dealt out evenly over workers, groups to workers of their own.

How many a worker gets is even; which ones, as they can train together. What parts lanes is hardly ever a float, so
runs that agree in everything else (optimizer, batch size, layers ...) are of one kind, and a kind stays on one worker
where it can: each kind that is on two workers is a group more. Dealing them out in turn would give a worker every
second point of a grid or of a Sobol sequence, which is one half of some parameter's range, and so the small batches.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from hpsearch.errors import ExecutorError
from hpsearch.executor import Assignment

Place = TypeVar("Place", bound=Hashable)


def spread(
    assignments: Sequence[Assignment], rooms: Mapping[Place, int], lanes: int, cold: Collection[Place], whose: str
) -> dict[Place, list[Assignment]]:
    """Give as many to each place as make what the places have even, the warm ones first; a group to one with none.

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
    counts: dict[Place, int] = {}
    for _ in singles:
        place = min(loads, key=lambda place: (loads[place], place in cold))
        loads[place] += 1
        counts[place] = counts.get(place, 0) + 1
    return shares | deal(singles, counts)


def deal(assignments: Sequence[Assignment], counts: Mapping[Place, int]) -> dict[Place, list[Assignment]]:
    """Whole kinds of runs to places, those with the most steps first, each to the place with the fewest steps.

    A group's epoch has as many steps as its batch size says, however many its lanes are, so a kind counts once. One
    that fits nowhere is parted, between seeds where it can be (lanes of streamed data have one seed). Pure: the same
    runs are dealt in the same way.

    Args:
        assignments: as many as the counts come to.
        counts: place -> how many it gets, at least 1.

    Returns:
        For each place its runs, in the order in which they were given.
    """
    kinds: dict[str, list[int]] = {}
    for k, assignment in enumerate(assignments):
        kinds.setdefault(_kind(assignment), []).append(k)
    steps, left = dict.fromkeys(counts, 0.0), dict(counts)
    dealt: dict[Place, list[int]] = {place: [] for place in counts}
    for members in sorted(kinds.values(), key=lambda members: -_steps(assignments[members[0]])):
        rest = sorted(members, key=lambda k: assignments[k].run.seed)
        while rest:
            roomy = [place for place in left if left[place] >= len(rest)] or [place for place in left if left[place]]
            place = min(roomy, key=steps.__getitem__)
            part, rest = rest[: left[place]], rest[left[place] :]
            dealt[place] += part
            left[place] -= len(part)
            steps[place] += _steps(assignments[part[0]])
    return {place: [assignments[k] for k in sorted(mine)] for place, mine in dealt.items()}


def _kind(assignment: Assignment) -> str:
    """Everything that it is trained with but for the floats, in which lanes may differ."""
    return repr(sorted((name, value) for name, value in assignment.params.items() if not isinstance(value, float)))


def _steps(assignment: Assignment) -> float:
    """Of an epoch, up to a factor that is the same for all; 1 where the params name no batch size."""
    size = assignment.params.get("batch_size")
    return 1.0 / size if isinstance(size, int) and size > 0 else 1.0
