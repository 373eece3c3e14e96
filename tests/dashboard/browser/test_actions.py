"""What a person may change: with the printed address's code, by forms, on the record."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.further import REVEAL
from hpsearch.stores.sql import open_archive
from tests.dashboard import confirmed
from tests.dashboard.browser.conftest import served

HOSTILE = "<script>document.title = 'owned'</script>"


@pytest.fixture
def db(tmp_path: Path) -> str:
    (tmp_path / "made").mkdir()
    return f"sqlite:///{confirmed.make(tmp_path / 'made')}/record.db"


@pytest.mark.parametrize("script", [True, False])
def test_notes_and_one_look_from_a_browser(db: str, opened, axe: str, script: bool) -> None:
    with served(db, "--allow-actions") as server:
        shown = opened(f"{server.root}/s/digits", java_script_enabled=script)
        page = shown.page
        assert page.locator("form[method=post]").count() == 0
        assert page.get_by_text("hpsearch note digits").count() == 1
        page.goto(server.printed)
        page.goto(f"{server.root}/s/digits/t/1")
        page.get_by_label("note", exact=True).fill(HOSTILE)
        page.get_by_role("button", name="Add the note").click()
        page.get_by_text("The note is written.").wait_for()
        assert page.locator("dl.lines dd").inner_text() == HOSTILE
        assert "owned" not in page.title()
        page.get_by_label("tag", exact=True).fill("paper")
        page.get_by_role("button", name="Add the tag").click()
        page.get_by_text("The tag is written.").wait_for()
        page.goto(f"{server.root}/s/digits/ship")
        page.get_by_label("why").fill("table 2")
        page.get_by_role("button", name="Reveal the test metric (look 1)").click()
        page.get_by_text("The test set was looked at; the look is on record.").wait_for(timeout=120_000)
        assert "via dashboard: table 2" in page.content()
        assert page.get_by_role("row", name="test_").count() >= 1
        if script:
            page.evaluate(axe)
            found = page.evaluate("axe.run().then((found) => found.violations.map((one) => one.id))")
            assert found == []
            # Whoever still has the page of before the look: it is refused, with the number of looks.
            page.evaluate("document.querySelector('[name=again]').remove()")
            page.get_by_label("why").fill("more")
            page.get_by_role("button", name="Reveal").click()
            page.get_by_text("the test set was looked at once").wait_for()
            assert [text for text in shown.wrong if "409" not in text] == []
            shown.wrong.clear()  # Chromium writes each refusal to its console
    archive = open_archive(db)
    assert list(archive.study("digits").notes) == [("digits/1", HOSTILE)]
    assert list(archive.study("digits").trial_tags) == [("digits/1", "paper")]
    assert [d.reason for d in archive.decisions("digits") if d.kind == REVEAL] == ["table 2"]
