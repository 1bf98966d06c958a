"""Connections to bots: which are used again, which are not, and what is sent twice."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import Daemon, wait_until
from tests.helpers.scripted_bot import Conversation, ScriptedBot
from tests.helpers.scripted_http import (
    SessionBot,
    answer,
    chunk,
    head,
    read_head,
    session_on,
)
from tests.helpers.shared import MANY, shared_daemon
from tests.helpers.wire import Wire, exchange_line, refused


@pytest.fixture(scope="module")
def daemon(bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shared_daemon(tmp_path_factory, [bot.url], MANY, "session_requests = 2") as daemon:
        yield daemon


@pytest.fixture
def held(daemon: Daemon, bot: ScriptedBot) -> Iterator[SessionBot]:
    with session_on(daemon, bot) as held:
        yield held
        bot.hang_up()  # what is idle now is not for the next test


class Kept:
    """A script that answers request after request on one connection, and counts both.

    Args:
        answers: of a connection, one after the other, the last one again and again; b""
            closes the connection instead.
    """

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.connections = 0
        self.requests: list[bytes] = []

    def __call__(self, talk: Conversation) -> None:
        self.connections += 1
        data, number = talk.head, 0
        while data:
            self.requests.append(data)
            said = self.answers[min(number, len(self.answers) - 1)]
            if not said:
                return
            talk.sock.sendall(said)
            number += 1
            data = b""
            while not data.endswith(b"\r\n\r\n") and (more := talk.sock.recv(65536)):
                data += more


OK = answer(body=b"ok")


def test_a_connection_carries_many_requests(held: SessionBot) -> None:
    held.script = kept = Kept(
        OK,
        head("200 OK", "Transfer-Encoding: chunked") + chunk(b"ok") + b"0\r\nX: y\r\n\r\n",
        head("204 No Content"),
        head("304 Not Modified", "Content-Length: 7"),
        head("103 Early Hints") + OK,
        OK,
    )
    with held.wire() as wire:
        for _ in range(5):
            wire.send(held.request())
            status, fields = read_head(wire)
            if status == 103:
                status, fields = read_head(wire)
            if "transfer-encoding" in fields:
                line, rest = wire.file.readline(), wire.file.read(len(b"ok\r\n0\r\nx: y\r\n\r\n"))
                assert (line, rest) == (b"2\r\n", b"ok\r\n0\r\nx: y\r\n\r\n")
            elif status == 200:
                assert wire.file.read(2) == b"ok"
    with held.wire() as another:
        assert another.ask(held.request("PUT", "/x", "Content-Length: 0")).body == b"ok"
    assert kept.connections == 1
    assert len(kept.requests) == 6
    assert not any(b"onnection:" in each for each in kept.requests)


@pytest.mark.parametrize(
    "said",
    [
        answer("200 OK", "Connection: close", body=b"ok"),
        OK.replace(b"1.1", b"1.0"),
        OK + b"stray",
        OK + OK,
        head("204 No Content", "Content-Length: 2") + b"ok",
    ],
    ids=["close", "HTTP/1.0", "stray bytes", "two answers", "a body where there is none"],
)
def test_after_a_doubt_a_new_connection_is_made(held: SessionBot, said: bytes) -> None:
    held.script = kept = Kept(said)
    with held.wire() as wire:
        for _ in range(2):
            wire.send(held.request())
            status, fields = read_head(wire)
            assert wire.file.read(int(fields.get("content-length", 0))) in (b"ok", b"")
            assert status in (200, 204)
    assert kept.connections == 2


def test_bytes_that_nobody_asked_for_are_nobodys_answer(held: SessionBot) -> None:
    """They come when the connection is idle: the next request does not take them for its own."""
    wrote = threading.Event()

    def stray(talk: Conversation) -> None:
        talk.sock.sendall(OK)
        talk.sock.sendall(answer(body=b"of another"))
        wrote.set()
        talk.wait_closed()

    held.script = stray
    with held.wire() as wire:
        assert wire.ask(held.request()).body == b"ok"
        assert wrote.wait(15)
        held.script = Kept(answer(body=b"mine"))
        assert wire.ask(held.request()).body == b"mine"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_a_request_that_met_a_closing_connection_is_sent_once_more(
    held: SessionBot, method: str
) -> None:
    """The bot closes just as the second request comes; nobody sees anything of it."""
    held.script = kept = Kept(OK, b"")
    with held.wire() as wire:
        assert wire.ask(held.request()).body == b"ok"
        wire.send(held.request(method))
        assert wire.answer(head=method == "HEAD").status == 200
    assert kept.connections == 2
    assert len(kept.requests) == 3
    assert kept.requests[1] == kept.requests[2]


@pytest.mark.parametrize(
    ("method", "fields", "body"),
    [
        ("POST", ("Content-Length: 2",), b"hi"),
        ("POST", (), b""),
        ("PATCH", ("Content-Length: 2",), b"hi"),
    ],
)
def test_what_may_not_be_repeated_gets_a_new_connection(
    held: SessionBot, method: str, fields: tuple[str, ...], body: bytes
) -> None:
    held.script = kept = Kept(OK)
    with held.wire() as wire:
        assert wire.ask(held.request()).body == b"ok"
        assert wire.ask(held.request(method, "/x", *fields, body=body)).body == b"ok"
    assert kept.connections == 2


def test_a_new_connection_that_closes_is_not_tried_again(held: SessionBot) -> None:
    held.script = kept = Kept(b"")
    with held.wire() as wire:
        found = wire.ask(held.request())
        refused(held.daemon, found, 502, "bot_died")
    assert kept.connections == 1


def test_an_answer_that_has_begun_is_not_asked_for_again(held: SessionBot) -> None:
    held.script = kept = Kept(OK, b"HTTP/1.1 200")

    def begins(talk: Conversation) -> None:
        talk.sock.sendall(OK)
        talk.sock.recv(65536)
        talk.sock.sendall(b"HTTP/1.1 200")

    held.script = begins
    with held.wire() as wire:
        assert wire.ask(held.request()).body == b"ok"
        held.script = kept
        refused(held.daemon, wire.ask(held.request()), 502, "bot_died")
    assert kept.connections == 0


def test_a_session_has_its_share_and_others_have_theirs(
    held: SessionBot, daemon: Daemon, bot: ScriptedBot
) -> None:
    """Two are under way; the third waits for one of them, that of another session does not."""
    release = threading.Event()

    def slow(talk: Conversation) -> None:
        assert release.wait(15)
        talk.sock.sendall(OK)

    held.script = slow
    with session_on(daemon, bot) as other, held.wire() as a, held.wire() as b, held.wire() as c:
        other.script = Kept(OK)
        script_of = {held.session: held, other.session: other}
        bot.script = lambda talk: script_of[talk.field("x-daily-session-id").decode()].script(talk)
        seen = len(bot.conversations)
        for wire in (a, b):
            wire.send(held.request())
        wait_until(lambda: len(bot.conversations) == seen + 2, "two are under way")
        c.send(held.request("GET", "/x", "X-Request-Id: third"))
        with other.wire() as wire:
            assert wire.ask(other.request()).body == b"ok"
        assert len(bot.conversations) == seen + 3
        release.set()
        assert [wire.answer().body for wire in (a, b, c)] == [b"ok"] * 3
    assert exchange_line(daemon, "third")["resolve_ms"] > 0


def test_too_many_of_one_session_are_told_so(held: SessionBot) -> None:
    release = threading.Event()

    def slow(talk: Conversation) -> None:
        assert release.wait(15)
        talk.sock.sendall(OK)

    held.script = slow
    wires = [Wire(held.daemon.port) for _ in range(7)]
    try:
        # Two under way, four in line, one too many: the daemon's order need not be ours.
        for wire in wires:
            wire.send(held.request())
        ready, _, _ = select.select([wire.sock for wire in wires], [], [], 15)
        (told,) = [wire for wire in wires if wire.sock in ready]
        found = told.answer()
        assert found.headers["retry-after"] == "2"
        refused(held.daemon, found, 429, "session_crowded")
        release.set()
        assert [wire.answer().body for wire in wires if wire is not told] == [b"ok"] * 6
    finally:
        release.set()
        for wire in wires:
            wire.close()


def test_what_is_under_way_when_its_session_ends_is_cut_off(
    daemon: Daemon, bot: ScriptedBot
) -> None:
    with session_on(daemon, bot) as held:
        finished = threading.Event()

        def events(talk: Conversation) -> None:
            if talk.target == "/events":
                talk.sock.sendall(head("200 OK", "Transfer-Encoding: chunked") + chunk(b"one"))
            talk.wait_closed()
            finished.set()

        held.script = events
        with held.wire() as stream, held.wire() as waiting:
            stream.send(held.request("GET", "/events", "X-Request-Id: cut-off"))
            assert read_head(stream)[0] == 200
            assert stream.file.readline() == b"3\r\n"
            waiting.send(held.request("GET", "/poll"))
            wait_until(lambda: bot.conversations[-1].target == "/poll", "both are under way")
            held.call.close()
            refused(daemon, waiting.answer(), 404, "session_ended")
            assert stream.rest() == b"one\r\n"
            assert finished.wait(15)
    assert exchange_line(daemon, "cut-off")["cause"] == "session_ended"


def test_trailers_pass_both_ways_without_what_must_not_stand_there(held: SessionBot) -> None:
    seen: list[bytes] = []

    def script(talk: Conversation) -> None:
        data = talk.head
        while b"\r\n\r\n" not in data.partition(b"\r\n0\r\n")[2]:
            data += talk.sock.recv(65536)
        seen.append(data)
        talk.sock.sendall(
            head("200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum")
            + chunk(b"body")
            + b"0\r\nX-Sum: 2\r\nSet-Cookie: a=b\r\nX-Request-Id: forged\r\n\r\n"
        )

    held.script = script
    fields = ("Transfer-Encoding: chunked", "Trailer: X-Sum", "TE: trailers", "Connection: TE")
    with held.wire() as wire:
        sent = b"4\r\nbody\r\n0\r\nX-Sum: 1\r\nAuthorization: Bearer x\r\nForwarded: for=x\r\n\r\n"
        wire.send(held.request("POST", "/x", *fields, body=sent))
        status, got = read_head(wire)
        assert (status, got["trailer"]) == (200, "X-Sum")
        assert wire.file.readline() + wire.file.read(6) == b"4\r\nbody\r\n"
        assert b"".join(wire.file.readline() for _ in range(3)) == b"0\r\nx-sum: 2\r\n\r\n"
        held.script = Kept(OK)
        assert wire.ask(held.request()).body == b"ok"
    sent_head, _, rest = seen[0].partition(b"\r\n\r\n")
    assert b"trailer: X-Sum" in sent_head
    assert b"te: trailers" in sent_head
    assert rest == b"4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n"


def test_an_answer_without_framing_to_http_1_0_is_seen_to_break_off(held: SessionBot) -> None:
    def breaks(talk: Conversation) -> None:
        talk.sock.sendall(head("200 OK", "Transfer-Encoding: chunked") + chunk(b"some"))

    held.script = breaks
    with held.wire() as wire:
        wire.send(held.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
        with pytest.raises(ConnectionResetError):
            wire.rest()


def test_a_request_that_may_go_no_further_is_answered_here(held: SessionBot) -> None:
    held.script = kept = Kept(OK)
    with held.wire() as wire:
        found = wire.ask(held.request("OPTIONS", "/x", "Max-Forwards: 0"))
        assert found.status == 204
        assert "PATCH" in found.headers["allow"]
        assert wire.ask(held.request("OPTIONS", "/x", "Max-Forwards: 3")).body == b"ok"
        assert wire.ask(held.request("GET", "/x", "Max-Forwards: 0")).body == b"ok"
    assert b"max-forwards: 2" in kept.requests[0]
    assert b"max-forwards: 0" in kept.requests[1]
