"""``hpsearch dashboard`` and ``hpsearch run --dashboard`` as a shell runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from hpsearch.dashboard.server import listen
from tests.cli.conftest import environment, write_studies

TOKEN = "0123456789abcdef" * 4
SECRET = "postgresql://u:CANARY@127.0.0.1:1/x?sslpassword=CANARY"


RUN = ["run", "slow.yaml", "--dashboard", "--workers", "1", "--progress", "none", "--grace", "0s"]


@contextmanager
def started(folder: Path, *tokens: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpsearch", *tokens],
        cwd=folder,
        env=environment(folder) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str, str]:
    """Exit code, and what it had still to say."""
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_it_shows_the_studies_and_changes_no_byte(finished: Path) -> None:
    before = {file.name: file.read_bytes() for file in finished.iterdir() if file.is_file()}
    with started(finished, "dashboard", "--port", "0") as process:
        assert process.stdout
        url = process.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", url)
        assert httpx2.get(f"{url.strip()}healthz").text == "ok\n"
        assert "toy" in httpx2.get(f"{url.strip()}s/toy").text
        with httpx2.stream("GET", f"{url.strip()}api/v1/events?study=toy") as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("retry")
            began = time.monotonic()
            code, out, err = ended(process)
            assert time.monotonic() - began < 2.5
            assert "event: change" in list(lines)  # and then it ended in good order
    assert (code, out) == (0, "")
    assert err == "shows sqlite:///hpsearch.db; Ctrl-C ends it\n"
    assert before == {file.name: file.read_bytes() for file in finished.iterdir() if file.is_file()}


def test_as_json_it_is_one_object_and_open_opens_a_browser(finished: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    tokens = ["dashboard", "--port", "0", "--json", "--open", "--token", TOKEN]
    with started(finished, *tokens, BROWSER=f"{browser} %s") as process:
        assert process.stdout
        said = json.loads(process.stdout.readline())
        assert said.keys() == {"schema", "url", "db"}
        opened = tmp_path / "opened"
        end = time.monotonic() + 10
        while not (opened.exists() and opened.read_text().strip()):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert opened.read_text().strip() == said["url"]
        assert "login?code=" in said["url"]
        base = said["url"].partition("login")[0]
        assert httpx2.get(f"{base}s/toy").status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{base}s/toy", headers=bearer).status_code == 200
        code, out, err = ended(process, signal.SIGTERM)
    assert code == 0
    assert "better HPSEARCH_TOKEN" in err  # a command line is seen by others
    assert TOKEN not in out + err


def test_other_machines_need_a_token_and_a_name(folder: Path, hpsearch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*tokens: str) -> str:
        done = hpsearch("dashboard", "--port", "0", *tokens)
        assert (done.code, done.out) == (2, "")
        assert max(map(len, done.err.splitlines())) <= 100
        return done.err

    assert "needs a token" in refused("--host", "0.0.0.0")
    assert "fewer than 16" in refused("--token", "short")
    monkeypatch.setenv("HPSEARCH_TOKEN_FILE", "none")
    assert "none cannot be read: No such file" in refused()
    monkeypatch.setenv("HPSEARCH_TOKEN_FILE", "token")
    (folder / "token").write_text("\n")
    assert "token is empty" in refused()
    monkeypatch.setenv("HPSEARCH_TOKEN", TOKEN)
    assert "needs --allowed-hosts" in refused("--host", "0.0.0.0")


def test_beyond_this_machine_everything_needs_the_token(finished: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    tokens = ["dashboard", "--host", "0.0.0.0", "--port", "0", "--allowed-hosts", "hps.test,127.0.0.1", "--access-log"]
    with started(finished, *tokens, HPSEARCH_TOKEN_FILE=str(secret)) as process:
        assert process.stdout
        printed = httpx2.URL(process.stdout.readline().strip())
        assert (printed.host, printed.path) == ("hps.test", "/")  # no code: it may stand in a log
        base = f"http://127.0.0.1:{printed.port}/"
        assert httpx2.get(f"{base}healthz").status_code == 200
        assert httpx2.get(base).status_code == 401
        assert httpx2.get(base, headers={"host": "0.0.0.0"}).status_code == 421
        with httpx2.Client(
            follow_redirects=True, headers={"origin": base.rstrip("/"), "accept": "text/html"}
        ) as client:
            assert "Log in" in client.get(f"{base}s/toy").text
            assert "Best trials" in client.post(f"{base}login", data={"token": TOKEN, "after": "/s/toy"}).text
        code, _, err = ended(process)
    assert code == 0
    assert "unencrypted" in err
    assert "POST /login 303" in err
    assert TOKEN not in err


def test_a_taken_port_and_a_strange_database_are_said(folder: Path, hpsearch) -> None:
    with listen("127.0.0.1", 0).socket as taken:
        done = hpsearch("dashboard", "--port", str(taken.getsockname()[1]))
    assert done.code == 2
    assert "is taken" in done.err
    assert "--port 0" in done.err
    done = hpsearch("dashboard", "--db", "mysql://u:CANARY@h/x")
    assert done.code == 6
    assert "CANARY" not in done.err


def test_a_password_of_the_database_is_nowhere(finished: Path) -> None:
    with started(finished, "dashboard", "--port", "0", "--access-log", HPSEARCH_DB=SECRET) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        paths = ("s/x", "api/v1/studies/x/figures/history", "healthz")
        answers = [httpx2.get(f"{url}{path}", timeout=30) for path in paths]
        assert [answer.status_code for answer in answers] == [503, 503, 200]
        assert answers[0].json()["hint"]
        code, out, err = ended(process)
    assert code == 0
    assert "CANARY" not in "".join([out, err, *(f"{a.text} {a.headers}" for a in answers)])
    assert "u:***@127.0.0.1" in err


def test_without_its_libraries_it_says_how_to_get_them(finished: Path) -> None:
    code = "import sys; sys.modules['fastapi'] = None\nfrom hpsearch.cli.app import main\nmain()"
    for tokens in (["dashboard"], ["run", "toy.yaml", "--dashboard"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *tokens],
            cwd=finished,
            env=environment(finished),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert "error: the dashboard needs fastapi" in done.stderr
        assert "pip install 'hpsearch[dashboard]'" in done.stderr


def test_a_study_that_runs_is_shown_until_it_ends(tmp_path: Path) -> None:
    write_studies(tmp_path)
    with started(
        tmp_path, "run", "slow.yaml", "--dashboard", "--workers", "1", "--progress", "none", "--grace", "0s"
    ) as process:
        url = address_of(process)
        (child,) = [one for one in psutil.Process(process.pid).children() if "dashboard" in one.cmdline()]
        assert "slow" in wait_for(f"{url}s/slow")
        code, out, _ = ended(process)
    assert (code, out) == (130, "slow\n")
    assert gone(child)


def test_it_does_not_outlive_a_study_that_is_killed(tmp_path: Path) -> None:
    write_studies(tmp_path)
    with started(tmp_path, *RUN) as process:
        address_of(process)
        (child,) = [one for one in psutil.Process(process.pid).children() if "dashboard" in one.cmdline()]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert gone(child)


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    for line in process.stderr:
        if line.startswith("dashboard "):
            return line.split()[1]
    raise AssertionError("no address was printed")


def wait_for(url: str) -> str:
    end = time.monotonic() + 30
    while (answer := httpx2.get(url)).status_code != 200:
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)
    return answer.text


def gone(process: psutil.Process) -> bool:
    _, alive = psutil.wait_procs([process], timeout=8)
    return not alive
