"""The Session API with bots that answer wrongly, late or not at all, and clients that leave."""

from __future__ import annotations

import socket
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.helpers.daemon import Daemon
from tests.helpers.scripted_bot import (
    Conversation,
    Script,
    ScriptedBot,
    hang,
    reset,
    say,
    scripted_bot,
)
from tests.helpers.scripted_http import (
    BEARER,
    SessionBot,
    Steps,
    answer,
    chunk,
    head,
    read_chunk,
    read_head,
)
from tests.helpers.shared import MANY, shared_daemon
from tests.helpers.wire import (
    ask,
    exchange_line,
    refused,
    request,
)

CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def daemon(bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with shared_daemon(tmp_path_factory, [bot.url], MANY) as daemon:
        yield daemon


# --- a bot that is wrong ---


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        head("200 OK", "Content-Length: 1", CHUNKED) + b"0\r\n\r\n",
        head("200 OK", "Content-Length: 1", "Content-Length: 1") + b"x",
        head("200 OK", "Content-Length: 1, 1") + b"x",
        head("200 OK", "Content-Length: +1") + b"x",
        head("200 OK", "Transfer-Encoding: gzip, chunked"),
        head("200 OK", "X-A: b\x00c"),
        head("200 OK", "X-A: b", " folded"),
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        head("200 OK", "X A: b"),
        head("101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"),
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: %s\r\n" % (b"x" * 50_000),
    ],
)
def test_what_is_no_answer(held: SessionBot, said: bytes) -> None:
    held.script = hang(said)
    refused(held.daemon, ask(held.daemon, held.request()), 502, "bot_bad_answer")


@pytest.mark.parametrize(
    "script",
    [say(b""), reset(), say(b"HTTP/1.1 200"), say(b"HTTP/1.1 100 Continue\r\n\r\n")],
    ids=["closes", "resets", "half a head", "interim only"],
)
def test_a_bot_that_dies_before_it_answers(held: SessionBot, script: Script) -> None:
    held.script = script
    with held.wire() as wire:
        wire.send(held.request())
        status, fields = read_head(wire)
        if status == 100:
            status, fields = read_head(wire)
        assert status == 502
        assert b"bot_died" not in wire.file.read(int(fields["content-length"]))
        line = exchange_line(held.daemon, fields["x-request-id"])
        assert (line["cause"], line["status"]) == ("bot_died", 502)
        # The client's connection is good for more.
        held.script = say(answer(body=b"next"))
        assert wire.ask(held.request()).body == b"next"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (head("200 OK", "Content-Length: 100") + b"some", "bot_died"),
        (head("200 OK", CHUNKED) + chunk(b"some"), "bot_died"),
        (head("200 OK", CHUNKED) + b"6\r\nso", "bot_died"),
        (head("200 OK", CHUNKED) + chunk(b"some") + b"zz\r\n", "bot_bad_answer"),
    ],
)
@pytest.mark.parametrize("end", [say, reset])
def test_an_answer_that_breaks_off_is_seen_to(
    held: SessionBot, said: bytes, cause: str, end: object
) -> None:
    steps = Steps()

    def script(talk: Conversation) -> None:
        talk.sock.sendall(said)
        steps.wait_go()
        (say(b"") if end is say else reset())(talk)

    held.script = script
    with held.wire() as wire:
        wire.send(held.request())
        status, fields = read_head(wire)
        assert status == 200
        if cause == "bot_died":
            assert wire.file.read(2)
        steps.go()
        rest = wire.rest()
    assert not rest.endswith(b"0\r\n\r\n")
    assert len(rest) < 100
    line = exchange_line(held.daemon, fields["x-request-id"])
    assert (line["cause"], line["status"], line["phase"]) == (cause, 200, "relay")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_an_answer_without_framing_that_is_reset_is_no_whole_one(
    held: SessionBot, version: str
) -> None:
    steps = Steps()

    def script(talk: Conversation) -> None:
        talk.sock.sendall(head() + b"some")
        steps.wait_go()
        reset()(talk)

    held.script = script
    with held.wire() as wire:
        wire.send(held.request().replace(b"1.1", version.encode()))
        status, fields = read_head(wire)
        assert (status, fields.get("transfer-encoding")) == (
            200,
            "chunked" if version == "1.1" else None,
        )
        assert wire.file.read(4)
        steps.go()
        if version == "1.1":
            assert not wire.rest().endswith(b"0\r\n\r\n")
        else:
            with pytest.raises(ConnectionResetError):
                wire.rest()
    assert exchange_line(held.daemon, fields["x-request-id"])["cause"] == "bot_died"


def test_a_bot_that_cannot_be_connected(daemon: Daemon, tmp_path_factory: object) -> None:
    with scripted_bot() as gone:
        url = gone.url
    started = daemon.start().json()
    # As it stands in the store when the bot's process has died and its call not ended yet.
    with closing(sqlite3.connect(daemon.folder / "relay.db")) as db, db:
        row = (url, started["sessionId"])
        db.execute("UPDATE sessions SET state = 'active', instance = ? WHERE id = ?", row)
    path = f"/v1/public/bot/sessions/{started['sessionId']}/x"
    refused(daemon, ask(daemon, request("GET", path, BEARER)), 502, "bot_unreachable")


# --- a client that is gone ---


def test_a_client_that_leaves_while_the_bot_thinks(held: SessionBot) -> None:
    steps = Steps()

    def think(talk: Conversation) -> None:
        steps.done()
        talk.wait_closed()
        steps.done()

    held.script = think
    with held.wire() as wire:
        wire.send(held.request("GET", "/x", "X-Request-Id: leaves-early"))
        steps.wait_done()
    steps.wait_done()
    line = exchange_line(held.daemon, "leaves-early")
    assert (line["cause"], line["phase"]) == ("client_left", "relay")
    assert "status" not in line


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_in_the_middle(held: SessionBot, how: str) -> None:
    steps = Steps()

    def endless(talk: Conversation) -> None:
        talk.sock.sendall(head("200 OK", CHUNKED) + chunk(b"first"))
        talk.wait_closed()
        steps.done()

    held.script = endless
    with held.wire() as wire:
        wire.send(held.request("GET", "/x", f"X-Request-Id: {how}"))
        assert read_head(wire)[0] == 200
        assert read_chunk(wire) == b"first"
        if how == "resets":
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    steps.wait_done()
    line = exchange_line(held.daemon, how)
    assert (line["cause"], line["status"]) == ("client_left", 200)


def test_a_client_that_leaves_in_the_middle_of_its_body(held: SessionBot) -> None:
    steps = Steps()

    def read(talk: Conversation) -> None:
        steps.done()
        talk.wait_closed()
        steps.done()

    held.script = read
    with held.wire() as wire:
        fields = "Content-Length: 100", "X-Request-Id: half"
        wire.send(held.request("POST", "/x", *fields, body=b"half"))
        steps.wait_done()
    steps.wait_done()
    assert exchange_line(held.daemon, "half")["cause"] == "client_left"
