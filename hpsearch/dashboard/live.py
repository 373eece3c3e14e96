"""What has changed: one look at the record a second for all who wait, and nothing sent where nothing happens.

A page says which studies it shows (``*``: all of them). A stream begins with an event where ``Last-Event-ID`` is not
the present state, so whoever comes back, also to a restarted server, has missed nothing; then an event a change:

    id: 5c9f0a1b2c3d4e5f
    event: change
    data: {"digits": "41-running-0-0"}
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, final

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.record import Record
from hpsearch.dashboard.wanted import TheRecord
from hpsearch.errors import HpsearchError

#: seconds between two looks at the record, while someone waits
EVERY_S = 1.0
#: studies of one stream
MOST = 50
#: the name that stands for all studies
ALL = "*"


@final
class Watch:
    """Looks at the record for all streams of a server."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._changed = asyncio.Condition()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        #: study -> its revision; ``ALL`` -> that of all
        self.now: Mapping[str, str] = {}

    async def look(self) -> Mapping[str, str]:
        """The record's revisions; those of the last look where it cannot be read now."""
        try:
            found = await run_in_threadpool(self._record.revisions)
        except HpsearchError:
            return self.now
        now = {**found, ALL: digest(found)}
        if now != self.now:
            self.now = now
            async with self._changed:
                self._changed.notify_all()
        return self.now

    async def changes(self, studies: Sequence[str], known: str) -> AsyncIterator[tuple[str, dict[str, str]]]:
        """(id, study -> revision) whenever these are not what ``known`` was."""
        self._waiting += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep_looking())
        try:
            await self.look()
            while not self._closed:
                mine = chosen(self.now, studies)
                if digest(mine) != known:
                    known = digest(mine)
                    yield known, mine
                    continue
                async with self._changed:
                    if digest(chosen(self.now, studies)) == known and not self._closed:
                        await self._changed.wait()
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()
        if self._task is not None:
            self._task.cancel()

    async def _keep_looking(self) -> None:
        while self._waiting:
            await asyncio.sleep(EVERY_S)
            await self.look()
        self._task = None


def chosen(now: Mapping[str, str], studies: Sequence[str]) -> dict[str, str]:
    """The revisions of these studies; empty for one that is gone."""
    return {study: now.get(study, "") for study in studies}


def digest(revisions: Mapping[str, str]) -> str:
    """A short name for a state of the record."""
    text = json.dumps(revisions, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Streams live as long as the application."""
    app.state.watch = Watch(app.state.record)
    app.state.record.apart.begin()
    try:
        yield
    finally:
        await app.state.watch.close()
        app.state.record.apart.close()


router = APIRouter(prefix="/api/v1", tags=["live"])
TheStudies = Annotated[
    list[str], Query(alias="study", description="the studies' names; `*`: all", min_length=1, max_length=MOST)
]


@router.get("/events", response_class=StreamingResponse)
@role(Role.READ)
async def events(
    request: Request,
    studies: TheStudies,
    last_event_id: Annotated[str, Header(description="the last event that arrived", max_length=64)] = "",
) -> StreamingResponse:
    """A stream of server-sent events: the revisions of these studies, whenever one of them changes."""
    watch: Watch = request.app.state.watch

    async def stream() -> AsyncIterator[bytes]:
        # At once, so that the browser knows that it is connected; and how soon to come back.
        yield b"retry: 1000\n\n"
        async for name, revisions in watch.changes(studies, last_event_id):
            yield format_sse_event(id=name, event="change", data_str=json.dumps(revisions))

    return StreamingResponse(
        stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


@router.get("/changes")
@role(Role.READ)
def changes(
    record: TheRecord,
    studies: TheStudies,
    since: Annotated[str, Query(description="the `id` of the last answer", max_length=64)] = "",
) -> Any:
    """The revisions of these studies now; 204 where they are still those of ``since``. For who cannot hold a stream."""
    found = record.revisions()
    mine = chosen({**found, ALL: digest(found)}, studies)
    if digest(mine) == since:
        return Response(status_code=204)
    return {"id": digest(mine), "revisions": mine}
