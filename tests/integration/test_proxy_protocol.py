"""A balancer's PROXY header: believed from `proxy_protocol` alone, and from there required."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.protocol.proxy_header import MAX_HEADER, SIGNATURE
from tests.helpers.daemon import (
    PATIENCE,
    Answer,
    Daemon,
    config_text,
    running_daemon,
    start_daemon,
    wait_until,
)
from tests.helpers.ends import Ends
from tests.helpers.scripted_bot import ScriptedBot, scripted_bot
from tests.helpers.scripted_http import session_on
from tests.helpers.upgrades import upgradable, wait_alone
from tests.helpers.upgrades import upgrade as restart_in_place
from tests.helpers.wire import Wire, exchange_line, request, token_for, upgrade

BALANCER = "127.0.0.2"
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.9 56288 443\r\n"
V4 = bytes((192, 0, 2, 1, 198, 51, 100, 9)) + b"\xdb\xe0\x01\xbb"
BINARY = SIGNATURE + b"\x21\x11\x00\x0c" + V4
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
NOTHING_THERE = request("GET", "/nowhere")


@pytest.fixture(scope="module")
def bot() -> Iterator[ScriptedBot]:
    with scripted_bot() as bot:
        bot.script = Ends()
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("proxied")
    server = f'proxy_protocol = ["{BALANCER}", "unix"]'
    with running_daemon(folder, [bot.url], limits="head_timeout = 1", server=server) as daemon:
        yield daemon


def peer_in_log(daemon: Daemon, answer: Answer) -> str:
    assert answer.status == 404
    return str(exchange_line(daemon, answer.headers["x-request-id"])["peer"])


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        pytest.param(LINE, "192.0.2.1:56288", id="a line"),
        pytest.param(BINARY, "192.0.2.1:56288", id="binary"),
        pytest.param(b"PROXY TCP6 2001:db8::1 ::1 7 8\r\n", "2001:db8::1:7", id="IPv6"),
    ],
)
def test_the_caller_is_who_the_header_names(daemon: Daemon, header: bytes, peer: str) -> None:
    with Wire(daemon.port, BALANCER) as wire:
        # Whole requests behind the header, and later ones, which have none.
        wire.send(header + NOTHING_THERE)
        assert peer_in_log(daemon, wire.answer()) == peer
        assert peer_in_log(daemon, wire.ask(NOTHING_THERE)) == peer


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"], ids=["local", "unknown"])
def test_a_balancer_speaks_for_itself(daemon: Daemon, header: bytes) -> None:
    with Wire(daemon.port, BALANCER) as wire:
        answer = wire.ask(header + NOTHING_THERE)
        assert peer_in_log(daemon, answer).startswith(f"{BALANCER}:")


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["line", "binary"])
def test_a_header_in_pieces(daemon: Daemon, header: bytes) -> None:
    with Wire(daemon.port, BALANCER) as wire:
        for at in range(len(header)):
            wire.send(header[at : at + 1])
        assert peer_in_log(daemon, wire.ask(NOTHING_THERE)) == "192.0.2.1:56288"


def test_a_call_behind_a_header(daemon: Daemon) -> None:
    asked = upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token_for()}")
    with Wire(daemon.port, BALANCER) as wire:
        assert wire.ask(LINE + asked).status == 101


@pytest.mark.parametrize(
    ("header", "address", "element"),
    [
        pytest.param(BINARY, "192.0.2.1", "for=192.0.2.1;", id="IPv4"),
        pytest.param(
            b"PROXY TCP6 2001:db8::1 ::1 7 8\r\n", "2001:db8::1", 'for="[2001:db8::1]";', id="IPv6"
        ),
    ],
)
def test_the_bot_is_told_whom_the_header_names(
    daemon: Daemon, bot: ScriptedBot, header: bytes, address: str, element: str
) -> None:
    """And nothing of what that caller says about itself."""
    with session_on(daemon, bot) as held, Wire(daemon.port, BALANCER) as wire:
        forged = (
            "X-Forwarded-For: 203.0.113.9",
            "Forwarded: for=203.0.113.9",
            "X-Real-IP: 1.1.1.1",
        )
        assert wire.ask(header + held.request("GET", "/x", *forged)).status == 200
        told = held.last
    assert told.field("x-forwarded-for").decode() == address
    assert told.field("forwarded").decode().startswith(element)
    assert "203.0.113.9" not in told.head.decode()
    assert told.field("x-real-ip") == b""


@pytest.mark.parametrize(
    ("header", "cause"),
    [(LINE, "bad_request_line"), (BINARY, "control_byte")],
    ids=["line", "binary"],
)
def test_a_stranger_cannot_name_himself(daemon: Daemon, header: bytes, cause: str) -> None:
    with Wire(daemon.port) as wire:
        answer = wire.ask(header + NOTHING_THERE)
    assert answer.status == 400
    line = exchange_line(daemon, answer.headers["x-request-id"])
    assert line["cause"] == cause
    assert line["peer"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(NOTHING_THERE, "expected a PROXY header", id="none"),
        pytest.param(LINE[:20], "within 1 s", id="half, then silence"),
        pytest.param(b"PROXY TCP4 " + b"1" * 100, "at most 107 bytes", id="an endless line"),
        pytest.param(
            SIGNATURE + b"\x21\x11\xff\xff", f"at most {MAX_HEADER} bytes", id="an endless header"
        ),
    ],
)
def test_a_balancer_without_a_header(daemon: Daemon, data: bytes, reason: str) -> None:
    with Wire(daemon.port, BALANCER) as wire:
        peer = f"{BALANCER}:{wire.sock.getsockname()[1]}"
        wire.send(data)
        assert wire.rest() == b""
    assert reason in closed_for(daemon, peer)


def test_a_header_that_ends_early(daemon: Daemon) -> None:
    with Wire(daemon.port, BALANCER) as wire:
        peer = f"{BALANCER}:{wire.sock.getsockname()[1]}"
        wire.send(LINE[:20])
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""
    assert "found the end" in closed_for(daemon, peer)


def closed_for(daemon: Daemon, peer: str) -> str:
    """The reason in the one log line of a connection whose header was not taken."""

    def lines() -> list[str]:
        found = (line for line in daemon.logs() if line["event"] == "proxy_header")
        return [line["reason"] for line in found if line["peer"] == peer]

    (reason,) = wait_until(lines, "the log line")
    return str(reason)


def test_balancers_over_a_unix_socket(tmp_path: Path) -> None:
    server = 'proxy_protocol = ["unix"]\npublic_url = "http://localhost:80"'
    text = config_text(["http://127.0.0.1:1"], server=server)
    binds = 'bind = ["127.0.0.1:0", "unix:front.sock"]'
    daemon = start_daemon(tmp_path, text.replace('bind = "127.0.0.1:0"', binds, 1))
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(tmp_path / "front.sock"))
            sock.sendall(LINE + request("GET", "/nowhere", "Connection: close"))
            assert b"".join(iter(lambda: sock.recv(65536), b"")).startswith(b"HTTP/1.1 404 ")

        def peers() -> list[object]:
            return [line["peer"] for line in daemon.logs() if line["event"] == "exchange"]

        assert wait_until(peers, "the log line") == ["192.0.2.1:56288"]
    finally:
        daemon.process.end()


def test_a_restart_in_place(tmp_path: Path) -> None:
    """The next process knows who the caller is, and expects no second header."""
    server = f'proxy_protocol = ["{BALANCER}"]'
    config = config_text(["http://127.0.0.1:9"], server=server)
    with upgradable(tmp_path, config) as daemon, Wire(daemon.port, BALANCER) as wire:
        wire.send(LINE + NOTHING_THERE)
        assert peer_in_log(daemon, wire.answer()) == "192.0.2.1:56288"
        restart_in_place(daemon)
        wait_alone(daemon)
        assert peer_in_log(daemon, wire.ask(NOTHING_THERE)) == "192.0.2.1:56288"
