"""The pages: a file a noun, a template each in ``templates/``. What they show comes with them as HTML; pictures are
asked for when they come into sight.
"""

from __future__ import annotations

from hpsearch.dashboard.pages import (
    compare,
    diagnostics,
    grid_or_random,
    overview,
    params,
    rounds,
    ship,
    studies_compare,
    workers,
)

ROUTERS = (
    overview.router,
    compare.router,
    studies_compare.router,
    params.router,
    rounds.router,
    grid_or_random.router,
    diagnostics.router,
    ship.router,
    workers.router,
)
