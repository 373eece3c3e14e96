"""Who may do what."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Role(StrEnum):
    """What a route needs."""

    #: nothing: it says nothing of the record
    OPEN = "open"
    READ = "read"
    ACT = "act"


def role(needed: Role) -> Callable[[F], F]:
    """Mark an endpoint with what it needs; one that is not marked is refused."""

    def mark(endpoint: F) -> F:
        endpoint.hpsearch_role = needed  # type: ignore[attr-defined]
        return endpoint

    return mark


def role_of(endpoint: Any) -> Role | None:
    """What an endpoint needs; None where nobody has said."""
    found: Role | None = getattr(endpoint, "hpsearch_role", None)
    return found
