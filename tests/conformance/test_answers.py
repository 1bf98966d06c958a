"""RFC 9112 and 9110 over real sockets, with a hostile bot: what its answers become for a client.

Each case answers the first of two pipelined requests. The second one has to get its own
answer or none: never what a bot has left behind, nor what it has forged.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.cases import answers
from tests.helpers.conformance import AnswerCase, Gets, request
from tests.helpers.conformance_run import Stand, converse, standing, written
from tests.helpers.recording_origin import Said
from tests.helpers.strict_http import Message, NotStrict, read_answer, read_answers

OF_ITS_OWN = b"the answer to the second request"
SECOND = Said(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OF_ITS_OWN) + OF_ITS_OWN)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("relay")) as stand:
        yield stand


def test_the_cases_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len(answers.CASES) >= 100
    assert len({case.id for case in answers.CASES}) == len(answers.CASES)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in answers.CASES])
def test_answer(stand: Stand, case: AnswerCase) -> None:
    first, second = Said(case.says, case.closes), SECOND
    stand.origin.answer = lambda asked: first if asked.start[1] == b"/first" else second
    stand.origin.take()
    sent = request(case.method + b" @S/first") + request(b"GET @S/second", b"Connection: close")
    data = converse(stand.daemon.port, written(sent, stand.base))
    record = stand.origin.take()
    assert record.wrong == []
    assert [message.start[1] for message in record.requests[:1]] == [b"/first"]
    if isinstance(case.gets, Gets) and not case.gets.whole:
        is_cut(case.gets, data)
        assert len(record.requests) == 1
    else:
        is_whole(stand, case, data)


def test_what_a_bot_says_unasked_is_nobodys_answer(stand: Stand) -> None:
    """Bytes on a connection that waits for its next request are no answer to that one."""
    stand.origin.answer = lambda asked: SECOND
    sent = written(request(b"GET @S/x", b"Connection: close"), stand.base)
    for unasked in (answers.FORGED, answers.FORGED[:20], b"\r\n", b"x"):
        for _ in range(3):
            found, rest = read_answers(converse(stand.daemon.port, sent), [], closed=True)
            assert [each.body for each in found] == [OF_ITS_OWN]
            assert rest == b""
            stand.origin.say_unasked(unasked)


def is_whole(stand: Stand, case: AnswerCase, data: bytes) -> None:
    """Two answers, of which the second one is its own, and nothing else."""
    found, rest = read_answers(data, [case.method, b"GET"], closed=True)
    assert rest == b""
    *interim, first, second = found
    interims = case.gets.interim if isinstance(case.gets, Gets) else case.interim
    assert tuple(each.status for each in interim) == interims
    assert (second.status, second.body) == (200, OF_ITS_OWN)
    if isinstance(case.gets, Gets):
        is_this(first, case.gets, stand.session)
    else:
        assert first.status == 502
        assert stand.line(first.value(b"x-request-id"))["cause"] == case.gets


def is_this(answer: Message, gets: Gets, session: str) -> None:
    assert (answer.status, answer.body) == (gets.status, gets.body)
    assert answer.value(b"x-daily-session-id") == session.encode()
    assert len(answer.values(b"x-request-id")) == 1
    assert not answer.values(b"x-forged")
    for name, value in gets.fields:
        assert answer.value(name) == value
    for name in gets.without:
        assert not answer.values(name)


def is_cut(gets: Gets, data: bytes) -> None:
    """The answer begins and has no end, for a client that takes no less than a right one."""
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % gets.status)
    try:
        assert read_answer(data, b"GET", closed=True) is None
    except NotStrict as error:
        raise AssertionError(f"more than an answer that was cut: {data!r}") from error
    if b"\r\nTransfer-Encoding: chunked" in head or b"\r\ntransfer-encoding: chunked" in head:
        rest = unchunked(rest)
    assert rest == gets.body


def unchunked(data: bytes) -> bytes:
    """The data of whole chunks that have no last one behind them."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
    return body
