"""What a request tells a bot of its way: nothing that an untrusted peer has made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.forwarding import (
    FORWARDING,
    TRACE_BYTES,
    Hop,
    forwarding,
    hops_left,
    is_trace,
    told_caller,
    trace,
)
from relay.protocol.headers import NOT_FOR_BOT_ROUTES, Field, end_to_end, for_bot, in_trailers
from relay.protocol.http1 import Request

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
GIVEN: list[Field] = [
    (b"forwarded", b"for=192.0.2.1;proto=https"),
    (b"x-forwarded-for", b"192.0.2.1"),
    (b"x-forwarded-for", b"10.0.0.2"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-port", b"443"),
    (b"x-real-ip", b"192.0.2.1"),
    (b"via", b"1.1 edge"),
]
NAMES = st.sampled_from(sorted(FORWARDING | {b"via", b"x-a", b"accept"}))
FIELDS: st.SearchStrategy[list[Field]] = st.lists(
    st.tuples(NAMES, st.sampled_from((b"192.0.2.1", b"for=1.2.3.4", b"https", b"")))
)


def hop(peer: str = "10.0.0.9", *, trusted: bool = False, host: bytes | None = b"a:80") -> Hop:
    return Hop(peer, trusted, host, b"1.1")


def test_an_untrusted_peer_is_not_believed() -> None:
    assert forwarding(GIVEN, hop()) == [
        (b"via", b"1.1 edge, 1.1 relay"),
        (b"forwarded", b'for=10.0.0.9;host="a:80";proto=http'),
        (b"x-forwarded-for", b"10.0.0.9"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"a:80"),
    ]


def test_a_trusted_peer_is_continued() -> None:
    assert forwarding(GIVEN, hop(trusted=True)) == [
        (b"via", b"1.1 edge, 1.1 relay"),
        (b"forwarded", b'for=192.0.2.1;proto=https, for=10.0.0.9;host="a:80";proto=http'),
        (b"x-forwarded-for", b"192.0.2.1, 10.0.0.2, 10.0.0.9"),
        (b"x-forwarded-host", b"a:80"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-port", b"443"),
        (b"x-real-ip", b"192.0.2.1"),
    ]


@pytest.mark.parametrize(
    ("peer", "host", "element"),
    [
        ("2001:db8::1", b"a", b'for="[2001:db8::1]";host=a;proto=http'),
        ("10.0.0.1", None, b"for=10.0.0.1;proto=http"),
        ("", b"[::1]:80", b'for=unknown;host="[::1]:80";proto=http'),
    ],
)
def test_how_a_hop_is_written(peer: str, host: bytes | None, element: bytes) -> None:
    fields = dict(forwarding([], hop(peer, host=host)))
    assert fields[b"forwarded"] == element
    assert fields.get(b"x-forwarded-for", b"") == peer.encode()


@given(FIELDS)
def test_nothing_of_an_untrusted_peers_account_survives(fields: list[Field]) -> None:
    others = [field for field in fields if field[0] == b"via"]
    assert forwarding(fields, hop()) == forwarding(others, hop())


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (PARENT, True),
        (b"cc" + PARENT[2:], True),
        (b"cc" + PARENT[2:] + b"-more", True),
        (PARENT + b"-more", False),
        (b"ff" + PARENT[2:], False),
        (PARENT.upper(), False),
        (PARENT[:-1], False),
        (PARENT + b" ", False),
        (b"00-" + b"0" * 32 + PARENT[35:], False),
        (PARENT[:36] + b"0" * 16 + b"-01", False),
        (b"", False),
    ],
)
def test_what_a_trace_is(value: bytes, valid: bool) -> None:
    assert is_trace(value) == valid
    fields = [(b"traceparent", value), (b"tracestate", b"a=1"), (b"x", b"y")]
    found = trace(fields, b"r" * TRACE_BYTES)
    assert found == fields[:2] if valid else [name for name, _ in found] == [b"traceparent"]


@given(st.binary(min_size=TRACE_BYTES, max_size=TRACE_BYTES))
def test_a_new_trace_is_valid(random: bytes) -> None:
    # All bits zero is the one value of 2^-64 that no random source gives.
    random = bytes([*random[:15], 1, *random[16:23], 1])
    ((name, value),) = trace([], random)
    assert (name, is_trace(value)) == (b"traceparent", True)
    assert trace([(b"traceparent", PARENT)] * 2, random) == [(name, value)]


@pytest.mark.parametrize(
    ("method", "value", "left"),
    [
        (b"OPTIONS", b"0", 0),
        (b"OPTIONS", b"12", 12),
        (b"OPTIONS", b"-1", None),
        (b"OPTIONS", b"", None),
        (b"GET", b"0", None),
    ],
)
def test_how_often_a_request_may_be_forwarded(
    method: bytes, value: bytes, left: int | None
) -> None:
    assert hops_left(method, [(b"max-forwards", value)]) == left


ALL_NAMES = NAMES | st.sampled_from(
    (b"connection", b"te", b"trailer", b"expect", b"host", b"authorization", b"x-b", b"upgrade")
)
VALUES = st.sampled_from(
    (b"x-a, Via", b"trailers", b"Forwarded", b"x-b", b"close", b"100-continue")
)


@given(st.lists(st.tuples(ALL_NAMES, VALUES)), st.booleans())
def test_what_goes_to_a_bot_is_said_once_and_by_us(fields: list[Field], trusted: bool) -> None:
    request = Request(b"GET", b"/x", b"1.1", tuple(fields))
    sent = for_bot(request, "s", "r", hop(trusted=trusted), b"r" * TRACE_BYTES)
    names = [name for name, _ in sent]
    for name in (b"via", b"forwarded", b"traceparent", b"x-daily-session-id"):
        assert names.count(name) == 1
    assert not {b"authorization", b"expect", b"upgrade", b"content-length"} & set(names)
    assert [value for name, value in sent if name == b"connection"] in ([], [b"te"])
    passed = [field for field in end_to_end(fields) if field[0] in (b"x-a", b"x-b", b"accept")]
    assert [field for field in sent if field[0] in (b"x-a", b"x-b", b"accept")] == passed


def test_trailers_hold_nothing_that_a_head_decides() -> None:
    names = [*NOT_FOR_BOT_ROUTES, b"cookie", b"set-cookie", b"transfer-encoding", b"trailer"]
    fields = [(name, b"1") for name in names]
    assert in_trailers([*fields, (b"x-sum", b"1")]) == [(b"x-sum", b"1")]


PROXIES = ("10.", "fd00:")


def told(*fields: tuple[bytes, bytes]) -> str | None:
    return told_caller(fields, lambda hop: hop.startswith(PROXIES))


@pytest.mark.parametrize(
    ("value", "hop"),
    [
        pytest.param(b"192.0.2.1", "192.0.2.1:0", id="an address"),
        pytest.param(b"192.0.2.1:4711", "192.0.2.1:0", id="with a port"),
        pytest.param(b"2001:db8::1", "2001:db8::1:0", id="IPv6"),
        pytest.param(b"[2001:db8::1]:4711", "2001:db8::1:0", id="IPv6 with a port"),
        pytest.param(b"198.51.100.7, 192.0.2.1", "192.0.2.1:0", id="the last one"),
        pytest.param(b"192.0.2.1,10.0.0.1 , fd00::1", "192.0.2.1:0", id="behind proxies"),
        pytest.param(b"10.0.0.2, 10.0.0.1", "10.0.0.2:0", id="proxies alone"),
        pytest.param(b"192.0.2.1, unknown", None, id="unknown"),
        pytest.param(b"192.0.2.1, ", None, id="empty"),
        pytest.param(b"192.0.2.999", None, id="no address"),
        pytest.param(b", ".join([b"192.0.2.1"] + [b"10.0.0.1"] * 16), "10.0.0.1:0", id="too many"),
    ],
)
def test_the_caller_that_a_proxy_tells(value: bytes, hop: str | None) -> None:
    assert told((b"x-forwarded-for", value)) == hop
    elements = [b'proto=https; For="%s"' % each.strip() for each in value.split(b",")]
    assert told((b"forwarded", b", ".join(elements))) == hop


def test_fields_of_one_name_are_one_account() -> None:
    fields = ((b"x-forwarded-for", b"198.51.100.7"), (b"x-forwarded-for", b"192.0.2.1"))
    assert told(*fields) == "192.0.2.1:0"


def test_accounts_that_differ_are_none() -> None:
    ours, theirs = (b"x-forwarded-for", b"192.0.2.1"), (b"forwarded", b"for=198.51.100.7")
    assert told(ours, theirs) is None
    assert told(ours, (b"forwarded", b"for=192.0.2.1")) == "192.0.2.1:0"
    assert told((b"host", b"192.0.2.1")) is None


def test_a_quote_that_does_not_end_hides_nothing() -> None:
    assert told((b"forwarded", b'for="198.51.100.7, for=192.0.2.1')) == "192.0.2.1:0"
