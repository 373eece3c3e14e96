"""The first schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

RANGE = "BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308"


def upgrade() -> None:
    op.create_table(
        "environment",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rev", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("tell_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("fenced", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'complete', 'stopped', 'interrupted', 'failed')", name="study_state"),
        sa.CheckConstraint(f"seconds {RANGE}", name="study_seconds"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "artifact",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("artifact_of_study", "artifact", ["study", "id"], unique=False)
    op.create_table(
        "command",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("command_of_study", "command", ["study", "id"], unique=False)
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("batch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("decision_of_study", "decision", ["study", "id"], unique=False)
    op.create_table(
        "note",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('note', 'tag')", name="note_kind"),
        sa.ForeignKeyConstraint(["study"], ["study.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("note_of_study", "note", ["study", "id"], unique=False)
    op.create_table(
        "trial",
        sa.Column("study", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("sd", sa.Double(), nullable=True),
        sa.Column("baseline", sa.Boolean(), nullable=False),
        sa.Column("batch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("history_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tell_seq", sa.Integer(), nullable=True),
        sa.CheckConstraint("(state = 'queued') = (tell_seq IS NULL)", name="trial_told"),
        sa.CheckConstraint("state <> 'complete' OR value IS NOT NULL", name="trial_value"),
        sa.CheckConstraint(
            "state IN ('queued', 'complete', 'pruned', 'diverged', 'failed', 'cancelled')", name="trial_state"
        ),
        sa.CheckConstraint("value IS NULL OR state IN ('complete', 'pruned')", name="trial_no_value"),
        sa.CheckConstraint(
            f"value {RANGE} AND sd {RANGE}",
            name="trial_finite",
        ),
        sa.ForeignKeyConstraint(["study"], ["study.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study", "number"),
        sa.UniqueConstraint("study", "tell_seq", name="trial_tell_seq"),
    )
    op.create_table(
        "run",
        sa.Column("study", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("trial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seed", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("repeat", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stage", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("best_epoch", sa.Integer(), nullable=True),
        sa.Column("last_epoch", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("returned", sa.Text(), nullable=False),
        sa.Column("environment", sa.String(length=64), nullable=True),
        sa.CheckConstraint("stage IN ('search', 'confirm', 'extra')", name="run_stage"),
        sa.CheckConstraint("state <> 'complete' OR value IS NOT NULL", name="run_value"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'paused', 'complete', 'pruned', 'diverged', 'failed', 'cancelled')",
            name="run_state",
        ),
        sa.CheckConstraint("value IS NULL OR state IN ('complete', 'pruned')", name="run_no_value"),
        sa.CheckConstraint(
            f"value {RANGE} AND seconds {RANGE}",
            name="run_finite",
        ),
        sa.ForeignKeyConstraint(
            ["environment"],
            ["environment.sha256"],
        ),
        sa.ForeignKeyConstraint(["study", "trial"], ["trial.study", "trial.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study", "trial", "seed", "repeat"),
    )
    op.create_table(
        "attempt",
        sa.Column("study", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("trial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seed", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("repeat", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.CheckConstraint("(cause IS NULL) = (ended IS NULL)", name="attempt_lost"),
        sa.CheckConstraint(f"seconds {RANGE}", name="attempt_seconds"),
        sa.ForeignKeyConstraint(
            ["study", "trial", "seed", "repeat"],
            ["run.study", "run.trial", "run.seed", "run.repeat"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study", "trial", "seed", "repeat", "attempt"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "layers",
        sa.Column("study", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("trial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seed", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("repeat", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("norms", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study", "trial", "seed", "repeat"],
            ["run.study", "run.trial", "run.seed", "run.repeat"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study", "trial", "seed", "repeat", "attempt", "epoch"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "metric",
        sa.Column("study", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("trial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seed", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("repeat", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.CheckConstraint(f"value {RANGE}", name="metric_finite"),
        sa.ForeignKeyConstraint(
            ["study", "trial", "seed", "repeat"],
            ["run.study", "run.trial", "run.seed", "run.repeat"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study", "trial", "seed", "repeat", "attempt", "epoch", "name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sealed",
        sa.Column("study", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("trial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seed", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("repeat", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.CheckConstraint(f"value {RANGE}", name="sealed_finite"),
        sa.ForeignKeyConstraint(
            ["study", "trial", "seed", "repeat"],
            ["run.study", "run.trial", "run.seed", "run.repeat"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study", "trial", "seed", "repeat", "attempt", "epoch", "name"),
        sqlite_with_rowid=False,
    )
