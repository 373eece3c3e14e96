"""docker-compose.yml: what it promises is looked up in the file, and its commands are started here as processes.

There is no container engine in these tests: networks, capabilities and volumes are checked as they are written down.
"""

from __future__ import annotations

import inspect
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

import hpsearch as hp
from tests.postgres import PASSWORD, USER, Server

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(set(SERVICES) - {"postgres"})
LASTING = ["postgres", "ray-head", "ray-worker", "ray-worker-gpu", "dashboard"]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_there_is_a_service_for_each_part() -> None:
    assert set(SERVICES) == {"postgres", "ray-head", "ray-worker", "ray-worker-gpu", "hpsearch", "dashboard"}
    assert {name for name in SERVICES if not SERVICES[name].get("profiles")} == {"postgres", "ray-head", "ray-worker"}
    assert SERVICES["ray-worker-gpu"]["profiles"] == ["gpu"]
    (devices,) = SERVICES["ray-worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices["capabilities"] == ["gpu"]


def test_nothing_but_the_dashboards_port_is_published_and_that_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"dashboard": ["127.0.0.1:8787:8787"]}
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert all(SERVICES[name]["networks"] == ["inside"] for name in SERVICES if name != "dashboard")
    assert not [name for name, service in SERVICES.items() if {"network_mode", "privileged", "pid"} & set(service)]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_no_more_power_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # A drain, and what a worker then takes to end.
    grace = inspect.signature(hp.run).parameters["grace_s"].default
    assert seconds(service["stop_grace_period"]) >= 2 * grace
    if name in OURS:
        assert service["user"] == "1000:1000"
        assert service["read_only"] is True


@pytest.mark.parametrize("name", LASTING)
def test_a_service_that_lasts_has_a_health_check_and_waits_for_those_of_others(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= check.keys()
    for other, condition in SERVICES[name].get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


def test_one_image_is_built_once() -> None:
    assert [name for name in OURS if "build" in SERVICES[name]] == ["ray-head"]
    assert {SERVICES[name]["image"] for name in OURS} == {"hpsearch:local"}
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied
    assert all((ROOT / path).exists() for path in copied)
    shown = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(shown) == sorted(copied)
    assert "USER 1000:1000" in lines


def test_no_secret_is_in_the_file_and_each_goes_only_where_it_is_needed() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(PASSWORD|TOKEN)\s*[:=]\s*\S", text)  # *_FILE and *_PATH name files
    assert all(secret["file"].startswith("${SECRETS:-./secrets}/") for secret in COMPOSE["secrets"].values())
    holders = {
        secret: {name for name, service in SERVICES.items() if secret in service.get("secrets", [])}
        for secret in COMPOSE["secrets"]
    }
    # Workers never open the database.
    assert holders["postgres_password"] == {"postgres", "hpsearch", "dashboard"}
    assert holders["ray_token"] == {"ray-head", "ray-worker", "ray-worker-gpu", "hpsearch"}
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", ["ray-head", "ray-worker", "ray-worker-gpu", "hpsearch"])
def test_ray_asks_for_its_token_and_says_nothing_to_others(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "/files" in [volume.split(":")[1] for volume in SERVICES[name]["volumes"]]


def test_ray_has_no_dashboard() -> None:
    assert "--include-dashboard=false" in shlex.split(SERVICES["ray-head"]["command"])


def test_the_password_goes_from_its_file_into_the_environment_alone(tmp_path: Path) -> None:
    script = ROOT / "docker" / "with-password"
    assert os.access(script, os.X_OK)
    secret = tmp_path / "password"
    secret.write_text("pass word\n")
    show = [str(script), sys.executable, "-c", "import os; print(os.environ.get('PGPASSWORD'))"]
    for path, expected in ((secret, "pass word"), (tmp_path / "none", "None")):
        environment = {**os.environ, "POSTGRES_PASSWORD_FILE": str(path)}
        environment.pop("PGPASSWORD", None)
        done = subprocess.run(show, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"{expected}\n"


STUDY = """
name: composed
objective: train.py:train
metric: {value: minimize}
search_space: {lr: {log: [1e-3, 1]}}
strategy: random
n_trials: 4
seeds: 2
"""
TRAIN = """
import os

def train(run):
    assert "PGPASSWORD" not in os.environ and not any(key.startswith("RAY_AUTH_TOKEN") for key in os.environ)
    run.report(0, value=run["lr"] * (1 + run.seed))
    return run["lr"] * (1 + run.seed)
"""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A short path, since Ray makes sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def here(tmp_path: Path, ray_folder: Path) -> dict[str, str]:
    """What the services' names, ports and folders are on this machine."""
    (tmp_path / "token").write_text(secrets.token_hex(32))
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "files").mkdir()
    head, client = free_port(), free_port()
    return {
        "/tmp": str(ray_folder),
        "/opt/hpsearch": str(ROOT),
        "/run/secrets/ray_token": str(tmp_path / "token"),
        "/files": str(tmp_path / "files"),
        "ray://ray-head:10001": f"ray://127.0.0.1:{client}",
        "ray-head:6379": f"127.0.0.1:{head}",
        "--port=6379": f"--port={head} --node-ip-address=127.0.0.1",
        "--ray-client-server-port=10001": f"--ray-client-server-port={client}",
    }


def translated(text: str, here: dict[str, str]) -> str:
    for theirs, mine in list(here.items())[1:]:
        text = text.replace(theirs, mine)
    return text


def command(name: str, here: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """A service's command line and environment."""
    service = SERVICES[name]
    words = [*service.get("entrypoint", []), *(shlex.split(c) if isinstance(c := service["command"], str) else c)]
    # What Docker finds on the image's PATH is here beside Python.
    words = [str(Path(sys.executable).with_name(w)) if w in ("ray", "hpsearch") else w for w in words]
    environment = {key: translated(str(value), here) for key, value in service["environment"].items() if key != "HOME"}
    return shlex.split(translated(shlex.join(words), here).replace("' --node", " --node")), {
        **os.environ,
        **environment,
    }


@pytest.fixture
def cluster(here: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """The head and a worker, started by the file's own commands."""
    processes = []
    try:
        for name in ("ray-head", "ray-worker"):
            words, environment = command(name, here)
            if name == "ray-worker":
                words += ["--num-cpus=1", "--node-ip-address=127.0.0.1"]
            with (tmp_path / f"{name}.out").open("w") as out:
                processes.append(
                    subprocess.Popen(words, env=environment, stdout=out, stderr=out, start_new_session=True)
                )
            wait_for_health(here, environment, processes[-1], tmp_path / f"{name}.out")
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_health(here: dict[str, str], environment: dict[str, str], process: Any, log: Path) -> None:
    _, *words = SERVICES["ray-head"]["healthcheck"]["test"]
    words = [str(Path(sys.executable).with_name("ray")), *(translated(word, here) for word in words[1:])]
    end = time.monotonic() + 60
    while subprocess.run(words, env=environment, capture_output=True, check=False).returncode != 0:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def database(postgres: str, postgres_server: Server) -> str:
    """The URL as the file has it, without a password."""
    address = conninfo_to_dict(postgres_server.libpq(postgres.rpartition("/")[2]))
    return f"postgresql://{USER}@{address['host']}:{address['port']}/{address['dbname']}"


def test_the_dashboard_lets_in_who_has_the_token_in_the_file(
    here: dict[str, str], postgres: str, postgres_server: Server, tmp_path: Path
) -> None:
    port, token = free_port(), (tmp_path / "token").read_text()
    here |= {"8787": str(port), "/run/secrets/dashboard_token": str(tmp_path / "token")}
    words, environment = command("dashboard", here)
    environment |= {"HPSEARCH_DB": database(postgres, postgres_server)}
    environment |= {"POSTGRES_PASSWORD_FILE": str(tmp_path / "password")}
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=out, cwd=tmp_path)
    try:
        check = [translated(word, here) for word in SERVICES["dashboard"]["healthcheck"]["test"][1:]]
        assert check[0] == "python"
        end = time.monotonic() + 60
        while subprocess.run([sys.executable, *check[1:]], capture_output=True, check=False).returncode != 0:
            assert process.poll() is None, (tmp_path / "out").read_text()
            assert time.monotonic() < end, (tmp_path / "out").read_text()
            time.sleep(0.2)
        page = f"http://127.0.0.1:{port}/s/none"
        assert httpx2.get(page).status_code == 401
        answer = httpx2.get(page, headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, "no study" in answer.text) == (404, True), answer.text
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert token not in (tmp_path / "out").read_text()
    assert PASSWORD not in (tmp_path / "out").read_text()


@pytest.mark.usefixtures("cluster")
def test_its_commands_complete_a_study(
    here: dict[str, str], postgres: str, postgres_server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY)
    (folder / "train.py").write_text(TRAIN)
    words, environment = command("hpsearch", here)
    assert words[-1] == "--help"
    url = database(postgres, postgres_server)
    environment |= {"HPSEARCH_DB": url, "POSTGRES_PASSWORD_FILE": str(tmp_path / "password")}
    for arguments in (["run", "study.yaml", "--on", "ray", "-q"], ["verify", "composed"]):
        done = subprocess.run(
            [*words[:-1], *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stderr
    states = postgres_server.execute("SELECT state FROM run", postgres.rpartition("/")[2])
    assert states == [("complete",)] * (5 * 2)  # the baseline, and four
    assert (tmp_path / "files" / "composed").is_dir()
