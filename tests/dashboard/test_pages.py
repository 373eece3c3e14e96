"""Every page of a real study answers, and says what it is about."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize("study", ["digits", "fine", "grid"])
def test_the_overview_says_the_best(client: TestClient, study: str) -> None:
    answer = client.get(f"/s/{study}")
    assert answer.status_code == 200
    assert f"<title>{study} · hpsearch</title>" in answer.text
    assert "±" in answer.text
