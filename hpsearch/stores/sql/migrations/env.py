"""Alembic's environment: it runs in the transaction of the connection that ``migrate`` hands over."""

from __future__ import annotations

from alembic import context

from hpsearch.stores.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
