"""What takes long is made elsewhere: nobody waits, nothing is made twice, the old is shown until the new is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from fastapi.testclient import TestClient

from hpsearch.dashboard import workshop
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.dashboard.workshop import Workshop
from hpsearch.pictures import BeingMade
from tests.dashboard.conftest import answer_of

T = TypeVar("T")


def patiently(ask: Callable[[], T], seconds: float = 60.0) -> T:
    end = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except BeingMade:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_old_is_shown_until_the_new_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "IDLE_S", 0.1)
    shop = Workshop()
    try:
        with pytest.raises(BeingMade):
            shop.made("a", 1, divmod, lambda: (7, 2))
        assert patiently(lambda: shop.made("a", 1, divmod, lambda: (7, 2))) == (3, 1)
        assert shop.made("a", 2, divmod, lambda: (9, 2)) == (3, 1)
        end = time.monotonic() + 30
        while shop.made("a", 2, divmod, lambda: (9, 2)) != (4, 1):
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.5)  # its process has ended, and another is begun where there is work again
        assert patiently(lambda: shop.made("b", 1, len, lambda: ("four",))) == 4
    finally:
        shop.close()


def test_what_fails_is_said() -> None:
    shop = Workshop()
    try:
        with pytest.raises(ZeroDivisionError):
            patiently(lambda: shop.made("a", 1, divmod, lambda: (7, 0)))
    finally:
        shop.close()


def test_a_picture_of_what_mattered_is_said_to_be_on_its_way_and_comes(client: TestClient) -> None:
    address = "/api/v1/studies/grid/figures/importances?where=x>-1"
    first = client.get(address).json()
    assert not first["shown"]
    assert first["again"] > 0
    assert answer_of(client, address)["shown"]
    assert "again" not in client.get(address).json()


def test_pages_do_not_wait_for_what_mattered(url: str) -> None:
    for page in ("params", "grid-vs-random?with=fine"):
        with TestClient(make_app(Record(url), Access()), base_url="http://127.0.0.1:8787") as fresh:
            assert fresh.get(f"/s/grid/{page}").status_code == 200
