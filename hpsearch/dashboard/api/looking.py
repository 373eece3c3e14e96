"""A look at the test set, in a process of its own: it runs the study's training code, and needs PyTorch.

That code never comes into the server's process, and the server stays small. The command is that of the user, its
arguments a list that no shell reads; the database's address and its password come with the environment, and the
server's token does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from hpsearch.dashboard.problem import Details, Problem
from hpsearch.dashboard.record import Record
from hpsearch.errors import CheckError, ExecutorError, NotFoundError, StoreError, StudyHeldError, UsageError
from hpsearch.ship import Look, looks
from hpsearch.written import redacted

#: seconds that a look may take
LONGEST_S = 1800.0
#: what the environment holds for this server alone
SECRETS = ("HPSEARCH_TOKEN", "HPSEARCH_TOKEN_FILE")
STATUSES = {
    kind.exit_code: status
    for kind, status in ((UsageError, 422), (NotFoundError, 404), (StoreError, 503), (ExecutorError, 503))
} | {StudyHeldError.exit_code: 409, CheckError.exit_code: 422}
#: held by the look that is under way
_ONE = threading.Lock()


def look(record: Record, study: str, trial: int, *, reason: str, again: bool) -> Look:
    """Look through a trial; one look at a time.

    Args:
        record: where the study is.
        study: its name.
        trial: the number of the trial that the race has chosen.
        reason: why, as it is recorded.
        again: look, though somebody has looked before.

    Raises:
        Problem: it was looked at before, or the command was not able to.
    """
    if not _ONE.acquire(blocking=False):
        raise Problem(Details(status=409, detail="a look at the test set is under way", hint="wait for its end"))
    try:
        before = looks(record.archive.decisions(study))
        if before and not again:
            raise Problem(_looked(before))
        _run(record.url, f"{study}/{trial}", reason)
        return looks(record.archive.decisions(study))[-1]
    finally:
        _ONE.release()


def _looked(before: list[Look]) -> Details:
    n, last = len(before), before[-1]
    times = "once" if n == 1 else f"{n} times"
    said = f"the test set was looked at {times}, last by {last.who} ({last.reason})"
    hint = 'say "again": true; a value that was chosen among several looks is optimistic'
    return Details(status=409, detail=said, hint=hint)


def _run(url: str, address: str, reason: str) -> None:
    command = ["ship", "--reveal-test", f"--reason={reason}", "--via=dashboard", "--json", "--quiet", "--", address]
    inherited = {name: text for name, text in os.environ.items() if name not in SECRETS}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hpsearch", *command],
            env=inherited | {"HPSEARCH_DB": url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        hint = f"hpsearch ship {address} --reveal-test --reason TEXT"
        words = f"the look took more than {LONGEST_S / 60:.0f} minutes and was ended"
        raise Problem(Details(status=504, detail=words, hint=hint)) from None
    if done.returncode:
        raise Problem(_complaint(done.returncode, done.stderr))


def _complaint(code: int, said: str) -> Details:
    """What the command has said on stderr: ``error: WORDS``, ``  hint: WORDS``; training code may print there too."""
    words, _, hint = said.rpartition("error: ")[2].partition("\n  hint: ")
    lines = words.strip().splitlines()
    detail = redacted("\n".join(lines))[:2000] or f"the command ended with {code}"
    return Details(status=STATUSES.get(code, 500), detail=detail, hint=hint.strip()[:500])
