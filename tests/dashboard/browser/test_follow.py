"""A page that was opened early says in the end what one says that is opened then: all of it, on every page."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

import hpsearch as hp
from tests.dashboard.browser.conftest import served
from tests.dashboard.browser.test_live import wait_for_live

TRAIN = """
import math, pathlib, sqlite3
HERE = pathlib.Path(__file__).parent
calls = 0
def plain(run):
    value = (math.log10(run["lr"]) + 2) ** 2 + run["x"] + 0.01 * run.seed
    for epoch in range(3):
        run.report(epoch, loss=value + 1 / (1 + epoch))
    return value
def train(run):
    global calls
    calls += 1
    if calls == 5:
        late, early = sqlite3.connect(HERE / "late.db"), sqlite3.connect(HERE / "early.db")
        late.backup(early)
        late.close()
        early.close()
    if run["lr"] > 0.3:
        return math.nan
    if run["x"] > 0.7:
        raise ValueError(f"x is {run['x']}, and that is too much")
    return plain(run)
"""
#: pages that there are before the first trial, and those that there are with it
FIRST = [
    "/",
    "/s/whole",
    "/s/whole/trials",
    "/s/whole/params",
    "/s/whole/rounds",
    "/s/whole/grid-vs-random",
    "/s/whole/compare",
    "/s/whole/diagnostics",
    "/s/whole/workers",
    "/s/whole/ship",
    "/compare?s=whole&s=other",
]
THEN = ["/s/whole/t/{bad}", "/s/whole/t/{bad}/0", "/s/whole/compare?a=1&b=2"]
#: what a page says, without what its pictures say, and how long ago something was
SAYS = """(page) => {
  const main = page.querySelector("main").cloneNode(true);
  for (const one of main.querySelectorAll("figure, #since, .card:has(figure) > .sentence")) one.remove();
  return main.textContent.replace(/\\d+ (s|min) ago/g, "").replace(/\\s+/g, " ").trim();
}"""
#: what this page says, and what it would say if it were opened now
BOTH = f"""async () => {{
  const says = {SAYS};
  const fresh = await (await fetch(location.href)).text();
  return [says(document), says(new DOMParser().parseFromString(fresh, "text/html"))];
}}"""


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one record before a study's first trial, early in it, and at its end, which was no good one."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / "train.py").write_text(TRAIN)
    for name, function in (("other", "plain"), ("whole", "train")):
        study = hp.define(
            name=name,
            objective=f"{folder}/train.py:{function}",
            metric={"loss": "minimize"},
            search_space={"lr": {"log": [1e-4, 1.0]}, "x": {"uniform": [0, 1]}},
            strategy={"coarse_to_fine": {"rounds": 2}},
            n_trials=12,
            seeds=2,
        )
        hp.run(study, db=f"sqlite:///{folder}/late.db", on="inline")
    with closing(sqlite3.connect(folder / "early.db")) as db, db:
        db.execute("UPDATE study SET lease_until = ? WHERE name = 'whole'", (time.time() + 600,))
    shutil.copy(folder / "early.db", folder / "none.db")
    with closing(sqlite3.connect(folder / "none.db")) as db, db:
        (key,) = db.execute("SELECT id FROM study WHERE name = 'whole'").fetchone()
        for table in ("trial", "run", "attempt", "metric", "decision"):
            db.execute(f"DELETE FROM {table} WHERE study = ?", (key,))
        db.execute("UPDATE study SET rev = 1, tell_seq = 0 WHERE id = ?", (key,))
    with closing(sqlite3.connect(folder / "late.db")) as db, db:
        db.execute("UPDATE study SET state = 'interrupted', reason = 'the machine went down' WHERE id = ?", (key,))
        row = list(db.execute("SELECT * FROM attempt WHERE study = ? ORDER BY trial LIMIT 1", (key,)).fetchone())
        row[4:] = [99, row[5], row[5] + 1, "crash", 1.0, "worker-1"]  # a worker was lost
        db.execute(f"INSERT INTO attempt VALUES ({', '.join('?' * len(row))})", row)
    return folder


def become(record: Path, stage: Path) -> None:
    """In one transaction: all rows of another record."""
    with closing(sqlite3.connect(record, isolation_level=None)) as db:
        db.execute("ATTACH ? AS stage", (str(stage),))
        db.execute("BEGIN IMMEDIATE")
        for (table,) in db.execute("SELECT name FROM stage.sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f"DELETE FROM main.{table}")
            db.execute(f"INSERT INTO main.{table} SELECT * FROM stage.{table}")
        db.execute("COMMIT")


def test_a_page_opened_early_says_in_the_end_all_that_a_new_one_says(
    stages: Path, tmp_path: Path, opened, chromium
) -> None:
    record = tmp_path / "record.db"
    shutil.copy(stages / "none.db", record)
    with closing(sqlite3.connect(stages / "late.db")) as db:
        (bad,) = db.execute("SELECT min(trial) FROM run WHERE state = 'failed'").fetchone()
    with served(f"sqlite:///{record}") as server:
        context = chromium.new_context()
        pages = {path: opened(server.root + path, context=context).page for path in FIRST}
        for page in pages.values():
            wait_for_live(page)
        before = {path: page.evaluate(BOTH)[0] for path, page in pages.items()}
        become(record, stages / "early.db")
        for path in (path.format(bad=bad) for path in THEN):
            page = pages[path] = opened(server.root + path, context=context).page
            wait_for_live(page)
            before[path] = page.evaluate(BOTH)[0]
        become(record, stages / "late.db")
        end = time.monotonic() + 30
        for path, page in pages.items():
            while True:
                shown, fresh = page.evaluate(BOTH)
                if shown == fresh != before[path]:
                    break
                assert time.monotonic() < end, (path, before[path], shown, fresh)
                page.wait_for_timeout(100)
        assert "the machine went down" in pages["/s/whole"].content()
        assert "What went wrong" in pages[f"/s/whole/t/{bad}"].content()
        assert "crash" in pages["/s/whole/workers"].content()
        assert pages["/s/whole/diagnostics"].locator("figure[data-figure*=lr_curve]").count() == 1
        context.close()


def test_what_the_reader_did_stays(stages: Path, tmp_path: Path, opened) -> None:
    record = tmp_path / "record.db"
    shutil.copy(stages / "early.db", record)
    with served(f"sqlite:///{record}") as server:
        page = opened(f"{server.root}/s/whole/params").page
        wait_for_live(page)
        page.get_by_label("where").first.fill("lr<0.0")
        page.locator("summary", has_text="state").click()
        card = page.locator(".card", has=page.locator("figure[data-figure*='/lr_curve']")).first
        card.get_by_role("button", name="as table").click()
        card.locator("tbody tr").first.wait_for()
        become(record, stages / "late.db")
        page.get_by_text("of 12 trials").or_(page.get_by_text("of 13 trials")).wait_for(timeout=8000)
        assert page.get_by_label("where").first.input_value() == "lr<0.0"
        assert page.locator("details.pick[open]").count() == 1
        assert card.locator("table tbody tr").count() > 0
