"""The recipes for ending TLS in front, each run as it stands: calls, requests, events, reloads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from bench.targets.base import free_ports
from tests.helpers.daemon import PATIENCE, Daemon, config_text, start_daemon, wait_until
from tests.helpers.scripted_bot import Conversation, ScriptedBot, accept, scripted_bot
from tests.helpers.scripted_http import BEARER, Steps, answer, chunk, head, read_head
from tests.helpers.tls_fronts import CALLER, HOST, PROGRAMS, Front, front_of, missing
from tests.helpers.wire import request as at_localhost

# Longer than the minute after which most proxies cut what is silent by default.
GAP = float(os.environ.get("PEERS_GAP", "65"))
# What callers write to be taken for somebody else; no recipe may let it pass.
SPOOFED = (
    "Forwarded: for=198.51.100.9",
    "X-Forwarded-For: 198.51.100.9",
    "X-Forwarded-Host: evil.example.com",
    "X-Forwarded-Port: 99",
    "X-Forwarded-Prefix: /evil",
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-Server: evil",
    "X-Real-IP: 198.51.100.9",
)


def patient(talk: Conversation) -> None:
    """Echoes, however long nothing is said."""
    talk.sock.settimeout(GAP + 10 * PATIENCE)  # the last of all fronts begins later
    accept()(talk)


@pytest.fixture(scope="module")
def bot() -> Iterator[ScriptedBot]:
    with scripted_bot() as bot:
        yield bot


@pytest.fixture(scope="module", params=list(PROGRAMS))
def front(
    request: pytest.FixtureRequest, bot: ScriptedBot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Front, Daemon]]:
    """Each recipe in turn, with a daemon that is told of it as its first lines say."""
    recipe = request.param
    why_not = missing(recipe)
    if why_not:
        pytest.skip(why_not)
    with fronted(recipe, bot, tmp_path_factory.mktemp("front")) as pair:
        yield pair


@contextmanager
def fronted(
    recipe: str, bot: ScriptedBot, folder: Path, *changes: tuple[str, str]
) -> Iterator[tuple[Front, Daemon]]:
    """A recipe, and behind it a daemon that is told of it as its first lines say."""
    tells = "proxy_protocol" if recipe == "haproxy-tcp.cfg" else "trusted_proxies"
    (port,) = free_ports(1)
    server = f'{tells} = ["127.0.0.1"]\npublic_url = "https://{HOST}:{port}"'
    many, limits = "sessions_per_instance = 100", "address_sessions_per_minute = 40"
    config = config_text([bot.url], many, limits, server)
    home = folder / "relay"
    home.mkdir()
    # The helper reads the port from the public URL, which is the proxy's here.
    daemon = start_daemon(home, config.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
    try:
        wait_until(lambda: daemon.request("GET", "/readyz", admin=True).status == 200, "ready")
        with front_of(recipe, folder, port, *changes) as front:
            yield front, daemon
    finally:
        daemon.process.end()


def begun(front: Front, bot: ScriptedBot) -> tuple[str, ClientConnection]:
    """A session from /start to its first echo, all of it over TLS."""
    bot.script = patient
    body = b'{"transport": "websocket"}'
    asked = request(
        "POST", "/v1/public/bot/start", BEARER, f"Content-Length: {len(body)}", body=body
    )
    with front.wire() as wire:
        started = wire.ask(asked).json()
    assert started["wsUrl"].startswith(f"wss://{HOST}:")
    call = front.call("/ws/generic/bot.acme", started["token"])
    call.__enter__()  # the test or the other side closes it
    assert echoes(call)
    return started["sessionId"], call


def request(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    """A request of a caller who knows the proxy's name."""
    data = at_localhost(method, target, *fields, body=body)
    return data.replace(b"Host: localhost\r\n", f"Host: {HOST}\r\n".encode(), 1)


def echoes(call: ClientConnection, data: bytes = b"still here") -> bool:
    call.send(data)
    return call.recv(PATIENCE) == data


def path(session_id: str) -> str:
    return f"/v1/public/bot/sessions/{session_id}/x"


def test_a_call(front: tuple[Front, Daemon], bot: ScriptedBot) -> None:
    session_id, call = begun(front[0], bot)
    for size in (1, 125, 126, 70_000, 1_000_000):
        data, back = os.urandom(size), b""
        call.send(data)
        while len(back) < size:  # this bot answers as it reads
            piece = call.recv(PATIENCE)
            assert isinstance(piece, bytes)
            back += piece
        assert back == data
    call.close(1000, "done")
    record = front[1].wait_ended(session_id)
    assert (record["cause"], record["closeCode"]) == ("client_closed", 1000)


def test_a_request_of_a_session_and_who_asked(
    front: tuple[Front, Daemon], bot: ScriptedBot
) -> None:
    """The caller's address is the one that the bot is told, whatever the caller has written."""
    session_id, call = begun(front[0], bot)
    bot.script = lambda talk: talk.sock.sendall(answer(body=b"hello"))
    with front[0].wire() as wire:
        for _ in range(3):
            found = wire.ask(request("GET", path(session_id), BEARER, *SPOOFED))
            assert (found.status, found.body) == (200, b"hello")
    told = bot.conversations[-1]
    assert told.field("x-forwarded-for").decode().partition(",")[0] == CALLER
    in_forwarded = told.field("forwarded").decode()
    for evil in ("198.51.100.9", "evil", "gopher", "99"):
        lines = told.head.decode().lower().split("\r\n")
        assert [line for line in lines if "forward" in line and evil in line] == []
    assert told.field("x-real-ip") == b""
    if front[0].recipe == "haproxy-tcp.cfg":
        assert told.field("x-forwarded-for").decode() == CALLER
        assert f"for={CALLER};" in in_forwarded
    else:
        assert told.field("x-forwarded-proto") == b"https"
    call.close()


def test_limits_count_callers_and_not_the_proxy(
    front: tuple[Front, Daemon], bot: ScriptedBot
) -> None:
    """Told by the recipe's own way; an address over its limit is refused, others are not."""
    body = b'{"transport": "websocket"}'
    fields = (BEARER, f"Content-Length: {len(body)}", *SPOOFED)
    asked = request("POST", "/v1/public/bot/start", *fields, body=body)
    with front[0].wire("127.0.0.7") as wire:
        causes = {wire.ask(asked).status for _ in range(60)}
    assert 429 in causes
    peers = [line for line in front[1].logs() if line.get("cause") == "rate_limited_address"]
    assert peers
    # From another address, and through the same proxy.
    with front[0].wire("127.0.0.6") as wire:
        assert wire.ask(asked).status == 200


def test_events_come_one_by_one(front: tuple[Front, Daemon], bot: ScriptedBot) -> None:
    session_id, call = begun(front[0], bot)
    steps = Steps()

    def events(talk: Conversation) -> None:
        fields = ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        talk.sock.sendall(head("200 OK", *fields))
        for number in range(3):
            steps.wait_go()
            talk.sock.sendall(chunk(b"data: %d\n\n" % number))
        steps.wait_go()
        talk.sock.sendall(b"0\r\n\r\n")

    bot.script = events
    with front[0].wire() as wire:
        wire.send(request("GET", path(session_id), BEARER))
        assert read_head(wire)[0] == 200
        for number in range(3):
            steps.go()  # the next one only when this one has been read
            line = b""
            while not line.startswith(b"data:"):
                line = wire.file.readline()
            assert line == b"data: %d\n" % number
        steps.go()
        assert b"0\r\n" in iter(wire.file.readline, b"")
    call.close()


def test_a_call_outlives_a_reload_of_the_proxy(
    front: tuple[Front, Daemon], bot: ScriptedBot
) -> None:
    session_id, call = begun(front[0], bot)
    front[0].reload()
    if front[0].recipe == "Caddyfile":
        # As the page says of it: without time to finish they are closed.
        with pytest.raises(ConnectionClosed) as closed:
            list(iter(lambda: echoes(call), False))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    else:
        _, after = begun(front[0], bot)
        for _ in range(5):
            assert echoes(call)
        after.close()
        call.close()
    front[1].wait_ended(session_id)
    _, after = begun(front[0], bot)
    after.close()


def test_calls_may_be_silent(bot: ScriptedBot, tmp_path: Path) -> None:
    """For longer than the default patience of proxies, of which nginx is asked too."""
    usual = [
        ("            proxy_read_timeout 2h;\n", ""),
        ("            proxy_send_timeout 2h;\n", ""),
    ]
    wanted = [(recipe, []) for recipe in PROGRAMS] + [("nginx.conf", usual)]
    calls = []
    with ExitStack() as stack:
        for number, (recipe, changes) in enumerate(wanted):
            if missing(recipe):
                continue
            folder = tmp_path / str(number)
            folder.mkdir()
            front, _ = stack.enter_context(fronted(recipe, bot, folder, *changes))
            calls.append((recipe, changes, begun(front, bot)[1]))
        if not calls:
            pytest.skip("none of the programs is installed")
        time.sleep(GAP)
        for recipe, changes, call in calls:
            if changes:
                with pytest.raises(ConnectionClosed):
                    echoes(call)
            else:
                assert echoes(call), recipe
            call.close()
