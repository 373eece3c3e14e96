"""Texts that would do harm where somebody took them for anything but text, and secrets that nobody may see."""

from __future__ import annotations

#: an element's name
MARK = "hostile-x"
#: an element, an attribute and a script's end, a template, a terminal's escape, a header, a formula, a direction mark
HOSTILE = f"""=1+1<{MARK} onload="alert(1)">'"</script></textarea>{{{{7*7}}}}\x1b[31m\r\nset-cookie: a=b\u202e"""
#: where a text may be: in SQL, in a path (once and twice coded), in HTML, in a template, in a header, in a spreadsheet
CORPUS = [
    HOSTILE,
    f"'; DROP TABLE study; --<{MARK}>",
    "../../../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "\x00",
    f"<img src=x onerror=alert(1)><{MARK}>",
    "\u202egnp.exe\u2066",
    "{{7*7}}${7*7}",
    "a\r\nSet-Cookie: a=b",
    "=HYPERLINK(1)",
    "\u00e9\U0001f389" * 1000,
]
#: a password
CANARY = "CANARY"
#: as runs tell it: in an address, of an environment variable, of a setting
SECRETS = f"postgresql://u:{CANARY}@db/x AWS_SECRET_ACCESS_KEY={CANARY} {{'password': '{CANARY}'}} api_key: {CANARY}"
