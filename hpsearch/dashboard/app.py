"""The web application: routes by room, one record, one guard."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from hpsearch import __version__
from hpsearch.dashboard import api, guard, live, pages
from hpsearch.dashboard.access import Access, Role, role
from hpsearch.dashboard.record import Record

STATIC = Path(__file__).parent / "static"


def make_app(record: Record, access: Access) -> FastAPI:
    """The dashboard over a record, guarded."""
    app = FastAPI(
        title="hpsearch",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # FastAPI's page loads its script from a CDN; /docs is one of ours
        redoc_url=None,
        lifespan=live.lifespan,
    )
    app.state.record = record
    app.include_router(_health())
    for router in (*api.ROUTERS, live.router):
        app.include_router(router, responses=api.PROBLEMS)
    for router in pages.ROUTERS:
        app.include_router(router)
    api.describe(app)
    app.mount("/static", role(Role.OPEN)(StaticFiles(directory=STATIC)), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=6)
    guard.install(app, access)
    return app


def _health() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    @role(Role.OPEN)
    def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    return router
