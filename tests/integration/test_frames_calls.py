"""Calls of agents with `relay = "frames"`: a real daemon, real bots, real clients."""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.typing import Subprotocol

from tests.helpers.daemon import PATIENCE, Bot, Daemon, running_bot, running_daemon, wait_until
from tests.helpers.ends import (
    Ends,
    begin,
    close_seen,
    is_quiet,
    nothing_is_held,
    raw_call,
)
from tests.helpers.pump import frame, split
from tests.helpers.scripted_bot import Conversation, ScriptedBot, scripted_bot
from tests.helpers.wire import Wire, call, echoes, refused, stop, token_for, upgrade

FRAMES = 'relay = "frames"\nsessions_per_instance = 4'
MIB = 1024 * 1024
TEXT, BINARY, PING, PONG, CLOSE = 0x1, 0x2, 0x9, 0xA, 0x8


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot"), sessions=4) as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    with running_daemon(folder, [bot.url], FRAMES, "close_timeout = 1") as daemon:
        yield daemon
        nothing_is_held(daemon)
        is_quiet(daemon)


@contextmanager
def noting(folder: Path, more: str = "") -> Iterator[tuple[Daemon, ScriptedBot, Ends]]:
    """A daemon with a bot that tells how its calls end."""
    with (
        scripted_bot() as bot,
        running_daemon(folder, [bot.url], f"{FRAMES}\n{more}", "close_timeout = 1") as daemon,
    ):
        bot.script = ends = Ends()
        yield daemon, bot, ends
        nothing_is_held(daemon)
        is_quiet(daemon)


# What passes.


def test_messages_of_every_kind_and_size(daemon: Daemon) -> None:
    messages: list[str | bytes] = ["", b"", "Zoë 😀", bytes(range(256)), "é" * 70_000]
    messages.append(b"\0\xff" * (8 * MIB - 1) + b"\0")  # 16 MiB less one byte
    started = daemon.start_when_free()
    with call(daemon, token=started["token"], max_size=None) as ws:
        for message in messages:
            ws.send(message)
            assert ws.recv(PATIENCE) == message
    record = daemon.wait_ended(started["sessionId"])
    assert (record["cause"], record["closeCode"]) == ("client_closed", 1000)
    for side in ("client", "bot"):
        assert record["figures"][side]["messages"] == len(messages)
        assert record["figures"][side]["bytes"] > 16 * MIB


def test_fragments_with_pings_between(daemon: Daemon) -> None:
    with begin(daemon) as began:
        pongs = []

        def pieces() -> Iterator[str]:
            for number in range(5):
                pongs.append(began.ws.ping(f"{number}"))
                yield f"piece {number} "

        began.ws.send(pieces())
        assert began.ws.recv(PATIENCE) == "".join(f"piece {number} " for number in range(5))
        # Answered by the bot: the relay answers none (see the unit tests).
        assert all(pong.wait(PATIENCE) for pong in pongs)


def test_no_extension_is_negotiated_and_a_subprotocol_is(tmp_path: Path) -> None:
    with noting(tmp_path) as (daemon, bot, _ends):
        offered = {"compression": "deflate", "subprotocols": [Subprotocol("b")]}
        with call(daemon, token=token_for(), **offered) as ws:
            assert echoes(ws)
            assert ws.response is not None
            assert "sec-websocket-extensions" not in ws.response.headers
        (talk,) = bot.conversations
        assert talk.field("sec-websocket-extensions") == b""
        assert talk.field("sec-websocket-protocol") == b"b"


def test_early_bytes_of_both_sides_come_first(tmp_path: Path) -> None:
    with noting(tmp_path) as (daemon, bot, _ends):
        heard: queue.Queue[bytes] = queue.Queue()

        def early(talk: Conversation) -> None:
            lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket"]
            lines += ["Connection: Upgrade", f"Sec-WebSocket-Accept: {talk.accept_key().decode()}"]
            head = "\r\n".join([*lines, "", ""]).encode()
            talk.sock.sendall(head + frame(b"first", opcode=TEXT) + frame(b"second")[:3])
            heard.put(read_frames(talk.sock, 2))
            talk.sock.sendall(frame(b"second")[3:])

        bot.script = early
        with Wire(daemon.port) as wire:
            request = upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token_for()}")
            wire.send(request + frame(b"1", masked=True) + frame(b"2", masked=True))
            assert wire.answer().status == 101
            frames, _ = split(heard.get(timeout=PATIENCE))
            assert [each.payload for each in frames] == [b"1", b"2"]
            came = wire.file.read(len(frame(b"first") + frame(b"second")))
            assert came == frame(b"first", opcode=TEXT) + frame(b"second")


def read_frames(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(split(data)[0]) < count:
        more = sock.recv(65536)
        assert more, "the relay closed"
        data += more
    return data


def test_a_slow_reader_does_not_fill_the_memory(tmp_path: Path) -> None:
    """256 MiB are pushed at a client that first reads nothing, then all."""
    pushed = [0]

    def push(talk: Conversation) -> None:
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", f"Sec-WebSocket-Accept: {talk.accept_key().decode()}"]
        talk.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        block = frame(bytes(MIB))
        for _ in range(256):
            talk.sock.sendall(block)
            pushed[0] += 1
        talk.sock.sendall(frame(struct.pack("!H", 4000), opcode=CLOSE))
        talk.wait_closed()

    with noting(tmp_path) as (daemon, bot, _ends):
        with call(daemon, token=token_for()) as ws:  # what a first call costs once
            assert echoes(ws)
        bot.script = push
        before = peak_memory(daemon)
        with raw_call(daemon, token_for()) as wire:
            seen = [-1]

            def at_rest() -> bool:
                # Nothing more is pushed between two looks at an idle daemon.
                seen.append(pushed[0])
                return seen[-1] > 0 and len(seen) > 50 and len(set(seen[-50:])) == 1

            wait_until(at_rest, "the bot is held back")
            assert pushed[0] < 256
            size = 0
            while size < 256 * MIB:
                data = wire.sock.recv(MIB)
                assert data, "the relay closed"
                size += len(data)
        assert pushed[0] == 256
        assert peak_memory(daemon) - before < 8 * MIB


def peak_memory(daemon: Daemon) -> int:
    """The most that the control process has held, in bytes."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    (line,) = [each for each in status.splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_a_flood_of_tiny_frames_does_not_stop_the_daemon(daemon: Daemon) -> None:
    tiny = frame(b"", masked=True) * 20_000
    with raw_call(daemon, daemon.start_when_free()["token"]) as wire:
        thread = threading.Thread(target=wire.send, args=(tiny,))
        thread.start()
        assert daemon.request("GET", "/livez", admin=True).status == 200
        with begin(daemon) as other:
            assert echoes(other.ws)
        size = 0
        while size < 40_000:  # the bot's echoes: two bytes each
            size += len(wire.sock.recv(65536))
        thread.join(PATIENCE)
        assert not thread.is_alive()


# How it ends.


def test_a_close_of_the_bot_passes(daemon: Daemon) -> None:
    with begin(daemon) as began:
        began.ws.send("!close 4007 that was all")
        assert close_seen(began.ws) == (4007, "that was all")
    record = daemon.wait_ended(began.id)
    assert (record["cause"], record["closeCode"]) == ("bot_closed", 4007)


def test_a_stop_closes_both_sides(tmp_path: Path) -> None:
    with noting(tmp_path) as (daemon, _bot, ends):
        began = begin(daemon)
        assert daemon.request("GET", "/readyz", admin=True).json()["calls"] == 1
        stop(daemon, began.id)
        assert close_seen(began.ws) == (1001, "stopped")
        assert ends.next() == (1001, "stopped")
        assert daemon.wait_ended(began.id)["cause"] == "stopped"
        wait_until(
            lambda: daemon.request("GET", "/readyz", admin=True).json()["calls"] == 0, "no call"
        )


def test_the_time_limit(tmp_path: Path) -> None:
    with noting(tmp_path, "max_session_duration = 1") as (daemon, _bot, ends):
        began = begin(daemon)
        assert close_seen(began.ws) == (1001, "time limit")
        assert ends.next() == (1001, "time limit")
        assert daemon.wait_ended(began.id)["cause"] == "time_limit"


@pytest.mark.parametrize(
    ("said", "code", "cause"),
    [
        (frame(b"caf\xe9", masked=True, opcode=TEXT), 1007, "client_protocol_error"),
        (frame(b"x", masked=False), 1002, "client_protocol_error"),
        (frame(b"x" * 501, masked=True), 1009, "client_message_too_big"),
        (frame(b"x" * 500, masked=True, final=False), 0, ""),
    ],
)
def test_what_a_client_may_not_say(tmp_path: Path, said: bytes, code: int, cause: str) -> None:
    with noting(tmp_path, "max_message_size = 500") as (daemon, _bot, ends):
        started = daemon.start_when_free()
        with raw_call(daemon, started["token"]) as wire:
            wire.send(said)
            if not code:  # as long as it may be
                wire.send(frame(b"", masked=True, opcode=0x0))
                wire.send(frame(b"\x03\xe8", masked=True, opcode=CLOSE))
                assert ends.next()[0] == 1000
                return
            assert wire.file.read(4)[2:] == code.to_bytes(2, "big")
            assert ends.next()[0] == code
        record = daemon.wait_ended(started["sessionId"])
        assert (record["cause"], record["closeCode"]) == (cause, code)


def test_the_default_limit(daemon: Daemon) -> None:
    with begin(daemon) as began:
        began.ws.send(b"x" * (16 * MIB + 1))
        assert close_seen(began.ws) == (1009, "message too big")
    record = daemon.wait_ended(began.id)
    assert (record["cause"], record["closeCode"]) == ("client_message_too_big", 1009)


def test_a_tunnel_may_have_a_limit_too(bot: Bot, tmp_path: Path) -> None:
    agent = "max_message_size = 500\nsessions_per_instance = 4"
    with (
        running_daemon(tmp_path, [bot.url], agent, "close_timeout = 1") as daemon,
        begin(daemon) as began,
    ):
        began.ws.send("x" * 500)
        assert began.ws.recv(PATIENCE) == "x" * 500
        began.ws.send("x" * 501)
        assert close_seen(began.ws) == (1009, "message too big")
        assert daemon.wait_ended(began.id)["cause"] == "client_message_too_big"


def test_calls_in_this_process_count_as_connections(bot: Bot, tmp_path: Path) -> None:
    agent = f'{FRAMES}\nwebsocket_auth = "none"'
    # Both connections come from one address.
    limits = "max_connections = 2\nmax_connections_per_address = 0"
    with running_daemon(tmp_path, [bot.url], agent, limits) as daemon:

        def begun() -> Wire | None:
            # The connection of the call before counts twice for a moment.
            wire = Wire(daemon.port)
            if wire.ask(upgrade("/ws/generic/bot.acme")).status == 101:
                return wire
            wire.close()
            return None

        first, second = (wait_until(begun, "a call") for _ in range(2))
        refused(daemon, daemon.request("GET", "/"), 503, "too_many_connections")
        first.close()
        wait_until(lambda: daemon.request("GET", "/").status == 404, "there is room again")
        second.close()
