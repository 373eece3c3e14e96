"""The pages: a file a noun, a template each in ``templates/``. What they show comes with them as HTML; pictures are
asked for when they come into sight.
"""

from __future__ import annotations

from hpsearch.dashboard.pages import docs, overview, run, studies, trial, trials

ROUTERS = (studies.router, overview.router, trials.router, trial.router, run.router, docs.router)
