"""The policy by itself: tokens, codes, sessions, names of hosts, and what may be served where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.dashboard.access import (
    CODE_S,
    SESSION_S,
    TRIES,
    TRIES_S,
    Access,
    Asked,
    Role,
    command_of,
    cookie_of,
    is_loopback,
    make_access,
    name_of,
    role,
    role_of,
)
from hpsearch.errors import UsageError

TOKEN = "0123456789abcdef" * 4


class Clock:
    """A clock that tests turn."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_roles_are_these_and_an_endpoint_that_is_not_marked_has_none() -> None:
    assert list(Role) == ["open", "read", "act"]

    @role(Role.ACT, command="hpsearch stop {study}")
    def stop() -> None: ...

    assert (role_of(stop), command_of(stop)) == (Role.ACT, "hpsearch stop {study}")
    assert role_of(lambda: None) is None
    assert command_of(lambda: None) == ""


@pytest.mark.parametrize(
    ("token", "actions", "known", "granted"),
    [
        (None, False, False, {Role.OPEN, Role.READ}),
        (None, True, False, {Role.OPEN, Role.READ}),
        (None, True, True, {Role.OPEN, Role.READ, Role.ACT}),
        (None, False, True, {Role.OPEN, Role.READ}),
        (TOKEN, True, False, {Role.OPEN}),
        (TOKEN, False, True, {Role.OPEN, Role.READ}),
        (TOKEN, True, True, {Role.OPEN, Role.READ, Role.ACT}),
    ],
)
def test_who_may_do_what(token: str | None, actions: bool, known: bool, granted: set[Role]) -> None:
    assert Access(token=token, allow_actions=actions).granted(known=known) == granted


def test_the_token_is_not_kept_and_only_it_is_it() -> None:
    access = Access(token=TOKEN)
    assert access.is_token(TOKEN)
    assert not any(access.is_token(text) for text in ("", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "é\ud800"))
    assert TOKEN not in repr(vars(access))
    assert not Access().is_token("")
    with pytest.raises(UsageError, match="fewer than 16 characters"):
        Access(token="short")


def test_a_code_works_once_and_for_a_while_and_the_next_one_is_told() -> None:
    clock, told = Clock(), []
    access = Access(clock=clock, tell=told.append)
    assert not access.redeem("")
    first = access.new_code()
    assert not access.redeem(first + "x")
    assert told == []
    assert access.redeem(first)
    assert not access.redeem(first)
    clock.now += CODE_S
    assert not access.redeem(told[0])  # too old; the next one is told
    assert len(told) == 2
    assert access.redeem(told[1])
    assert len({first, *told}) == 4


def test_a_session_ends_and_cannot_be_made_up() -> None:
    clock = Clock()
    access = Access(token=TOKEN, clock=clock)
    session = access.new_session()
    assert access.is_session(session)
    end, nonce, signature = session.split(".")
    forged = [
        f"{int(end) + 9}.{nonce}.{signature}",
        f"{end}.x.{signature}",
        f"{end}.{nonce}.",
        "",
        ".",
        "..",
        "é.\ud800.1",
    ]
    assert not any(access.is_session(text) for text in forged)
    assert session != access.new_session()
    clock.now += SESSION_S
    assert not access.is_session(session)


def test_a_session_outlives_a_restart_with_the_same_token_only() -> None:
    session = Access(token=TOKEN).new_session()
    assert Access(token=TOKEN).is_session(session)
    assert not Access(token=TOKEN[::-1]).is_session(session)
    assert not Access().is_session(session)
    assert not Access().is_session(Access().new_session())


@given(st.text())
def test_no_text_is_a_session_a_code_or_a_token(text: str) -> None:
    access = Access(token=TOKEN)
    access.new_code()
    assert not access.is_session(text)
    assert not access.redeem(text)
    assert not access.is_token(text)


def test_wrong_tries_are_counted_by_address_and_forgotten() -> None:
    clock = Clock()
    tries = Access(clock=clock).tries
    for _ in range(TRIES):
        assert tries.wait_s("a") == 0
        tries.failed("a")
    assert tries.wait_s("a") == TRIES_S
    assert tries.wait_s("b") == 0
    clock.now += TRIES_S
    assert tries.wait_s("a") == 0
    for number in range(10_000):
        tries.failed(str(number))
    assert len(vars(tries)["_failed"]) < 5000


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("127.0.0.1:8787", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:8787", "::1"),
        ("a.example.", "a.example"),
        ("evil.test:80@127.0.0.1", ""),
        ("127.0.0.1:8787:1", ""),
        ("a b", ""),
        ("", ""),
        ("127.0.0.1\n", "127.0.0.1"),
        ("１27.0.0.1", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert name_of(header) == name
    assert Access().allows_host(header) == (name in {"127.0.0.1", "localhost", "::1"})


def test_hosts_are_those_of_this_machine_and_those_named() -> None:
    access = Access(token=TOKEN, hosts=["HPS.example.org", "10.0.0.5:8787"])
    assert access.allows_host("hps.example.org:443")
    assert access.allows_host("10.0.0.5")
    assert not access.allows_host("example.org")
    assert not access.allows_host("")


def test_two_servers_of_one_machine_have_two_cookies() -> None:
    assert cookie_of("127.0.0.1:8787") == "hpsearch-session-8787"
    assert cookie_of("127.0.0.1:8788") == "hpsearch-session-8788"
    assert cookie_of("hps.example.org") == cookie_of("[::1]") == "hpsearch-session"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_loopback_addresses(address: str) -> None:
    assert is_loopback(address)
    assert not is_loopback(f"{address}.evil.test")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(loopback=False), "needs a token"),
        (Asked(loopback=False, hosts=["hps.test"]), "needs a token"),
        (Asked(loopback=False, token=TOKEN), "needs --allowed-hosts"),
        (Asked(loopback=True, hosts=["hps.test"]), "hps.test is not this machine alone: that needs a token"),
        (Asked(loopback=True, hosts=["*"], token=TOKEN), r"'\*' is no name of a host"),
        (Asked(loopback=True, hosts=["http://hps.test"], token=TOKEN), "is no name of a host"),
        (Asked(loopback=True, token="abc"), "fewer than 16"),
    ],
)
def test_what_is_not_safe_is_refused(asked: Asked, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_access(asked)
    assert caught.value.hint
    assert TOKEN not in f"{caught.value} {caught.value.hint}"


def test_what_is_safe_is_served() -> None:
    assert make_access(Asked(loopback=True)).free_reading
    assert make_access(Asked(loopback=True, hosts=["localhost"])).free_reading
    behind_a_proxy = make_access(Asked(loopback=True, hosts=["hps.test"], token=TOKEN))
    assert not behind_a_proxy.free_reading
    assert not make_access(Asked(loopback=False, hosts=["127.0.0.1"], token=TOKEN, allow_actions=True)).free_reading
