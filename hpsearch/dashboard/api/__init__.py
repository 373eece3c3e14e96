"""``/api/v1``: a file a noun. What is computed of a study, pages and API have from the same functions (``rounds``,
``workers``, ``diagnosis`` ... beside this folder).

``models``, ``conclusions`` and ``courses`` are what answers look like, ``hpsearch.shapes`` makes those that ``--json``
prints too, ``answer`` is what all answers have in common, ``asked`` what actions are asked, ``looking`` how the test
set is looked at, ``schema`` is how OpenAPI tells of them.
"""

from __future__ import annotations

from hpsearch.dashboard.api import (
    actions,
    compare,
    figures,
    history,
    importance,
    judgement,
    metrics,
    runs,
    studies,
    trials,
)
from hpsearch.dashboard.api.answer import PROBLEMS
from hpsearch.dashboard.api.schema import describe

__all__ = ["PROBLEMS", "ROUTERS", "describe"]

ROUTERS = (
    studies.router,
    trials.router,
    runs.router,
    compare.router,
    importance.router,
    history.router,
    judgement.router,
    figures.router,
    metrics.router,
    actions.router,
)
