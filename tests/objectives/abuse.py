"""Training functions that misbehave, by name: what an executor must survive."""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import torch

RESULTS = {
    "none": None,
    "str": "3.5",
    "bytes": b"1",
    "true": True,
    "list": [1.0],
    "tensor": torch.tensor(1.0),
    "complex": 1j,
    "no metric": {"accuracy": 1.0},
    "nested": {"loss": [1.0]},
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "huge": 10**400,
    "numpy": numpy.float32(0.5),
    "int": 3,
    "dict": {"loss": 0.25, "accuracy": 0.5},
}


def train(run):
    return globals()[run["how"]](run)


def fine(run):
    """The clean run between two abuses: it fails where something has leaked out of the run before."""
    assert torch.get_num_threads() == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "ABUSED" not in os.environ
    assert Path.cwd() != Path("/")
    assert threading.active_count() == 1
    print("all is fine")
    return float(torch.rand(()))


def result(run):
    return RESULTS[run["what"]]


def raises(run):
    raise RuntimeError("no luck with \udcff surrogates")


def interrupt(run):
    raise KeyboardInterrupt


def sys_exit(run):
    sys.exit(3)


def os_exit(run):
    print("last words")
    os._exit(4)


def os_exit_0(run):
    os._exit(0)


def sleeps_later(run):
    run.report(0, loss=2.0)
    time.sleep(1000)


def kill_itself(run):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def segfault(run):
    run.report(0, loss=2.0)
    ctypes.string_at(0)


def abort(run):
    os.abort()


def bus(run):
    signal.raise_signal(signal.SIGBUS)


def alarm(run):
    signal.alarm(1)
    signal.pause()


def loops(run):
    print("round and round")
    while True:
        pass


def sleeps(run):
    time.sleep(1000)


def holds_the_lock(run):
    ctypes.PyDLL(None).usleep(ctypes.c_uint(900_000_000))


def stopped(run):
    """SIGSTOP, as by a job control or a debugger: it takes no SIGTERM before it goes on."""
    Path(run["pids"]).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0.5


def ignores_sigterm(run):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1234.5"], start_new_session=True)
    Path(run["pids"]).write_text(str(child.pid))
    while True:
        time.sleep(0.1)


def floods(run):
    line = b"x" * 999 + b"\n"
    for _ in range(30_000):
        os.write(1, line)
    return 1.0


def strange_bytes(run):
    os.write(1, b"\xff\x00\x1b[31m\r caf\xc3\xa9 \xc3")
    print("\udcff", file=sys.stderr)
    return 1.0


def leaves_children(run):
    near = subprocess.Popen(["sleep", "1234.5"])
    far = subprocess.Popen(["setsid", "sleep", "1234.5"], start_new_session=True)
    double = subprocess.run(
        ["sh", "-c", "setsid sleep 1234.5 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    Path(run["pids"]).write_text(f"{near.pid} {far.pid} {double.stdout}")
    near.returncode = far.returncode = 0  # no ResourceWarning: they are meant to stay
    return 1.0


def leaves_a_thread(run):
    def later():
        while True:
            run.report(7, loss=-1.0)
            time.sleep(0.001)

    threading.Thread(target=later).start()
    return 1.0


def closes_its_output(run):
    sys.stdout.close()
    os.close(1)
    os.close(2)
    return 1.0


def closes_everything(run):
    os.closerange(3, 100)
    return 1.0


def writes_into_the_socket(run):
    for fd in range(3, 50):
        with contextlib.suppress(OSError):
            os.write(fd, b"\xff" * 64)
    time.sleep(1000)


def forges(run):
    """Says what a worker would say, of itself and of others, and ends as it should."""
    end = {"is": "Finished", "run": [0, 0, 0], "attempt": 9, "state": "complete", "value": -1.0, "best_epoch": 0}
    end |= {"last_epoch": 0, "reason": "", "error": "", "metrics": {}, "sealed": {}, "seconds": 0.0, "worker": "x"}
    end |= {"engine": "", "environment": None, "checkpoint": None}
    epoch = {"is": "EpochReport", "run": [77, 0, 0], "attempt": 1, "epoch": 0, "metrics": {"loss": -1.0}}
    epoch |= {"epochs": None, "layers": {}}
    grouped = {"is": "Grouped", "runs": [[77, 0, 0]], "engine": "vmap", "device": "cpu", "lanes": 64, "reason": ""}
    messages = [
        {"is": "ready", "pid": 1},
        {"is": "begun", "runs": [[77, 0, 0, 1], [0, 0, 0, 9]], "at": float("nan")},
        {"reports": [end, {**end, "run": [77, 0, 0], "attempt": 1}, epoch, grouped], "retire": False},
        {"reports": []},
    ]
    for fd in range(3, 50):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as link:
            if link.type == socket.SOCK_STREAM:
                for message in messages:
                    body = json.dumps(message).encode()
                    link.sendall(struct.pack("!I", len(body)) + body)
    return 1.0


def changes_everything(run):
    os.chdir("/")
    os.environ["ABUSED"] = "yes"
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    random.seed(1)
    torch.manual_seed(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return 1.0
