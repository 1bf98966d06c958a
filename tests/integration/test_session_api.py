"""Requests to the bot that holds a session: what it gets, and what comes back."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.daemon import PRIVATE_KEY, Daemon, running_bot, running_daemon
from tests.helpers.scripted_bot import Conversation, ScriptedBot, say
from tests.helpers.scripted_http import (
    BEARER,
    SessionBot,
    Steps,
    answer,
    chunk,
    echo,
    head,
    read_chunks,
    read_head,
)
from tests.helpers.shared import MANY, shared_daemon
from tests.helpers.wire import (
    Wire,
    ask,
    call,
    exchange_line,
    keeps_secrets,
    request,
    token_for,
)

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
LARGE = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def daemon(bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    secrets = ("se%63ret-query", "secret-body")
    with shared_daemon(tmp_path_factory, [bot.url], MANY, secrets=secrets) as daemon:
        yield daemon


# --- the example bot ---


def test_the_routes_of_a_bot(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("example")
    with running_bot(folder) as bot, running_daemon(folder, [bot.url]) as daemon:
        started = daemon.start().json()
        path = f"/v1/public/bot/sessions/{started['sessionId']}"

        def to_bot(method: str, route: str, body: object = None) -> Any:
            answer = daemon.request(method, path + route, body, Authorization=BEARER[15:])
            assert answer.headers["x-daily-session-id"] == started["sessionId"]
            assert answer.status == 200, answer
            return answer.json()

        with call(daemon, token=started["token"]) as ws:
            assert to_bot("GET", "/status")["sessions"] == [started["sessionId"]]
            assert to_bot("POST", "/context", {"mood": "good"}) == {"updated": True}
            assert to_bot("GET", "/status")["context"] == {"mood": "good"}
            assert to_bot("POST", "/speak", {"message": "hello"})["queued"] is True
            assert ws.recv(10) == "hello"
            assert to_bot("POST", "/end")["ended"] == [started["sessionId"]]
            daemon.wait_ended(started["sessionId"])
        gone = daemon.request("GET", path + "/status", Authorization=BEARER[15:])
        assert (gone.status, gone.json()["phase"]) == (404, "resolve")
        keeps_secrets(daemon)


# --- the request ---


@pytest.mark.parametrize("method", METHODS)
def test_each_method(held: SessionBot, method: str) -> None:
    with held.wire() as wire:
        wire.send(held.request(method, "/a/b?c=d"))
        found = wire.answer(head=method == "HEAD")
    assert found.status == 200
    assert held.last.head.startswith(f"{method} /a/b?c=d HTTP/1.1\r\n".encode())
    line = exchange_line(held.daemon, found.headers["x-request-id"])
    assert (line["route"], line["method"], line["status"]) == ("session_api", method, 200)
    assert line["session_id"] == held.session
    assert "cause" not in line


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND"])
def test_other_methods(held: SessionBot, method: str) -> None:
    found = ask(held.daemon, held.request(method))
    assert (found.status, found.headers["allow"]) == (405, ", ".join(METHODS))


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("", "/"),
        ("/", "/"),
        ("?x", "/?x"),
        ("/?", "/?"),
        ("/a%20b%7Ec%7ed/%C3%A9", "/a%20b%7Ec%7ed/%C3%A9"),
        ("/a;v=1,2/b+c/@:!$&'()*", "/a;v=1,2/b+c/@:!$&'()*"),
        ("/a//b/", "/a//b/"),
        ("//a", "//a"),
        ("/bots", "/bots"),
        ("/a/bot", "/a/bot"),
        ("/x?a=%2F%2f&b=+%2B&&=;?/../", "/x?a=%2F%2f&b=+%2B&&=;?/../"),
        ("/x?token=a&serviceHost=b&body=c", "/x?token=a&serviceHost=b&body=c"),
        ("/x?q=se%63ret-query", "/x?q=se%63ret-query"),
    ],
)
def test_path_and_query_pass_as_they_were_sent(held: SessionBot, sent: str, seen: str) -> None:
    assert ask(held.daemon, held.request("GET", sent)).status == 200
    assert held.last.target == seen


def test_the_fields_that_the_bot_gets(held: SessionBot) -> None:
    fields = (
        "X-Request-Id: mine",
        "x-daily-session-id: forged",
        "Cookie: a=b",
        "Accept: text/plain",
        "Accept: text/html",
        "X-Latin: caf\xe9",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "TE: gzip",
        "Forwarded: for=10.0.0.1",
        "X-Forwarded-For: 10.0.0.1",
        "X-Real-IP: 10.0.0.1",
        "Via: 1.0 fred",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate: vendor=1",
        "Keep-Alive: timeout=5",
        "Upgrade: h2c",
        "Expect: 100-continue",
    )
    found = ask(held.daemon, held.request("GET", "/x", *fields))
    assert found.headers["x-request-id"] == "mine"
    lines = held.last.head.decode("latin-1").split("\r\n")[1:-2]
    assert sorted(lines) == sorted(
        [
            f"host: {held.bot.url.removeprefix('http://')}",
            "accept: text/plain",
            "accept: text/html",
            "cookie: a=b",
            "x-latin: caf\xe9",
            f"x-daily-session-id: {held.session}",
            "x-request-id: mine",
            "via: 1.0 fred, 1.1 relay",
            "forwarded: for=127.0.0.1;host=localhost;proto=http",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: localhost",
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tracestate: vendor=1",
        ]
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_both_ways(held: SessionBot, chunked: bool) -> None:
    held.script = echo
    body = os.urandom(LARGE)
    if chunked:
        pieces = [body[at : at + 60_000] for at in range(0, LARGE, 60_000)]
        data = held.request(
            "POST", "/x", "Transfer-Encoding: chunked", body=b"".join(map(chunk, pieces))
        )
        data += b"0\r\nX-Trailer: passes\r\n\r\n"
    else:
        data = held.request("POST", "/x", f"Content-Length: {LARGE}", body=body)
    with held.wire() as wire:
        wire.send(data)
        status, fields = read_head(wire)
        back = read_chunks(wire) if chunked else wire.file.read(int(fields["content-length"]))
        assert status == 200
        assert hashlib.sha256(back).digest() == hashlib.sha256(body).digest()
        # The connection goes on.
        held.script = say(answer(body=b"next"))
        assert wire.ask(held.request()).body == b"next"
    line = exchange_line(held.daemon, fields["x-request-id"])
    assert line["bytes_in"] > LARGE < line["bytes_out"]


@pytest.mark.parametrize("length", ["0", "007"])
def test_the_length_is_written_anew(held: SessionBot, length: str) -> None:
    held.script = echo
    body = b"7 bytes" if int(length) else b""
    found = ask(held.daemon, held.request("PUT", "/x", f"Content-Length: {length}", body=body))
    assert (found.status, found.body) == (200, body)
    assert held.last.field("content-length") == b"%d" % len(body)


def test_a_malformed_body_is_400(held: SessionBot) -> None:
    held.script = lambda talk: talk.wait_closed()
    data = held.request("POST", "/x", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\nzz\r\n")
    found = ask(held.daemon, data)
    assert (found.status, found.headers["connection"]) == (400, "close")
    assert exchange_line(held.daemon, found.headers["x-request-id"])["cause"] == "bad_body"


# --- the answer ---


def test_the_fields_that_come_back(held: SessionBot) -> None:
    held.script = say(
        answer(
            "418 Short and Stout",
            "Content-Type: text/plain",
            "Date: Thu, 01 Jan 1970 00:00:00 GMT",
            "Server: bot",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "Connection: X-Hop, close",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "X-Request-Id: forged",
            "X-Daily-Session-Id: forged",
            body=b"tea",
        )
    )
    with held.wire() as wire:
        wire.send(held.request("GET", "/x", "X-Request-Id: fields"))
        status, fields = read_head(wire)
        assert wire.file.read(3) == b"tea"
    assert status == 418
    assert fields == {
        "content-type": "text/plain",
        "date": "Thu, 01 Jan 1970 00:00:00 GMT",
        "server": "bot",
        "set-cookie": "a=1, b=2",
        "content-length": "3",
        "x-request-id": "fields",
        "x-daily-session-id": held.session,
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "X-Request-Id, X-Daily-Session-Id, Retry-After",
    }


def test_the_bots_own_fields_for_browsers_win(held: SessionBot) -> None:
    own = "https://app.example"
    held.script = say(answer("200 OK", f"Access-Control-Allow-Origin: {own}", "Vary: Accept"))
    with held.wire() as wire:
        wire.send(held.request("GET", "/x", f"Origin: {own}"))
        _, fields = read_head(wire)
    assert fields["access-control-allow-origin"] == own
    assert fields["vary"] == "Accept"
    assert fields["access-control-expose-headers"].startswith("X-Request-Id")


def test_preflights_never_reach_the_bot_other_options_do(held: SessionBot) -> None:
    seen = len(held.bot.conversations)
    origin = ("Origin: https://app.example", "Access-Control-Request-Method: POST")
    preflight = ask(held.daemon, request("OPTIONS", held.path(), *origin))
    assert preflight.status == 204
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert ask(held.daemon, request("OPTIONS", held.path())).status == 401
    assert len(held.bot.conversations) == seen
    assert ask(held.daemon, held.request("OPTIONS", "/x", *origin)).status == 200
    assert held.last.head.startswith(b"OPTIONS /x ")


def test_answers_without_a_body_keep_the_connection(held: SessionBot) -> None:
    with held.wire() as wire:
        held.script = say(answer("204 No Content"))
        wire.send(held.request("DELETE"))
        status, fields = read_head(wire)
        assert (status, {"content-length", "transfer-encoding"} & set(fields)) == (204, set())
        held.script = say(head("304 Not Modified", "Content-Length: 77", 'ETag: "a"'))
        wire.send(held.request())
        status, fields = read_head(wire)
        assert (status, fields["content-length"], fields["etag"]) == (304, "77", '"a"')
        held.script = say(head("200 OK", "Content-Length: 5000000"))
        wire.send(held.request("HEAD"))
        assert read_head(wire)[1]["content-length"] == "5000000"
        held.script = say(head("200 OK", "Transfer-Encoding: chunked"))
        wire.send(held.request("HEAD"))
        assert read_head(wire)[0] == 200
        held.script = say(answer(body=b"still here"))
        assert wire.ask(held.request()).body == b"still here"


def test_an_answer_without_a_length_is_chunked_or_ends_the_connection(held: SessionBot) -> None:
    held.script = say(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    with held.wire() as wire:
        wire.send(held.request())
        assert read_head(wire)[1]["transfer-encoding"] == "chunked"
        assert read_chunks(wire) == b"until the end"
        assert wire.ask(held.request("GET", "/bot")).status == 403
    chunks = chunk(b"one ") + chunk(b"two") + b"0\r\nX-Trailer: passes\r\n\r\n"
    held.script = say(head("200 OK", "Transfer-Encoding: chunked") + chunks)
    with held.wire() as wire:
        wire.send(held.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
        status, fields = read_head(wire)
        assert (status, fields["connection"]) == (200, "close")
        assert "transfer-encoding" not in fields
        assert wire.rest() == b"one two"


def test_nothing_of_a_request_is_in_the_log(held: SessionBot) -> None:
    body = b'{"word": "secret-body"}'
    fields = f"Content-Length: {len(body)}", "Content-Type: application/json"
    found = ask(held.daemon, held.request("POST", "/x?q=se%63ret-query", *fields, body=body))
    line = json.dumps(exchange_line(held.daemon, found.headers["x-request-id"]))
    assert "query" not in line
    assert f"/v1/public/bot/sessions/{held.session}/x" in line


def test_private_keys_and_capital_letters_open_it_too(held: SessionBot) -> None:
    path = f"/v1/public/bot/sessions/{held.session.upper()}/x"
    found = ask(held.daemon, request("GET", path, f"Authorization: Bearer {PRIVATE_KEY}"))
    assert (found.status, found.headers["x-daily-session-id"]) == (200, held.session)


def test_two_callers_at_a_time(held: SessionBot) -> None:
    steps = Steps()

    def slow(talk: Conversation) -> None:
        if talk.target == "/slow":
            steps.done()
            steps.wait_go()
        talk.sock.sendall(answer(body=talk.target.encode()))

    held.script = slow
    with held.wire() as first, held.wire() as second:
        first.send(held.request("GET", "/slow"))
        steps.wait_done()
        assert second.ask(held.request("GET", "/quick")).body == b"/quick"
        steps.go()
        assert first.answer().body == b"/slow"


def test_a_session_that_was_only_minted_and_called(daemon: Daemon, bot: ScriptedBot) -> None:
    """Ids that never were, spelt as ids."""
    for session in (str(uuid.uuid4()), "x", token_for()[:40]):
        with Wire(daemon.port) as wire:
            found = wire.ask(request("GET", f"/v1/public/bot/sessions/{session}/x", BEARER))
        assert found.status == 404
        assert exchange_line(daemon, found.headers["x-request-id"])["cause"] == "no_session"
