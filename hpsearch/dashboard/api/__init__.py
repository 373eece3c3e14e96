"""``/api/v1``: a file a noun. The pages use nothing else."""

from __future__ import annotations

from hpsearch.dashboard.api import figures

ROUTERS = (figures.router,)
