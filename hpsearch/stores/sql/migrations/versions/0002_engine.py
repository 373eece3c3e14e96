"""How a run was trained: its engine, in words; empty for the runs of the first schema.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("run", sa.Column("engine", sa.Text(), server_default="", nullable=False))
