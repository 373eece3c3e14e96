"""The record's tables, as of the newest schema. A change here needs a migration in ``migrations/versions``.

Rows are named by what names them everywhere (study, trial number, seed, repeat), so a turn needs no look-up of ids.
A trial's state is stored only when it is final: until then it follows from its runs. An attempt is open while its run
is running with its number; only lost attempts get an end of their own. JSON is text, so that it comes back as it went.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem

metadata = MetaData()

STUDY_STATES = ("running", "complete", "stopped", "interrupted", "failed")
FINAL = ("complete", "pruned", "diverged", "failed", "cancelled")
OPEN = ("queued", "running", "paused")
#: a double's range: NULL passes, NaN and the infinities do not
RANGE = "BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308"


def one_of(column: str, words: tuple[str, ...]) -> str:
    """SQL for ``column`` being one of ``words``."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


def _key(*, of: str) -> list[SchemaItem]:
    """The columns that name a run, as first part of a primary key."""
    names = ["study", "trial", "seed", "repeat"]
    columns: list[SchemaItem] = [Column(name, Integer, primary_key=True, autoincrement=False) for name in names]
    target = [f"{of}.{name}" for name in names]
    return [*columns, ForeignKeyConstraint(names, target, ondelete="CASCADE")]


def _number(name: str, *, primary_key: bool = False) -> Column[int]:
    return Column(name, Integer, primary_key=primary_key, nullable=False, autoincrement=False)


study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("spec", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("file", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("reason", Text, nullable=False),
    _number("rev"),
    # How often the lease was taken: fences a coordinator that has lost it.
    _number("epoch"),
    # The holder's host, pid, boot and start; NULL where nobody holds it.
    Column("host", Text),
    Column("pid", Integer),
    Column("boot_id", Text),
    Column("started", Double),
    Column("lease_until", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    _number("tell_seq"),
    _number("fenced"),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    CheckConstraint(one_of("state", STUDY_STATES), name="study_state"),
    CheckConstraint(f"seconds {RANGE}", name="study_seconds"),
    # A deleted study's id is never given again: its coordinator must not write into another study.
    sqlite_autoincrement=True,
)

environment = Table(
    "environment",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("facts", Text, nullable=False),
)

trial = Table(
    "trial",
    metadata,
    Column("study", Integer, ForeignKey("study.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    _number("number", primary_key=True),
    Column("params", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("value", Double),
    Column("sd", Double),
    Column("baseline", Boolean, nullable=False),
    _number("batch"),
    _number("history_seq"),
    Column("tell_seq", Integer),
    UniqueConstraint("study", "tell_seq", name="trial_tell_seq"),
    CheckConstraint(one_of("state", ("queued", *FINAL)), name="trial_state"),
    CheckConstraint(f"value {RANGE} AND sd {RANGE}", name="trial_finite"),
    CheckConstraint("state <> 'complete' OR value IS NOT NULL", name="trial_value"),
    CheckConstraint("value IS NULL OR state IN ('complete', 'pruned')", name="trial_no_value"),
    CheckConstraint("(state = 'queued') = (tell_seq IS NULL)", name="trial_told"),
)

run = Table(
    "run",
    metadata,
    _number("study", primary_key=True),
    _number("trial", primary_key=True),
    _number("seed", primary_key=True),
    _number("repeat", primary_key=True),
    # Its place among the trial's runs: the study's order of seeds.
    _number("place"),
    Column("stage", String(12), nullable=False),
    Column("state", String(12), nullable=False),
    _number("attempt"),
    Column("value", Double),
    Column("best_epoch", Integer),
    Column("last_epoch", Integer),
    Column("reason", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("seconds", Double, nullable=False),
    Column("worker", Text, nullable=False),
    # Further numbers that the training function returned, JSON.
    Column("returned", Text, nullable=False),
    Column("environment", String(64), ForeignKey("environment.sha256")),
    # How it was trained: "vmap, cpu, 64 lanes".
    Column("engine", Text, nullable=False, server_default=""),
    ForeignKeyConstraint(["study", "trial"], ["trial.study", "trial.number"], ondelete="CASCADE"),
    CheckConstraint(one_of("state", (*OPEN, *FINAL)), name="run_state"),
    CheckConstraint(one_of("stage", ("search", "confirm", "extra")), name="run_stage"),
    CheckConstraint(f"value {RANGE} AND seconds {RANGE}", name="run_finite"),
    CheckConstraint("state <> 'complete' OR value IS NOT NULL", name="run_value"),
    CheckConstraint("value IS NULL OR state IN ('complete', 'pruned')", name="run_no_value"),
)

attempt = Table(
    "attempt",
    metadata,
    *_key(of="run"),
    _number("attempt", primary_key=True),
    Column("started", Double, nullable=False),
    # Where it was lost: when, why, after how many seconds, on which worker.
    Column("ended", Double),
    Column("cause", Text),
    Column("seconds", Double, nullable=False),
    Column("worker", Text, nullable=False),
    CheckConstraint("(cause IS NULL) = (ended IS NULL)", name="attempt_lost"),
    CheckConstraint(f"seconds {RANGE}", name="attempt_seconds"),
    sqlite_with_rowid=False,
)

#: one row a metric an epoch; rows of lost attempts stay, and are never read as the run's
metric = Table(
    "metric",
    metadata,
    *_key(of="run"),
    _number("attempt", primary_key=True),
    _number("epoch", primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Double, nullable=False),
    CheckConstraint(f"value {RANGE}", name="metric_finite"),
    sqlite_with_rowid=False,
)

#: metrics of the test set; nothing that shows, exports or compares reads this table. Epoch -1: of the finished run
sealed = Table(
    "sealed",
    metadata,
    *_key(of="run"),
    _number("attempt", primary_key=True),
    _number("epoch", primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Double, nullable=False),
    CheckConstraint(f"value {RANGE}", name="sealed_finite"),
    sqlite_with_rowid=False,
)

#: gradient and weight norms of all layers, packed as JSON, one row an epoch
layers = Table(
    "layers",
    metadata,
    *_key(of="run"),
    _number("attempt", primary_key=True),
    _number("epoch", primary_key=True),
    Column("norms", Text, nullable=False),
    sqlite_with_rowid=False,
)


def _log(name: str, *columns: SchemaItem) -> Table:
    """A table of a study's rows in the order they came, with an index for reading them so."""
    table = Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("study", Integer, ForeignKey("study.id", ondelete="CASCADE"), nullable=False),
        *columns,
        Column("created", Double, nullable=False),
    )
    Index(f"{name}_of_study", table.c.study, table.c.id)
    return table


decision = _log(
    "decision",
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", Text, nullable=False),
    _number("batch"),
)
#: a user's words about a study, trial or run; kind is ``note`` or ``tag``
note = _log(
    "note",
    Column("kind", String(12), nullable=False),
    Column("address", Text, nullable=False),
    Column("text", Text, nullable=False),
    CheckConstraint("kind IN ('note', 'tag')", name="note_kind"),
)
#: what a door asks of the coordinator; gone once it was taken
command = _log("command", Column("verb", Text, nullable=False), Column("payload", Text, nullable=False))
#: files that belong to a study or to one of its runs
artifact = _log(
    "artifact",
    Column("address", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
