"""Laws of the Session API as a proxy, over real sockets: what is accepted has one reading.

Requests and answers are made in many spellings, right ones and spoilt ones. What the bot
sees, and what the client gets, is read by the tests' strict reader and by h11.
"""

from __future__ import annotations

from collections.abc import Iterator

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.conformance import PROBE
from tests.helpers.conformance_run import Stand, converse, standing, written
from tests.helpers.messages_made import Made, messages, spoilt
from tests.helpers.recording_origin import Said
from tests.helpers.strict_http import Message, NotStrict, read_answers, read_request

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
# Where it does not matter whether the daemon waits for more: nobody waits for it.
SHORT = 0.3
SECOND = Said(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("relay")) as stand:
        yield stand


@st.composite
def requests(draw: st.DrawFn) -> list[Made]:
    """Some requests for one connection; the path is that of a session, yet to be filled in."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        method = draw(st.sampled_from(METHODS))
        first = f"{method} @S/r{number}?q=%2F HTTP/1.1\r\nHost: a.example\r\n@KX-Number: {number}"
        made.append(draw(messages(first.encode())))
    return made


def talk(stand: Stand, sent: bytes, patience: float | None = None) -> tuple[list[Message], bytes]:
    """What the bot saw, none of it odd, and what the client got."""
    stand.origin.take()
    data = written(sent, stand.base)
    got = converse(stand.daemon.port, data, **({"patience": patience} if patience else {}))
    record = stand.origin.take()
    assert record.wrong == []
    for message in record.requests:
        h11_reads_the_same(message, h11.SERVER)
    return record.requests, got


def h11_reads_the_same(message: Message, role: type[h11.SERVER | h11.CLIENT]) -> None:
    """h11 alone sees the same fields and body in the same bytes, and no byte behind them."""
    connection = h11.Connection(role)
    if role is h11.CLIENT:
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.receive_data(message.raw)
    head, body = connection.next_event(), b""
    assert isinstance(head, h11.Request | h11.Response)
    assert tuple(head.headers) == message.fields
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (body, connection.trailing_data[0]) == (message.body, b"")


def has_kept_what_it_must(message: Message, made: Made) -> None:
    assert message.body == made.body
    names = {name for name, _ in message.fields}
    assert names.isdisjoint(made.gone)
    for name, value in made.kept:
        assert value in message.values(name)


@given(made=requests())
def test_right_requests_are_seen_as_they_are(stand: Stand, made: list[Made]) -> None:
    seen, got = talk(stand, b"".join(each.data for each in made) + PROBE)
    assert len(seen) == len(made) + 1
    for message, each in zip(seen, made, strict=False):
        has_kept_what_it_must(message, each)
        assert each.data.startswith(message.start[0] + b" @S" + message.start[1])
    answers, rest = read_answers(got, [], closed=True)
    assert (len(answers), rest) == (len(seen), b"")


@given(made=requests(), data=st.data())
def test_no_other_requests_are_seen_than_a_strict_reader_sees(
    stand: Stand, made: list[Made], data: st.DataObject
) -> None:
    sent = data.draw(spoilt(b"".join(each.data for each in made))) + PROBE
    seen, got = talk(stand, sent, SHORT)
    expected, all_read = strictly(written(sent, b""))
    for message in seen:
        if message.start[:2] in [each.start[:2] for each in expected]:
            same = next(each for each in expected if each.start[:2] == message.start[:2])
            assert (message.body, message.values(b"x-number")) == (
                same.body,
                same.values(b"x-number"),
            )
        else:
            assert not all_read, message
    _, rest = read_answers(got, [], closed=False)
    assert rest == b""


def strictly(data: bytes) -> tuple[list[Message], bool]:
    """The requests that a strict reader sees, and whether it reads to the end."""
    found = []
    try:
        while data and (read := read_request(data)):
            message, data = read
            found.append(message)
    except NotStrict:
        return found, False
    return found, not data


@given(made=messages(b"HTTP/1.1 200 OK"), interim=st.booleans(), more=st.sampled_from((b"", b"x")))
def test_right_answers_are_got_as_they_are(
    stand: Stand, made: Made, interim: bool, more: bytes
) -> None:
    unframed = b"\r\ncontent-length:" not in made.data.lower() and not chunked(made.data)
    head = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * interim
    answers, _ = answered(stand, Said(head + made.data + more * (not unframed), close=unframed))
    *interims, first, second = answers
    assert [each.status for each in interims] == [103] * interim
    has_kept_what_it_must(first, made)
    assert second.body == b"second"


def chunked(data: bytes) -> bool:
    return b"\r\ntransfer-encoding:" in data.partition(b"\r\n\r\n")[0].lower()


@given(made=messages(b"HTTP/1.1 200 OK"), data=st.data())
def test_no_answer_is_got_that_a_strict_reader_does_not_read(
    stand: Stand, made: Made, data: st.DataObject
) -> None:
    """Whole, cut, or 502: the second request gets its own answer or none."""
    answers, rest = answered(stand, Said(data.draw(spoilt(made.data)), close=True))
    finals = [each for each in answers if each.status >= 200]
    assert len(finals) in (0, 1, 2)
    if len(finals) == 2:
        assert finals[1].body == b"second"
        assert rest == b""


def answered(stand: Stand, first: Said) -> tuple[list[Message], bytes]:
    """The answers to two requests, of which the first one is answered so; and the rest."""
    stand.origin.answer = lambda asked: first if asked.start[1] == b"/first" else SECOND
    sent = PROBE.replace(b"/next", b"/first").replace(b"Connection: close\r\n", b"")
    try:
        _, got = talk(stand, sent + PROBE)
    finally:
        stand.origin.answer = lambda asked: Said()
    answers, rest = read_answers(got, [], closed=False)
    for answer in answers:
        if answer.status >= 200:
            h11_reads_the_same(answer, h11.CLIENT)
    return answers, rest
