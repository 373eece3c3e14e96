import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

import hpsearch as hp
from hpsearch.errors import ExecutorError
from hpsearch.executors import _ray_cluster, ray
from hpsearch.executors._ray_worker import versions
from hpsearch.executors.ray import ClusterOptions, RayCluster, RayExecutor
from hpsearch.trial import EpochReport, Finished, Grouped, Lost, RunKey, State
from tests.conformance.executors import (
    OBJECTIVES,
    ExecutorConformance,
    assignment,
    drive,
    ends,
    listen,
    outcome,
    task,
    workload,
)
from tests.ray_nodes import OBJECT_STORE, cluster

#: Ray leaves the log files of its client's server open
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*ray_client_server:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def client_port():
    return _free_port()


@pytest.fixture(scope="module")
def address(client_port):
    with cluster(0, num_cpus=3, ray_client_server_port=client_port) as made:
        yield made.address


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def kept(address, place):
    """Executors that are made once and used by several tests, by their lanes: a start costs seconds."""
    made = {}

    def give(lanes):
        old = made.get(lanes)
        if old is None or old.idle() != 1 or old.poll(0.0):
            if old is not None:
                old.close()
            made[lanes] = make(address, place, 1, lanes)
        return made[lanes]

    yield give
    for executor in made.values():
        executor.close()


def make(address, place, workers, lanes, folder=OBJECTIVES, **options):
    return RayExecutor(RayCluster(ClusterOptions(address=address, **options), folder, place), workers, lanes=lanes)


class TestRay(ExecutorConformance):
    @pytest.fixture(autouse=True)
    def _keep(self, kept):
        self.kept = kept

    def make(self, lanes):
        return self.kept(lanes)

    @pytest.fixture
    def executor(self, lanes):
        """Not closed by each test: that what one leaves behind does not hurt the next is a promise, too."""
        return self.kept(lanes)

    @pytest.fixture
    def wide(self):
        return self.kept(4)


@pytest.fixture
def wide(kept):
    return kept(4)


def test_a_crash_of_a_run_alone_is_its_own(kept, tmp_path):
    last = outcome(kept(1), assignment(0, how="segfault"), workload("train", tmp_path, source="abuse.py"))
    assert isinstance(last, Finished)
    assert (last.state, last.reason) == (State.FAILED, "signal:11")
    assert "Segmentation fault" in last.error


def test_a_timeout_is_kept(kept, tmp_path):
    work = workload("train", tmp_path, source="abuse.py", timeout_s=0.5)
    last = outcome(kept(1), assignment(0, how="holds_the_lock"), work)
    assert (last.state, last.reason) == (State.FAILED, "timeout")


def test_a_training_process_killed_with_four_runs_loses_them_together(wide, tmp_path):
    wide.start([assignment(t) for t in range(4)], task("Long", tmp_path, 4))
    (log,) = _until(lambda: list(tmp_path.glob("groups/*.txt")))
    os.kill(int(log.name.split("-")[1]), signal.SIGKILL)
    said = ends(listen(wide, 4))
    runs = {RunKey(t, 0) for t in range(4)}
    assert {(type(r), r.cause) for r in said} == {(Lost, "signal:9")}
    assert {r.run: set(r.company) for r in said} == {run: runs - {run} for run in runs}


def test_an_actor_killed_loses_its_runs_and_is_replaced(wide, tmp_path):
    (before,) = wide._members.values()
    wide.start([assignment(t, attempt=2) for t in range(3)], task("Long", tmp_path, 4))
    (log,) = _until(lambda: list(tmp_path.glob("groups/*.txt")))
    training, actor = int(log.name.split("-")[1]), int(before.place.split(":")[1])
    os.kill(actor, signal.SIGKILL)
    said = ends(listen(wide, 3))
    assert {(type(r), r.cause, r.attempt, len(r.company)) for r in said} == {(Lost, "connection", 2, 2)}
    assert {r.worker for r in said} == {before.place}
    again = drive(wide, [assignment(t, attempt=3) for t in range(3)], task("Line", tmp_path, 4))
    assert {last.state for last in ends(again)} == {State.COMPLETE}
    assert not [pid for pid in (training, actor) if psutil.pid_exists(pid)]


@pytest.fixture
def quick_to_suspect(monkeypatch):
    """A worker that says nothing for so long has lost its runs."""
    monkeypatch.setattr(ray, "SILENT_S", 4.0)


@pytest.mark.usefixtures("quick_to_suspect")
def test_a_stopped_worker_that_goes_on_is_heard_in_vain_and_works_again(address, place, tmp_path):
    executor = make(address, place, 1, 4)
    try:
        (member,) = executor._members.values()
        executor.start([assignment(t, attempt=2) for t in range(3)], task("Long", tmp_path, 4))
        _until(lambda: list(tmp_path.glob("groups/*.txt")))
        actor = psutil.Process(int(member.place.split(":")[1]))
        actor.suspend()
        lost = ends(listen(executor, 3))
        assert {(type(r), r.cause, r.attempt, len(r.company)) for r in lost} == {(Lost, "silent", 2, 2)}
        assert (executor.capacity(), executor.idle()) == (0, 0)
        actor.resume()
        # What it has to say by now, and that it has ended them as it was told: all of it of the void attempts.
        late = listen(executor, 3)
        assert {r.attempt for r in late if not isinstance(r, Grouped)} == {2}
        _until(lambda: executor.poll(0.1) or executor.idle() == 1)
        again = drive(executor, [assignment(t, attempt=3) for t in range(3)], task("Line", tmp_path, 4))
        assert {(last.state, last.attempt) for last in ends(again)} == {(State.COMPLETE, 3)}
        assert list(executor._members.values()) == [member]
    finally:
        executor.close()


@pytest.mark.full  # half a minute: Ray itself takes 5 s to kill a process that does not answer
@pytest.mark.usefixtures("quick_to_suspect")
def test_a_worker_that_stays_stopped_is_ended_and_replaced(address, place, tmp_path):
    executor = make(address, place, 1, 1)
    try:
        (member,) = executor._members.values()
        actor = psutil.Process(int(member.place.split(":")[1]))
        executor.start([assignment(0)], task("Long", tmp_path, 1))
        _until(lambda: list(tmp_path.glob("**/*.txt")))
        training = actor.children(recursive=True)
        actor.suspend()
        (lost,) = ends(listen(executor))
        assert (lost.cause, lost.company) == ("silent", ())
        last = outcome(executor, assignment(0, attempt=2), task("Line", tmp_path, 1))
        assert (last.state, last.attempt) == (State.COMPLETE, 2)
        assert member not in executor._members.values()
        _, alive = psutil.wait_procs([actor, *training], timeout=10)
        assert training
        assert not alive
    finally:
        executor.close()


def test_a_run_prints_into_its_log_and_knows_no_token(kept, tmp_path):
    assert outcome(kept(1), assignment(0), workload("shows", tmp_path, source="abroad.py")).value == 0.0
    assert (tmp_path / "0/0/log.txt").read_text().endswith("\nseen: []\n")


def test_modules_travel_and_other_versions_are_refused(address, place, tmp_path):
    package = tmp_path / "borrowed"
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 4.5\n")
    executor = make(address, place, 1, 1, py_modules=(package,))
    try:
        last = outcome(executor, assignment(0), workload("borrows", tmp_path, source="abroad.py"))
        assert (last.state, last.value) == (State.COMPLETE, 4.5), last.error
    finally:
        executor.close()
    other = tmp_path / "study" / "torch-2.12.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.12.0\n")
    with pytest.raises(ExecutorError, match=r"has torch 2\.12\.0, this process has torch 2\.1[3-9]"):
        make(address, place, 1, 1, folder=other.parent)


def test_a_machine_without_the_files_is_refused(address, tmp_path):
    cluster = RayCluster(ClusterOptions(address=address), OBJECTIVES, tmp_path)
    for token in tmp_path.glob(".hpsearch-*"):  # as on a machine that has another folder there
        token.unlink()
    with pytest.raises(ExecutorError, match="does not see the study's files") as caught:
        RayExecutor(cluster, 1)
    assert "--files" in caught.value.hint


def test_a_cluster_without_gpus_is_refused(address, place):
    with pytest.raises(ExecutorError, match=r"each worker is to have 0\.5 GPU, and the cluster has none") as caught:
        RayCluster(ClusterOptions(address=address, gpus_per_worker=0.5), OBJECTIVES, place)
    assert "--gpus-per-worker 0" in caught.value.hint


def test_a_folder_that_is_too_large_says_so(address, place, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_max_grpc_message_size", str(2 << 20))
    (tmp_path / "data.bin").write_bytes(os.urandom(3 << 20))
    with pytest.raises(ExecutorError, match="the study's folder is too large to travel") as caught:
        RayCluster(ClusterOptions(address=address), tmp_path, place)
    assert "absolute path" in caught.value.hint


def test_a_wrong_token_is_refused(address, place, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(ExecutorError, match="takes no one without its token") as caught:
        RayCluster(ClusterOptions(address=address), OBJECTIVES, place)
    assert "RAY_AUTH_TOKEN" in caught.value.hint


@pytest.mark.parametrize(
    ("address", "variables", "expected"),
    [
        ("local", {}, False),
        ("10.0.0.5:6379", {}, True),
        ("auto", {"RAY_AUTH_MODE": "disabled"}, True),
        ("ray://10.0.0.5:10001", {"RAY_AUTH_MODE": "token"}, False),
    ],
)
def test_a_cluster_that_let_us_in_without_a_token_is_open(address, variables, expected):
    assert _ray_cluster.is_open(address, variables) is expected


@pytest.mark.full  # a cluster of its own
def test_a_study_on_a_cluster_without_a_token_says_so(tmp_path):
    (tmp_path / "train.py").write_text("def train(run):\n    return run['x']\n")
    (tmp_path / "s.yaml").write_text(
        "name: s\nobjective: train.py:train\nmetric: {loss: minimize}\nsearch_space: {x: [0.5, 0.6]}\nstrategy: grid\n"
        "baseline: false\n"
    )
    words = []
    with cluster(0, token=False, num_cpus=1) as made:
        study, options = hp.read_study(tmp_path / "s.yaml"), ClusterOptions(address=made.address)
        done = hp.run(study, db=f"sqlite:///{tmp_path}/r.db", on="ray", cluster=options, tell=words.append)
    assert done.exit_code == 0
    assert [f"the Ray cluster at {options.address} has no token" in text for text in words] == [True]


def driver(**connection):
    """The side of a driver that no cluster is needed for."""
    from hpsearch.executors._ray_driver import _Driver

    with socket.socket() as link:
        made = _Driver(link, os.getpid())
    made._connection = {"versions": versions(), "files": "/files", **connection}
    return made


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, ""),
        (
            {"versions": {**versions(), "python": "3.9.1"}},
            f"the worker on far has python 3.9.1, this process has python {versions()['python']}",
        ),
        ({"versions": {}}, " has python None, this process has python "),
        ({"sees": False}, "the worker on far does not see the study's files, /files"),
    ],
)
def test_a_worker_of_another_python_or_without_the_files_is_refused(said, words):
    with pytest.raises(ExecutorError, match=re.escape(words)) if words else contextlib.nullcontext():
        driver()._compare({"host": "far", "versions": versions(), "sees": True, **said})


def test_what_ray_says_of_other_versions_is_told_on_one_line():
    from ray._private.utils import check_version_info

    from hpsearch.executors._ray_driver import _in_words

    with pytest.raises(RuntimeError, match="Version mismatch") as caught:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.9.1"}, "node 10.0.0.5:1")
    told = _in_words(caught.value, "10.0.0.5:6379")
    assert str(told).startswith("the Ray cluster at 10.0.0.5:6379 is of other versions: Version mismatch: ")
    assert "Ray: 2.9.0 Python: 3.9.1" in str(told)
    assert "\n" not in str(told)
    assert told.hint == "install the same versions of Python and Ray on both sides"


@pytest.mark.parametrize(
    ("node", "gpus", "cpus", "places"),
    [
        ({"CPU": 8.0, "GPU": 1.0}, 0.25, 1.0, 4),
        ({"CPU": 8.0, "GPU": 1.0}, 0.3, 1.0, 3),
        ({"CPU": 8.0, "GPU": 2.0}, 0.3, 1.0, 6),  # parts of one GPU each: a tenth of both is left over
        ({"CPU": 2.0, "GPU": 1.0}, 0.25, 1.0, 2),  # bound by its CPUs
        ({"CPU": 2.0, "GPU": 1.0}, 0.25, 0.5, 4),
        ({"CPU": 8.0, "GPU": 4.0}, 1, 1.0, 4),
        ({"CPU": 8.0, "GPU": 5.0}, 2, 1.0, 2),
        ({"CPU": 8.0}, 1, 1.0, 0),
        ({"CPU": 8.0}, 0, 1.0, 8),
        ({"CPU": 7.0}, 0, 2.0, 3),
        ({}, 0, 1.0, 0),
    ],
)
def test_a_node_holds_as_many_workers_as_its_cpus_and_gpus(node, gpus, cpus, places):
    assert driver(gpus=gpus, cpus=cpus)._places({"Resources": node}) == places


@pytest.mark.parametrize("address", ["nowhere.invalid:1", "ray://127.0.0.1:{free}", "127.0.0.1:{free}", "[::1]:99999"])
def test_a_wrong_address_is_refused_soon(place, address, monkeypatch):
    monkeypatch.setattr(_ray_cluster, "OPENING_S", 1.0)
    began, address = time.monotonic(), address.format(free=_free_port())
    with pytest.raises(ExecutorError, match=f"there is no Ray cluster at {re.escape(address)}: ") as caught:
        RayCluster(ClusterOptions(address=address), OBJECTIVES, place)
    assert time.monotonic() - began < 30
    assert len(str(caught.value).splitlines()) == 1
    assert "--ray-address" in caught.value.hint


def test_a_cluster_that_is_being_started_is_waited_for(place, monkeypatch):
    port = _free_port()

    def open_late():
        time.sleep(1.0)
        with socket.create_server(("127.0.0.1", port)) as server:
            server.accept()[0].close()

    thread = threading.Thread(target=open_late)
    thread.start()
    _ray_cluster.refuse_deaf(f"ray://127.0.0.1:{port}")
    thread.join()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus_per_worker": 1.5}, r"gpus per worker must be a whole number or a part of one GPU, not 1\.5"),
        ({"gpus_per_worker": -1.0}, "gpus per worker"),
        ({"cpus_per_worker": 0.0}, "cpus per worker must be above 0, not 0"),
        ({"py_modules": (Path("/nowhere"),)}, "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_is_refused_at_once(options, words):
    with pytest.raises(ExecutorError, match=words):
        ClusterOptions(**options)


def test_without_ray_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(ExecutorError, match="Ray is not installed") as caught:
        RayCluster(ClusterOptions(), OBJECTIVES, tmp_path)
    assert caught.value.hint == "pip install 'hpsearch[ray]'"


#: fills the object store of this machine's node with what nobody may evict, says how full it is, and waits
HOG = """
import sys
import numpy, ray
from ray._private.internal_api import memory_summary
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
held = []
for _ in range(12):
    held.append(ray.put(numpy.ones(1 << 20)))
    held.append(ray.get(held[-1]))
print(memory_summary(stats_only=True).replace("\\n", " "), flush=True)
sys.stdin.read()
"""


def test_a_full_object_store_hurts_nobody(kept, address, tmp_path):
    command = [sys.executable, "-c", HOG, address]
    hog = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = hog.stdout.readline()
        full = re.search(r"Plasma memory usage .*?([\d.]+)% full", said)
        assert full, said + hog.stderr.read()
        assert float(full[1]) >= 80
        executor = kept(4)
        told = drive(executor, [assignment(t) for t in range(4)], task("Line", tmp_path, 4))
        assert {last.state for last in ends(told)} == {State.COMPLETE}
        *epochs, last = drive(executor, [assignment(9)], workload("talks", tmp_path, source="abroad.py", lanes=4))
        assert last.state is State.COMPLETE, last.error
        assert [len(report.metrics) for report in epochs if isinstance(report, EpochReport)] == [5001, 5001]
    finally:
        hog.communicate("")


def test_a_cluster_behind_rays_client_is_the_same(address, client_port, place, tmp_path):
    executor = make(f"ray://127.0.0.1:{client_port}", place, 1, 4)
    try:
        said = drive(executor, [assignment(t) for t in range(4)], task("Line", tmp_path, 4))
        assert {last.state for last in ends(said)} == {State.COMPLETE}
    finally:
        executor.close()


def _until(found, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not (answer := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return answer


@pytest.mark.full  # Ray takes 30 s to see that two clusters have taken the same port
@pytest.mark.timeout(300)
def test_clusters_of_one_machine_that_let_clients_in_at_once_do_not_hurt_each_other(place, tmp_path):
    """Both look for a free port from 23000 on at the same moment, and find the same one."""
    with contextlib.ExitStack() as stack:
        ports = []
        for number in range(2):
            port, temporary = _free_port(), stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
            environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            ports.append((port, environment))
            command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=1"]
            command += [f"--port={_free_port()}", f"--ray-client-server-port={port}", f"--temp-dir={temporary}"]
            command += ["--include-dashboard=false", f"--object-store-memory={OBJECT_STORE}"]
            with (tmp_path / f"head-{number}").open("wb") as out:
                head = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
            stack.callback(_end, head)
        _until(lambda: all(_listens(port) for port, _ in ports))
        drivers = []
        for port, environment in ports:
            url = f"ray://127.0.0.1:{port}"
            code = f"from hpsearch.executors._ray_driver import connect; connect({_connection(url, tmp_path)})"
            drivers.append(subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE))
        for driver in drivers:
            _, errors = driver.communicate(timeout=200)
            assert driver.returncode == 0, errors.decode()


def _connection(address, folder):
    return {"address": address, "folder": str(folder), "py_modules": []}


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(head):
    head.terminate()
    try:
        head.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
