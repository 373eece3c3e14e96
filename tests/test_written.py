"""Texts as people read them; what is hidden of them, and what is not."""

from __future__ import annotations

import time

import pytest

from hpsearch.written import redacted, shown_on_page, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://ann:p@ss:w@host:5432/db", "postgresql+psycopg://ann:***@host:5432/db"),
        ("https://:tok@host", "https://:***@host"),
        ("x?sslpassword=a&passfile=b&x=1", "x?sslpassword=***&passfile=***&x=1"),
        ("PGPASSWORD=hunter2 next", "PGPASSWORD=*** next"),
        ("{'password': 'a', 'user': 'b'}", "{'password': '***', 'user': 'b'}"),
        ('{"client_secret": "a"}', '{"client_secret": "***"}'),
        ("AWS_SECRET_ACCESS_KEY=a/b+c", "AWS_SECRET_ACCESS_KEY=***"),
        (r"raise E('{\'password\': \'a\', \'b\': 1}')", r"raise E('{\'password\': \'***', \'b\': 1}')"),
        ("api_key: 12345", "api_key: ***"),
        ("HF_TOKEN=hf_abcdef", "HF_TOKEN=***"),
        ("token = 'abcdefgh'", "token = '***'"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert shown_on_page(text) == shown
    assert without_secrets({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8787/s/digits?sort=rank",
        "sqlite:////home/ann/runs@work/r.db",
        "max_token=128",
        "{'pool_token': 'cls'}",
        "n_token: 3.5",
        "token = self.embed(x)",
        "tokenizer=BertTokenizer()",
        "bypass: yes",
        "a passing test; keys: 3",
        "ValueError: the password is too short",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("part", ["x", "a.", "://", "://a:", "password", "token", "?pass", "token = ", "&a", "key "])
def test_long_texts_take_time_in_proportion(part: str) -> None:
    begun = time.process_time()
    redacted(part * (200_000 // len(part)))
    assert time.process_time() - begun < 2
