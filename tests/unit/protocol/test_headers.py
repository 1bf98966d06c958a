"""What a bot gets of a caller's fields, and a caller of a bot's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.protocol.forwarding import FORWARDING, Hop, forwarding
from relay.protocol.headers import (
    HOP_BY_HOP,
    MAX_FIELD_LINE,
    Field,
    end_to_end,
    for_bot_upgrade,
    from_bot_upgrade,
)

SESSION = "5b7f1c1e-0000-4000-8000-000000000000"
OWN = (b"x-daily-session-id", SESSION.encode())
HOP = Hop("203.0.113.7", trusted=False, host=b"front.example", version=b"1.1", tls=False)
ACCOUNT = list(forwarding((), HOP))

NAMES = st.sampled_from(
    (
        *sorted(HOP_BY_HOP),
        b"authorization",
        b"cookie",
        b"content-length",
        b"expect",
        b"host",
        b"origin",
        b"sec-websocket-key",
        b"set-cookie",
        b"user-agent",
        b"x-a",
        b"x-b",
        b"x-daily-session-id",
    )
)
NAMED = st.lists(st.sampled_from(("x-a", " X-B ", "\tUpgrade", "", "User-Agent", "set-cookie")))
FIELDS: st.SearchStrategy[list[Field]] = st.lists(
    st.tuples(NAMES, st.binary(max_size=5))
    | st.tuples(st.just(b"connection"), NAMED.map(lambda names: ",".join(names).encode())),
    max_size=12,
)


def named_by_connection(fields: list[Field]) -> set[bytes]:
    lines = b",".join(value for name, value in fields if name == b"connection")
    return {part.strip().lower() for part in lines.split(b",")}


@given(FIELDS)
def test_nothing_hop_by_hop_survives_and_the_rest_does(fields: list[Field]) -> None:
    gone = HOP_BY_HOP | named_by_connection(fields)
    assert end_to_end(fields) == [field for field in fields if field[0] not in gone]


@given(FIELDS)
def test_end_to_end_is_idempotent(fields: list[Field]) -> None:
    once = end_to_end(fields)
    assert end_to_end(once) == once


@given(FIELDS)
def test_secrets_and_claims_never_reach_a_bot(fields: list[Field]) -> None:
    passed = for_bot_upgrade(fields, SESSION, HOP)
    names = {name for name, _ in passed}
    assert not names & {b"authorization", b"cookie", b"host", b"content-length", b"expect"}
    assert not any(name.startswith(b"sec-websocket-") for name in names)
    assert [field for field in passed if field[0] == OWN[0]] == [OWN]


@given(FIELDS)
def test_a_client_gets_nothing_of_the_handshake_from_the_bots_fields(fields: list[Field]) -> None:
    names = {name for name, _ in from_bot_upgrade(fields)}
    assert not names & (HOP_BY_HOP | {b"content-length", b"date", b"server", OWN[0]})
    assert not any(name.startswith(b"sec-websocket-") for name in names)


def test_end_to_end_takes_any_iterable() -> None:
    fields = ((b"connection", b"x-a"), (b"x-a", b"1"), (b"x-b", b"2"))
    assert end_to_end(iter(fields)) == [(b"x-b", b"2")]


def test_what_a_bot_gets() -> None:
    fields = [
        (b"host", b"front.example"),
        (b"origin", b"https://app.example"),
        (b"authorization", b"Bearer secret"),
        (b"cookie", b"a=b"),
        (b"x-daily-session-id", b"forged"),
        (b"connection", b"Upgrade, X-Private"),
        (b"x-private", b"1"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", b"k"),
        (b"x-custom", b"1"),
        (b"x-custom", b"2"),
    ]
    assert for_bot_upgrade(fields, SESSION, HOP) == [
        (b"origin", b"https://app.example"),
        (b"x-custom", b"1"),
        (b"x-custom", b"2"),
        *ACCOUNT,
        OWN,
    ]


@pytest.mark.parametrize("name", sorted(FORWARDING | {b"x_forwarded_for", b"x_real_ip"}))
def test_a_stranger_says_nothing_of_the_way(name: bytes) -> None:
    assert for_bot_upgrade([(name, b"198.51.100.1")], SESSION, HOP) == [*ACCOUNT, OWN]


def test_the_account_of_a_trusted_proxy_goes_on() -> None:
    proxy = Hop("127.0.0.1", trusted=True, host=b"front.example", version=b"1.1", tls=False)
    fields = [(b"x-forwarded-for", b"198.51.100.1"), (b"via", b"1.1 proxy")]
    passed = for_bot_upgrade(fields, SESSION, proxy)
    assert passed == [*forwarding(fields, proxy), OWN]
    assert (b"x-forwarded-for", b"198.51.100.1, 127.0.0.1") in passed
    assert (b"via", b"1.1 proxy, 1.1 relay") in passed


def test_naming_our_own_field_in_connection_does_not_remove_it() -> None:
    fields = [(b"connection", b"x-daily-session-id, x-forwarded-for")]
    assert for_bot_upgrade(fields, SESSION, HOP) == [*ACCOUNT, OWN]


def test_what_a_client_gets() -> None:
    fields = [
        (b"date", b"today"),
        (b"server", b"uvicorn"),
        (b"content-length", b"0"),
        (b"x-daily-session-id", b"another"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"sec-websocket-accept", b"x"),
    ]
    assert from_bot_upgrade(fields) == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]


@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_field_line(excess: int) -> None:
    fields = [(b"x-long", b"v" * (MAX_FIELD_LINE - len(b"x-long: \r\n") + excess))]
    if not excess:
        assert for_bot_upgrade(fields, SESSION, HOP) == [*fields, *ACCOUNT, OWN]
        return
    with pytest.raises(Refusal, match="x-long is longer than 8192 bytes") as caught:
        for_bot_upgrade(fields, SESSION, HOP)
    assert (caught.value.status, caught.value.cause) == (431, "field_too_long")


def test_a_long_field_that_does_not_go_on_is_no_fault() -> None:
    fields = [(b"cookie", b"v" * MAX_FIELD_LINE)]
    assert for_bot_upgrade(fields, SESSION, HOP) == [*ACCOUNT, OWN]
