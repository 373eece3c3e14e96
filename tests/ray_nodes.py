"""A Ray cluster of several nodes on this machine, with a token, for the tests of one file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

#: one for all clusters of a process
TOKEN = secrets.token_hex(32)
#: bytes; the smallest that Ray takes
OBJECT_STORE = 80 * 2**20


@contextmanager
def cluster(nodes: int, *, token: bool = True, **head: Any) -> Iterator[Any]:
    """A head without CPUs, where drivers connect, and ``nodes`` nodes of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token" if token else "disabled")
        if token:
            patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Who is silent for so long is dead.
        patch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        patch.setenv("RAY_health_check_period_ms", "1000")
        from ray._private.authentication_test_utils import reset_auth_token_state
        from ray.cluster_utils import Cluster

        reset_auth_token_state()  # another test of this process may have had Ray read these already
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE, **head}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(nodes):
                add_node(made)
            yield made
        finally:
            made.shutdown()


def add_node(made: Any, **options: Any) -> Any:
    """One more node of one CPU."""
    return made.add_node(**{"num_cpus": 1, "object_store_memory": OBJECT_STORE, **options})
