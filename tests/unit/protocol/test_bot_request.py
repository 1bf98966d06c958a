"""The target of a bot's WebSocket: what goes on, in which order, and how long it may be."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.protocol.body import quote_body
from relay.protocol.bot_request import MAX_REQUEST_LINE, bot_target

BODY = "eyJhIjoiPz8+In0="


@pytest.mark.parametrize(
    ("query", "body", "target"),
    [
        (b"", None, "/ws"),
        (b"a=1&b=2&a=3", None, "/ws?a=1&b=2&a=3"),
        (b"token=secret", None, "/ws"),
        (b"serviceHost=a.b&x=1&token=t", None, "/ws?x=1"),
        (b"t%6Fken=secret&%74oken=secret", None, "/ws"),
        (b"token", None, "/ws"),
        (b"service%48ost=a.b", None, "/ws"),
        (b"body=old&x=1", BODY, "/ws?body=eyJhIjoiPz8%2BIn0=&x=1"),
        (b"x=1&bod%79=old", BODY, "/ws?x=1&body=eyJhIjoiPz8%2BIn0="),
        (b"body=undefined&x", None, "/ws?x"),
        (b"&&x=1&", None, "/ws?x=1"),
        (b"=v&x==", None, "/ws?=v&x=="),
        (b"q=%20+%2B%ff", None, "/ws?q=%20+%2B%ff"),
        (b"Token=kept&tokens=kept", None, "/ws?Token=kept&tokens=kept"),
    ],
)
def test_targets(query: bytes, body: str | None, target: str) -> None:
    assert bot_target("/ws", query, body) == target


@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_request_line(excess: int) -> None:
    room = MAX_REQUEST_LINE - len("GET /ws?x= HTTP/1.1\r\n")
    query = b"x=" + b"v" * (room + excess)
    if not excess:
        line = f"GET {bot_target('/ws', query, None)} HTTP/1.1\r\n"
        assert len(line) == MAX_REQUEST_LINE
        return
    with pytest.raises(Refusal, match="longer than 8192 bytes") as caught:
        bot_target("/ws", query, None)
    assert (caught.value.status, caught.value.cause) == (413, "bot_target_too_long")


def test_a_body_counts_for_the_line() -> None:
    with pytest.raises(Refusal):
        bot_target("/ws", b"body=x&y=" + b"v" * 3000, "A" * 5464)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("token", "serviceHost", "body", "x", "t%6fken", "%62ody", "y+z", "")),
            st.text(alphabet="ab%25+=/", max_size=6).map(lambda text: text.replace("%", "%25")),
        ),
        max_size=8,
    ),
    st.none() | st.just(BODY),
)
def test_a_bot_reads_the_callers_parameters_in_order(
    pairs: list[tuple[str, str]], body: str | None
) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    _, _, sent = bot_target("/ws", query.encode(), body).partition("?")
    expected = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "body" and body is not None:
            expected.append((name, body))
        elif name not in ("token", "serviceHost", "body"):
            expected.append((name, value))
    assert parse_qsl(sent, keep_blank_values=True) == expected
    assert body is None or "body" not in dict(pairs) or quote_body(body) in sent
