"""TLS on the public listener: certificates by name, renewed in place, and what goes through it."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import PATIENCE, Daemon, wait_until
from tests.helpers.ends import (
    Ends,
    begin,
    close_seen,
    is_quiet,
    nothing_is_held,
    raw_call,
    reset,
)
from tests.helpers.reloads import hang_up, reload, reloaded, said
from tests.helpers.scripted_bot import ScriptedBot, accept, say, scripted_bot
from tests.helpers.scripted_http import answer, echo, session_on
from tests.helpers.side_tunnels import SideBot, over_websocket
from tests.helpers.tls import LAST_YEAR, LONG_AGO, Authority, running_secure, secure_config
from tests.helpers.upgrades import end_node, upgrade, wait_alone
from tests.helpers.wire import Wire, call, echoes, keeps_secrets, request, stop, token_for
from tests.helpers.wire import upgrade as upgrade_request

MIB = 1024 * 1024
AGENT = "sessions_per_instance = 20\nsettle_time = 0"
LIMITS = "close_timeout = 1\nkeep_alive_timeout = 1"
NOTHING = request("GET", "/")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def bot() -> Iterator[ScriptedBot]:
    with scripted_bot() as bot:
        yield bot


def config(bot: ScriptedBot, *certificates: Path, tls: str = "") -> str:
    agent = AGENT.replace("settle_time = 0", "")
    return secure_config([bot.url], *certificates, tls=tls, agent=agent, limits=LIMITS)


@pytest.fixture(scope="module")
def daemon(
    authority: Authority, bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """One with three certificates; the first is for those who name none of the others."""
    shown = [
        authority.issue("default", "127.0.0.1", "default.example"),
        authority.issue("voice", "voice.example", "*.voice.example"),
        authority.issue("rsa", "rsa.example", rsa=True),
    ]
    folder = tmp_path_factory.mktemp("relay")
    with running_secure(folder, config(bot, *shown), authority.client()) as daemon:
        yield daemon
        nothing_is_held(daemon)
        is_quiet(daemon)
        keeps_secrets(daemon)


def shown_to(daemon: Daemon, authority: Authority, name: str | None) -> list[str]:
    """The names in the certificate that a caller gets who asks for `name`."""
    context = authority.client()
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        certificate = secure.getpeercert()
        assert certificate is not None
        return [str(value) for _, value in certificate["subjectAltName"]]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        (None, "default.example"),
        ("default.example", "default.example"),
        ("nobody.example", "default.example"),
        ("voice.example", "voice.example"),
        ("VOICE.Example", "voice.example"),
        ("a.voice.example", "voice.example"),
        ("a.b.voice.example", "default.example"),
        ("rsa.example", "rsa.example"),
    ],
)
def test_the_certificate_is_that_of_the_name(
    daemon: Daemon, authority: Authority, asked: str | None, first: str
) -> None:
    assert first in shown_to(daemon, authority, asked)


def test_what_is_agreed_upon(daemon: Daemon, authority: Authority) -> None:
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() == "TLSv1.3"
        assert secure.selected_alpn_protocol() == "http/1.1"
        assert secure.compression() is None
        secure.sendall(request("GET", "/nowhere", "Connection: close"))
        assert secure.recv(12) == b"HTTP/1.1 404"
    metrics = daemon.request("GET", "/metrics", admin=True).body.decode()
    assert 'relay_tls_handshakes_total{version="TLSv1.3"}' in metrics


# Calls


def test_a_call(daemon: Daemon, bot: ScriptedBot) -> None:
    bot.script = accept()
    started = daemon.start_when_free()
    assert started["wsUrl"] == f"wss://127.0.0.1:{daemon.port}/ws/generic/bot.acme"
    with call(daemon, token=started["token"], compression="deflate", max_size=None) as ws:
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers
        for size in (0, 1, 125, 126, 640, 16384, 65536, 3 * MIB):
            data = bytes(range(256)) * (size // 256) + bytes(size % 256)
            ws.send(data)
            # This bot echoes frames, in which a large message is passed on, as messages.
            came = ws.recv(PATIENCE, decode=False)
            while len(came) < size:
                came += ws.recv(PATIENCE, decode=False)
            assert came == data
        assert echoes(ws, "Grüße, 世界")
        assert ws.ping().wait(PATIENCE)
        assert daemon.session(started["sessionId"])["state"] == "active"
    record = daemon.wait_ended(started["sessionId"])
    assert (record["cause"], record["closeCode"]) == ("client_closed", 1000)
    assert record["figures"]["client"]["messages"] == 9


def test_how_calls_end(daemon: Daemon, bot: ScriptedBot) -> None:
    bot.script = ends = Ends()
    with begin(daemon) as began:
        began.ws.close(4001, "enough")
    assert ends.next() == (4001, "enough")
    assert daemon.wait_ended(began.id)["closeCode"] == 4001
    began = begin(daemon)
    stop(daemon, began.id)
    assert close_seen(began.ws) == (1001, "stopped")
    assert ends.next() == (1001, "stopped")
    # Neither an end of TCP nor a reset is the end of what TLS carries.
    for leave in (Wire.close, reset):
        started = daemon.start_when_free()
        leave(raw_call(daemon, started["token"]))
        assert ends.next() == (1001, "client gone")
        assert daemon.wait_ended(started["sessionId"])["cause"] == "client_gone"


def test_a_side_tunnel(daemon: Daemon, bot: ScriptedBot) -> None:
    bot.script = script = SideBot()
    held = over_websocket(daemon, script)
    side = held.side()
    assert echoes(side)
    assert held.goes_on()
    stop(daemon, held.id)
    assert close_seen(side) == (1001, "stopped")
    daemon.wait_ended(held.id)


# Requests


def test_bodies_of_any_size_both_ways(daemon: Daemon, bot: ScriptedBot) -> None:
    with session_on(daemon, bot) as held, held.wire() as wire:
        held.script = echo
        for size in (0, 1, 16384, 16385, 5 * MIB):
            body = bytes(range(256)) * (size // 256) + bytes(size % 256)
            fields = f"Content-Length: {size}"
            got = wire.ask(held.request("POST", "/x", fields, body=body))
            assert (got.status, got.body == body) == (200, True), size


def test_many_requests_sent_at_once(daemon: Daemon, bot: ScriptedBot) -> None:
    with session_on(daemon, bot) as held, held.wire() as wire:
        held.script = say(answer(body=b"one of many"))
        wire.send(held.request() * 20)
        assert [wire.answer().body for _ in range(20)] == [b"one of many"] * 20


def test_the_bot_is_told_that_it_was_tls(daemon: Daemon, bot: ScriptedBot) -> None:
    with session_on(daemon, bot) as held, held.wire() as wire:
        assert wire.ask(held.request()).status == 200
        assert held.last.field("x-forwarded-proto") == b"https"
        assert held.last.field("forwarded").endswith(b";proto=https")


def test_ends_can_be_believed_where_they_should_be(daemon: Daemon, bot: ScriptedBot) -> None:
    def idle(wire: Wire) -> bytes:
        assert wire.ask(NOTHING).status == 404
        return wire.rest()

    with Wire(daemon.port, tls=daemon.tls) as wire:
        assert idle(wire) == b""  # one that was not told would raise
    with session_on(daemon, bot) as held, held.wire() as wire:
        # An answer whose end is that of the connection, and one that is cut off.
        held.script = say(b"HTTP/1.1 200 OK\r\n\r\nto the end")
        wire.send(request("GET", held.path(), *held.request().decode().split("\r\n")[2:3]))
        assert b"to the end" in wire.rest()


# Reload, and callers' certificates


def numbered(path: Path, number: int, authority: Authority) -> None:
    """Put another certificate where this one is."""
    shutil.copy(authority.issue(f"n{number}", "127.0.0.1", f"n{number}.example"), path)


def lets_in(daemon: Daemon, trusted: ssl.SSLContext) -> bool:
    """Whether a caller that trusts, and shows, this gets an answer."""
    try:
        with Wire(daemon.port, tls=trusted) as wire:
            return wire.ask(NOTHING).status == 404
    except (OSError, ValueError):  # an end in the place of a status line
        return False


def refused_for(daemon: Daemon) -> list[str]:
    return [line["cause"] for line in daemon.logs() if line.get("cause", "").startswith("tls_")]


def test_what_a_reload_changes(authority: Authority, bot: ScriptedBot, tmp_path: Path) -> None:
    bot.script = accept()
    path = tmp_path / "shown.pem"
    numbered(path, 0, authority)
    text = config(bot, path)
    with running_secure(tmp_path, text, authority.client()) as daemon, begin(daemon) as began:
        numbered(path, 1, authority)
        assert reloaded(daemon, text) == ["tls"]
        assert "n1.example" in shown_to(daemon, authority, None)
        numbered(path, 2, authority)
        assert hang_up(daemon)["changed"] == ["tls"]
        assert "n2.example" in shown_to(daemon, authority, None)
        assert reloaded(daemon, text) == []
        assert echoes(began.ws)
        metrics = daemon.request("GET", "/metrics", admin=True).body.decode()
        assert f'relay_tls_certificate_end_seconds{{certificate="{path}"}} 3' in metrics
        wrong_pairs(daemon, authority, text, path)
        assert echoes(began.ws)
        callers_certificates(daemon, authority, bot, path)
        assert echoes(began.ws)
        # On the same port, with TLS and without, is two places for the kernel's one.
        start, _, rest = text.partition("[tls]")
        start = start.replace("tls:127.0.0.1:0", f"127.0.0.1:{daemon.port}")
        refused = reload(daemon, start + rest[rest.index("[store]") :])
        assert (refused.status, b"restart needed" in refused.body) == (409, True)


def wrong_pairs(daemon: Daemon, authority: Authority, text: str, path: Path) -> None:
    """One that can't be used refuses everything; what was is what is."""
    old = authority.issue("old", since=LONG_AGO, until=LAST_YEAR)
    foreign = path.with_name("foreign.pem")
    foreign.write_bytes(
        path.read_bytes()[path.read_bytes().index(b"-----BEGIN CERT") :]
        + old.with_suffix(".key").read_bytes()
    )
    for wrong, said_of_it in (
        (old, f"{old} has expired on 2021-01-01 00:00 UTC"),
        (foreign, f"the key in {foreign} does not belong to the certificate"),
    ):
        other = text.replace(str(path), str(wrong)).replace(
            "close_timeout = 1", "close_timeout = 2"
        )
        assert reload(daemon, other).status == 409
        problems = said(daemon, "reload_refused")[-1]["problems"]
        assert problems == [f"{daemon.config}: tls.certificates[0]: {said_of_it}"]
        assert "n2.example" in shown_to(daemon, authority, None)
        in_force = daemon.request("GET", "/config", admin=True).body.decode()
        assert "close_timeout = 1\n" in in_force


def callers_certificates(
    daemon: Daemon, authority: Authority, bot: ScriptedBot, path: Path
) -> None:
    own = Authority(path.parent, "own")
    right = authority.client(own.issue("caller"))
    expired = authority.client(own.issue("expired", since=LONG_AGO, until=LAST_YEAR))
    stranger = authority.client(authority.issue("stranger"))
    for kind, nobody in (("required", False), ("optional", True)):
        tls = f'client_ca = "own.pem"\nclient_certificates = "{kind}"'
        assert reloaded(daemon, config(bot, path, tls=tls)) == ["tls"]
        assert lets_in(daemon, right)
        assert lets_in(daemon, authority.client()) is nobody
        assert not lets_in(daemon, stranger)
        assert not lets_in(daemon, expired)
    wait_until(lambda: len(refused_for(daemon)) == 5, "the log tells of them")
    assert set(refused_for(daemon)) == {"tls_client_certificate"}


# The end of the process


def test_a_restart_in_place_and_the_end(
    authority: Authority, bot: ScriptedBot, tmp_path: Path
) -> None:
    bot.script = ends = Ends()
    text = config(bot, authority.issue("shown")).replace("= 20", "= 2", 1)
    with running_secure(tmp_path, text, authority.client()) as daemon:
        began, other = begin(daemon), begin(daemon)
        idle, waiting = (Wire(daemon.port, tls=daemon.tls) for _ in range(2))
        assert idle.ask(NOTHING).status == 404
        bearer = f"Authorization: Bearer {token_for()}"
        waiting.send(upgrade_request("/ws/generic/bot.acme", bearer))
        wait_until(lambda: daemon.request("GET", "/status", admin=True).json()["queue"], "it waits")
        upgrade(daemon)
        # What TLS has agreed upon is in the old process: idle connections end, who waits is
        # told to come again, and calls go on there.
        assert idle.rest() == b""
        told = waiting.answer()
        assert (told.status, told.headers["retry-after"]) == (503, "1")
        assert echoes(began.ws)
        other.ws.close()
        assert ends.next() == (1000, "")
        daemon.wait_ended(other.id)
        with begin(daemon) as new:
            assert echoes(new.ws)
            assert daemon.session(began.id)["state"] == "active"
            began.ws.close()
            assert ends.next() == (1000, "")
            wait_alone(daemon)
            assert daemon.wait_ended(began.id)["cause"] == "client_closed"
            hanging = socket.create_connection(("127.0.0.1", daemon.port), PATIENCE)
            end_node(daemon)
            assert close_seen(new.ws)[0] == 1012
            assert ends.next()[0] == 1012
        for each in (idle, waiting, hanging):
            each.close()
