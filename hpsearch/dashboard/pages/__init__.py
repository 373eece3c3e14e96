"""The pages: a file a noun, a template each in ``templates/``. What they show comes with them as HTML; pictures are
asked for when they come into sight.
"""

from __future__ import annotations

from hpsearch.dashboard.pages import (
    compare,
    diagnostics,
    docs,
    grid_or_random,
    overview,
    params,
    rounds,
    run,
    ship,
    studies,
    studies_compare,
    trial,
    trials,
    workers,
)

ROUTERS = (
    studies.router,
    overview.router,
    trials.router,
    trial.router,
    run.router,
    params.router,
    rounds.router,
    grid_or_random.router,
    compare.router,
    studies_compare.router,
    diagnostics.router,
    workers.router,
    ship.router,
    docs.router,
)
