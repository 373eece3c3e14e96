"""The server in processes of its own: what it prints, how it ends, and that slow or hostile callers get nowhere."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from hpsearch.dashboard.server import listen
from hpsearch.errors import UsageError

ROOT = Path(__file__).parents[2]
#: a small application with a stream that never ends and a request that computes for long
PROGRAM = """
import asyncio, sys, time
from collections.abc import AsyncIterator
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from hpsearch.dashboard import guard, server
from hpsearch.dashboard.access import Role, role

def make(access):
    app = FastAPI(openapi_url=None)

    @app.get("/")
    @role(Role.READ)
    def hello():
        return "hello"

    @app.get("/stream")
    @role(Role.READ)
    async def stream():
        async def told():
            for number in range(10**9):
                yield f"data: {number}\\n\\n"
                await asyncio.sleep(0.05 if number < 3 else 3600)
        return StreamingResponse(told(), media_type="text/event-stream")

    @app.get("/slow")
    @role(Role.READ)
    def slow():
        print("computing", flush=True)
        time.sleep(3600)

    @app.get("/crash")
    @role(Role.READ)
    def crash():
        raise RuntimeError("postgresql://u:CANARY@db/x")

    guard.install(app, access)
    return app

server.HEADERS_S = float(sys.argv[1])
served = server.Served(port=0, access_log=True, allow_actions=len(sys.argv) > 2)
server.serve(make, served, ready=lambda url: print(url, flush=True), tell=lambda text: print(text, flush=True))
print("ended", flush=True)
"""


class Running:
    """A server, and what it has printed."""

    def __init__(self, *arguments: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = self.line()

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    @property
    def port(self) -> int:
        return httpx2.URL(self.url).port or 0

    def end(self, number: int) -> tuple[float, int, str, str]:
        """Seconds that it took, exit code, what it had still to say."""
        began = time.monotonic()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return time.monotonic() - began, self.process.returncode, out, err


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    arguments = getattr(request, "param", ["10"])
    server = Running(*arguments)
    yield server
    if server.process.poll() is None:
        server.process.kill()
    server.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_within_two_seconds_with_streams_open(running: Running, number: int) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", running.url)
    ended = threading.Event()
    with httpx2.Client() as client:
        assert client.get(running.url).text == '"hello"'
        streams = [client.stream("GET", f"{running.url}stream") for _ in range(3)]
        opened = [stream.__enter__() for stream in streams]
        lines = [answer.iter_lines() for answer in opened]
        # Unbuffered: the first events are here while the stream goes on.
        assert [next(line) for line in lines] == ["data: 0"] * 3
        assert opened[0].headers["content-security-policy"]

        def rest() -> None:
            assert "data: 2" in list(lines[0])  # which ends in good order: a torn one would raise
            ended.set()

        reader = threading.Thread(target=rest)
        reader.start()
        time.sleep(0.3)
        seconds, code, out, err = running.end(number)
        reader.join(5)
        assert ended.is_set()
    assert code == 0
    assert out == "ended\n"
    assert seconds < 2.5
    assert err.splitlines() == ["GET / 200", *["GET /stream 200"] * 3]


def test_it_ends_though_a_request_computes(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as caller:
        caller.sendall(b"GET /slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert running.line() == "computing"
        seconds, code, _, err = running.end(signal.SIGTERM)
    assert code == 0
    assert seconds < 2.8
    assert err == ""


def test_the_log_says_what_happened_without_queries_secrets_or_noise(running: Running) -> None:
    httpx2.get(f"{running.url}?token=CANARY")
    assert "CANARY" not in httpx2.get(f"{running.url}crash").text
    with socket.create_connection(("127.0.0.1", running.port)) as stranger:
        stranger.sendall(b"CANARY nonsense\r\n\r\n")
        assert b"400" in stranger.recv(1000)
    upgrade = {"connection": "upgrade", "upgrade": "websocket"}
    assert httpx2.get(f"{running.url}?CANARY", headers=upgrade).status_code == 200
    _, _, _, err = running.end(signal.SIGINT)
    assert "CANARY" not in err
    assert "RuntimeError: postgresql://u:***@db/x" in err
    assert [line for line in err.splitlines() if line.startswith("GET")] == ["GET / 200", "GET /crash 500", "GET / 200"]


@pytest.mark.parametrize("running", [["10", "actions"]], indirect=True)
def test_the_printed_address_logs_in_once_and_the_next_is_printed(running: Running) -> None:
    found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)login\?code=([\w-]{43})", running.url)
    assert found
    answer = httpx2.get(running.url)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "server" not in answer.headers
    assert running.line().startswith(f"for another browser: {found[1]}login?code=")
    assert httpx2.get(running.url).status_code == 401
    _, _, _, err = running.end(signal.SIGINT)
    assert found[2] not in err


@pytest.mark.parametrize("running", [["0.3"]], indirect=True)
def test_who_says_nothing_is_shown_out(running: Running) -> None:
    for said in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "):
        with socket.create_connection(("127.0.0.1", running.port)) as slow:
            slow.settimeout(5)
            slow.sendall(said)
            assert slow.recv(1000) == b""
    with httpx2.Client() as client:  # who asks again in time stays
        for _ in range(3):
            assert client.get(running.url).status_code == 200
            time.sleep(0.2)


def test_a_taken_port_is_said_with_the_way_out() -> None:
    with listen("127.0.0.1", 0).socket as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken") as caught:
            listen("127.0.0.1", port)
        assert "--port 0" in caught.value.hint


def test_an_address_of_elsewhere_is_said() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1 is no address of this machine"):
        listen("192.0.2.1", 0)
    with pytest.raises(UsageError, match="is no address"):
        listen("no such host!", 0)
    with pytest.raises(UsageError, match="70000 is no port"):
        listen("127.0.0.1", 70_000)


@pytest.mark.parametrize(("host", "loopback"), [("localhost", True), ("127.0.0.2", True), ("0.0.0.0", False)])
def test_what_others_can_reach_is_known(host: str, loopback: bool) -> None:
    listener = listen(host, 0)
    with listener.socket:
        assert listener.loopback == loopback
        assert listener.socket.getsockname()[1] == httpx2.URL(listener.url).port
