from __future__ import annotations

from hpsearch.store import clean, this_process
from tests.conformance.stores import ELSEWHERE, a_dead_process


def test_this_process_lives_and_knows_a_dead_one():
    assert not this_process().is_dead()
    assert a_dead_process().is_dead()
    assert not ELSEWHERE.is_dead()


def test_clean_text_can_be_stored_everywhere():
    assert clean("é\n\U0001f600") == "é\n\U0001f600"
    assert clean("a\0\ud800b").encode() == rb"a\x00\ud800b"
