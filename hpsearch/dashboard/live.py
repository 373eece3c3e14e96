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
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, final

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hpsearch.dashboard.access import Role, role
from hpsearch.dashboard.login import address_of
from hpsearch.dashboard.problem import Details, Problem, of_unexpected
from hpsearch.dashboard.record import Record
from hpsearch.dashboard.wanted import TheRecord
from hpsearch.errors import HpsearchError

#: seconds between two looks at the record, while someone waits
EVERY_S = 1.0
#: studies of one stream
MOST = 50
#: the name that stands for all studies
ALL = "*"
#: streams that are open at once, of one address and in all: a browser needs one for all its tabs
STREAMS_OF_ONE, STREAMS = 50, 200
#: seconds after which one who was refused may try again; who asks (``/changes``) needs no stream
AGAIN_S = 30


@final
class Watch:
    """Looks at the record for all streams of a server."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._changed = asyncio.Condition()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        #: address -> its open streams
        self._open: Counter[str] = Counter()
        self._trouble = ""
        #: study -> its revision; ``ALL`` -> that of all
        self.now: Mapping[str, str] = {}

    async def look(self) -> Mapping[str, str]:
        """The record's revisions; those of the last look where it cannot be read now."""
        try:
            found = await run_in_threadpool(self._record.revisions)
        except HpsearchError:
            return self.now
        except Exception as error:  # noqa: BLE001 - whatever it is, all streams would fall silent
            if repr(error) != self._trouble:  # once, not each second
                self._trouble = repr(error)
                of_unexpected(error)
            return self.now
        self._trouble = ""
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

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Hold a place among the open streams.

        Raises:
            Problem: too many are open, of this address or in all.
        """
        of_one, of_all = self._open[address], self._open.total()
        if of_one >= STREAMS_OF_ONE or of_all >= STREAMS:
            mine = of_one >= STREAMS_OF_ONE
            whose = f"of this address, {STREAMS_OF_ONE}," if mine else f"of this server, {STREAMS},"
            hint = f"ask GET /api/v1/changes every few seconds, or try again in {AGAIN_S} s"
            headers = {"retry-after": str(AGAIN_S)}
            raise Problem(Details(status=429, detail=f"all streams {whose} are open", hint=hint, headers=headers))
        self._open[address] += 1
        try:
            yield
        finally:
            self._open[address] -= 1
            self._open += Counter()  # forgets addresses without any

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()
        if self._task is not None:
            self._task.cancel()

    async def _keep_looking(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(EVERY_S)
                await self.look()
        finally:
            self._task = None  # so that the next stream has someone look again


def chosen(now: Mapping[str, str], studies: Sequence[str]) -> dict[str, str]:
    """The revisions of these studies; empty for one that is gone."""
    return {study: now.get(study, "") for study in studies}


def digest(revisions: Mapping[str, str]) -> str:
    """A short name for a state of the record."""
    text = json.dumps(revisions, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@final
class Stream(StreamingResponse):
    """Server-sent events, counted while it is open.

    Args:
        watch: counts it.
        events: as bytes.
    """

    def __init__(self, watch: Watch, events: AsyncIterator[bytes]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a stream too many is a problem instead."""
        with self._watch.place(address_of(scope)):
            await super().__call__(scope, receive, send)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Streams live as long as the application."""
    app.state.watch = Watch(app.state.record)
    try:
        yield
    finally:
        await app.state.watch.close()
        app.state.record.workshop.close()


router = APIRouter(prefix="/api/v1", tags=["live"])
TheStudies = Annotated[
    list[str], Query(alias="study", description="the studies' names; `*`: all", min_length=1, max_length=MOST)
]


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={429: {"description": "Too many streams are open; `/changes` says the same."}},
)
@role(Role.READ)
async def events(
    request: Request,
    studies: TheStudies,
    last_event_id: Annotated[str, Header(description="the last event that arrived", max_length=64)] = "",
) -> Stream:
    """A stream of server-sent events: the revisions of these studies, whenever one of them changes."""
    watch: Watch = request.app.state.watch

    async def stream() -> AsyncIterator[bytes]:
        # At once, so that the browser knows that it is connected; and how soon to come back.
        yield b"retry: 1000\n\n"
        async for name, revisions in watch.changes(studies, last_event_id):
            yield format_sse_event(id=name, event="change", data_str=json.dumps(revisions))

    return Stream(watch, stream())


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
