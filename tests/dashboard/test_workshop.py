"""What takes long is made elsewhere: nobody waits, nothing is made twice, the old is shown until the new is there."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import pytest
from fastapi.testclient import TestClient

import hpsearch as hp
from hpsearch.dashboard import workshop
from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record
from hpsearch.dashboard.workshop import Asked, Workshop
from hpsearch.errors import StoreError
from hpsearch.figures.subject import Subject
from hpsearch.importance import importances
from hpsearch.pictures import BeingMade
from hpsearch.trial import Direction, State, Trial
from tests.dashboard.conftest import answer_of

T = TypeVar("T")


@pytest.fixture
def shop() -> Iterator[Workshop]:
    made = Workshop()
    yield made
    made.close()


def patiently(ask: Callable[[], T], seconds: float = 60.0) -> T:
    end = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except BeingMade:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_old_is_shown_until_the_new_is_there(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "IDLE_S", 0.1)
    with pytest.raises(BeingMade):
        shop.made("a", 1, divmod, lambda: (7, 2))
    assert patiently(lambda: shop.made("a", 1, divmod, lambda: (7, 2))) == (3, 1)
    assert shop.made("a", 2, divmod, lambda: (9, 2)) == (3, 1)
    end = time.monotonic() + 30
    while shop.made("a", 2, divmod, lambda: (9, 2)) != (4, 1):
        assert time.monotonic() < end
        time.sleep(0.05)
    while shop._pool is not None:  # its process ends, and another is begun where there is work again
        assert time.monotonic() < end
        time.sleep(0.05)
    assert patiently(lambda: shop.made("b", 1, len, lambda: ("four",))) == 4


def test_what_fails_is_said(shop: Workshop) -> None:
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: shop.made("a", 1, divmod, lambda: (7, 0)))


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


SPACE = hp.SearchSpace({"lr": hp.Float(1e-4, 1, log=True), "wd": hp.Float(0, 1)})


def seen(n: int) -> Subject:
    """A study in which lr alone matters."""
    source = random.Random(0)
    points = [[source.random(), source.random()] for _ in range(n)]
    trials = [
        Trial(number=k, params=SPACE.from_unit(u), state=State.COMPLETE, value=abs(u[0] - 0.5))
        for k, u in enumerate(points)
    ]
    return Subject(
        study="s", strategy="random", metric="loss", direction=Direction.MINIMIZE, space=SPACE, trials=trials
    )


def test_what_mattered_is_what_this_process_finds(shop: Workshop) -> None:
    with pytest.raises(BeingMade):
        shop.importances(Asked("s", seen(12)))
    found = patiently(lambda: shop.importances(Asked("s", seen(12))))
    assert found == importances(SPACE, seen(12).trials, Direction.MINIMIZE)
    assert patiently(lambda: shop.order(Asked("s", seen(30))))[0] == "lr"


def test_of_many_trials_a_sample_by_one_method(shop: Workshop) -> None:
    found = patiently(lambda: shop.importances(Asked("s", seen(600))))
    assert (found.n, found.n_usable, found.resamples, found.fanova) == (500, 600, 20, [])
    assert found.ped_anova[0].name == "lr"


def test_a_running_study_keeps_what_mattered_until_it_has_grown_and_an_ended_one_is_exact(shop: Workshop) -> None:
    found = patiently(lambda: shop.importances(Asked("s", seen(400), running=True)))
    assert shop.importances(Asked("s", seen(401), running=True)) is found
    assert not shop._jobs
    assert shop.importances(Asked("s", seen(480), running=True)) is found  # and is found out anew meanwhile
    patiently(lambda: shop.importances(Asked("s", seen(481))))
    with pytest.raises(BeingMade):
        shop.importances(Asked("s", seen(482)))
    assert patiently(lambda: shop.importances(Asked("s", seen(482)))).n_usable == 482


def test_where_nothing_can_be_said_no_process_is_begun(shop: Workshop) -> None:
    assert "9 trials" in shop.importances(Asked("s", seen(9))).reason
    assert shop.order(Asked("s", seen(9))) == ["lr", "wd"]
    assert shop._pool is None


def test_a_process_that_is_lost_is_said_and_another_one_works(shop: Workshop) -> None:
    with pytest.raises(BrokenProcessPool):
        patiently(lambda: shop.made("a", 1, os._exit, lambda: (1,)))
    assert patiently(lambda: shop.made("b", 1, len, lambda: ("four",))) == 4
    assert shop._pool is not None
    (process,) = shop._pool._processes.values()
    process.kill()
    process.join()
    assert patiently(lambda: shop.order(Asked("s", seen(30))))[0] == "lr"


def test_a_report_whose_process_is_lost_is_an_error_with_a_way_out(shop: Workshop, url: str) -> None:
    found: list[BaseException] = []

    def ask() -> None:
        try:
            shop.report(url, "grid")
        except StoreError as error:
            found.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    end = time.monotonic() + 30
    while not (shop._pool and shop._pool._processes):
        assert time.monotonic() < end
        time.sleep(0.01)
    for process in list(shop._pool._processes.values()):
        process.kill()
    asking.join(30)
    assert "was not made" in str(found[0])
    assert shop.report(url, "grid").startswith(b"<!doctype html>")
