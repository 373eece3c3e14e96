"""What a door may ask for beside reading: stop a study, note, tag, look at the test set. Nothing here writes a result.

``stop``, ``note`` and ``tag`` go through the record's commands. Each says what came of it as plain data, so that the
command line and a web server say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from hpsearch.address import found, study_of
from hpsearch.archive import Archive
from hpsearch.attempt import record_of
from hpsearch.confirm import confirmation
from hpsearch.errors import UsageError, shown
from hpsearch.read import stored_study
from hpsearch.settings import files_folder
from hpsearch.ship import Look
from hpsearch.ship import reveal as look_at
from hpsearch.store import Command, clean
from hpsearch.stores.sql import open_archive, open_store, sealed_metrics
from hpsearch.trial import Direction

#: characters of a note or a reason; of a tag
LONGEST_TEXT, LONGEST_TAG = 10_000, 100


@final
@dataclass(frozen=True, kw_only=True)
class Stopping:
    """What came of asking a study to stop."""

    study: str
    #: False: no coordinator runs it
    asked: bool
    words: str


def stop(url: str, study: str, *, now: bool = False) -> Stopping:
    """Ask a study's coordinator to stop: it finishes the runs in flight, or ends them too with ``now``.

    Args:
        url: the database's address.
        study: its name, or the beginning of it.
        now: do not wait for the runs in flight; they are run again after a resume.

    Raises:
        NotFoundError: no such study. StoreError: the record cannot be reached.
    """
    summary = study_of(open_archive(url), study)
    asked = open_store(url).send(summary.name, Command(verb="stop", payload={"now": now}))
    flight = "ends its runs" if now else "finishes the runs in flight"
    words = f"asked {summary.name} to stop; it {flight} first"
    return Stopping(
        study=summary.name,
        asked=asked,
        words=words if asked else f"{summary.name} is not running ({summary.state})",
    )


def note(url: str, address: str, text: str) -> str:
    """Write a note about a study, a trial or a run; the address of what it is about.

    Args:
        url: the database's address.
        address: ``study``, ``study/trial`` or ``study/trial/seed``.
        text: up to ``LONGEST_TEXT`` characters, of one line or more.

    Raises:
        UsageError: it is no address, or no text that can be kept. NotFoundError: nothing has this address.
        StoreError: the record cannot be reached.
    """
    return _say(url, "note", address, kept("note", text, LONGEST_TEXT))


def tag(url: str, address: str, text: str) -> str:
    """Tag a study, a trial or a run: a word that ``list --tag`` finds; the address of what has it now.

    Args:
        url: the database's address.
        address: as ``note`` takes it.
        text: one word of up to ``LONGEST_TAG`` characters. What has it already keeps it once.

    Raises: what ``note`` does.
    """
    word = kept("tag", text, LONGEST_TAG)
    if len(word.split()) != 1 or not word.isprintable():
        raise UsageError(f"a tag is one word, not {shown(text)}", hint=f"hpsearch tag {address} paper")
    return _say(url, "tag", address, word)


def reveal(
    url: str,
    study: str,
    *,
    reason: str,
    trial: int | None = None,
    files: Path | None = None,
    via: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> Look:
    """Look at the sealed test set through the trial that a race has chosen, under the study's lease, and write it down.

    Args:
        url: the database's address.
        study: its name, or the beginning of it.
        reason: why, in the user's words: up to ``LONGEST_TEXT`` characters.
        trial: its number; None: the one that the race has chosen.
        files: the folder of the study's files; None: where they are by default.
        via: through what the user looks, recorded beside their name; empty: the command line.
        tell: hears, in words, what is odd about the study's file.

    Raises:
        UsageError: no reason, or no trial is confirmed, or it is another one; the study's file is gone.
        NotFoundError, ObjectiveError: there is no such study; its weights are gone, or do not fit.
        StudyHeldError: a coordinator has the study.
    """
    reason = kept("reason", reason, LONGEST_TEXT)
    archive = open_archive(url)
    summary = study_of(archive, study)
    number = chosen(archive, summary.name, str(summary.spec["direction"])) if trial is None else trial
    stored = stored_study(summary, tell=tell)
    return look_at(
        stored,
        archive,
        record_of(stored),
        partial(open_store, url),
        number,
        reason=reason,
        files=files_folder(url, summary.name, files),
        sealed=partial(sealed_metrics, url, summary.name),
        via=via,
    )


def chosen(archive: Archive, study: str, direction: str) -> int:
    """The number of the trial that a study's last race has chosen.

    Raises:
        UsageError: none has chosen any.
    """
    race = confirmation(archive.trials(study), archive.decisions(study), Direction(direction))
    if race is None or race.chosen is None:
        raise UsageError(
            f"no race has chosen a trial of {study}", hint=f"hpsearch confirm {study}, or name {study}/TRIAL"
        )
    return race.chosen


def _say(url: str, verb: str, address: str, text: str) -> str:
    about = found(open_archive(url), address)
    open_store(url).send(about.study, Command(verb=verb, payload={"address": str(about), "text": text}))
    return str(about)


def kept(what: str, text: str, longest: int) -> str:
    """The text as it is kept: without blanks around it.

    Raises:
        UsageError: it is empty, too long, or holds what no database can.
    """
    said = text.strip()
    if not said:
        raise UsageError(f"the {what} is empty", hint=f"say it in up to {longest} characters")
    if len(said) > longest:
        raise UsageError(f"the {what} has {len(said)} characters: at most {longest} are kept", hint="say it in fewer")
    if clean(said) != said:
        raise UsageError(f"the {what} holds characters that no database keeps: {shown(said)}", hint="leave them out")
    return said
