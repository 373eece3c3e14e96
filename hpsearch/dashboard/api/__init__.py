"""``/api/v1``: a file a noun. The pages use nothing else.

``models`` and ``conclusions`` are what answers look like, ``hpsearch.shapes`` makes them, as for ``--json``,
``answer`` is what all answers have in common, ``asked`` what actions are asked, ``looking`` how the test set is looked
at, ``schema`` is how OpenAPI tells of them.
"""

from __future__ import annotations

from hpsearch.dashboard.api import actions, compare, figures, history, importance, metrics, runs, studies, trials
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
    figures.router,
    metrics.router,
    actions.router,
)
