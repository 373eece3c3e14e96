"""Stands between a client and PostgreSQL, and cuts the connection exactly at a COMMIT."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Literal, Self

#: the first packets of a connection have no type; these two ask for encryption, and the real one follows
ENCRYPTION = (80877103, 80877104)
COMMIT = b"COMMIT\0"

#: before: the server never hears of the COMMIT; after: it has committed, and its answer is lost
#: swallow: the connection stays, and nothing comes through it any more, either way
Where = Literal["before", "after", "swallow before", "swallow after"]


class Proxy:
    """Listens on ``port`` and passes everything on to the server's, until a COMMIT that it is to cut.

    Args:
        server: the server's port on 127.0.0.1.
        cuts: number of a COMMIT, counted from 1 over all connections -> where it is cut.
    """

    def __init__(self, server: int, cuts: dict[int, Where]) -> None:
        self.port = 0
        self.commits = 0
        #: cuts that have happened
        self.cut = 0
        self._server, self._cuts = server, cuts
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(self._loop.create_task(self._connect(reader, writer)))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._server)
            ends.append(back)
            answers = self._loop.create_task(_pass_on(there, writer))
            self._tasks.add(answers)
            where, message = await self._requests(reader, back)
            answers.cancel()
            await asyncio.wait([answers])
            if where.endswith("after"):
                back.write(message)
                await there.read(1 << 16)  # the answer: it has committed
            self.cut += 1
            if where.startswith("swallow"):
                while await reader.read(1 << 16):
                    pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # one of the two has gone
        finally:
            for end in ends:
                end.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> tuple[Where, bytes]:
        """Pass messages on, up to the COMMIT that is to be cut, which is returned."""
        started = False
        while True:
            kind = await reader.readexactly(1) if started else b""
            size = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(size) - 4)
            if not started:
                started = int.from_bytes(body[:4]) not in ENCRYPTION
            if kind == b"Q" and body == COMMIT:
                self.commits += 1
                if where := self._cuts.get(self.commits):
                    return where, kind + size + body
            server.write(kind + size + body)
            await server.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        # The server has ended the connection.
        writer.close()
