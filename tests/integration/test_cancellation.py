"""A client leaves in each phase: no descriptor, session, lease or claim of it is left."""

from __future__ import annotations

import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.helpers.daemon import PUBLIC_KEY, Daemon, running_daemon, wait_until
from tests.helpers.ends import (
    Ends,
    begin,
    descriptors,
    is_quiet,
    nothing_is_held,
    raw_call,
    reset,
    rows,
)
from tests.helpers.scripted_bot import Conversation, ScriptedBot, scripted_bot
from tests.helpers.wire import Wire, echoes, exchange_line, live, request, token_for, upgrade

KEY = f"Authorization: Bearer {PUBLIC_KEY}"
HAND_OVERS = 15


class FullBot:
    """A bot that says it is ready until, from `fill` on, nobody can connect any more."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._queued: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _answer(self) -> None:
        while self._woken not in select.select([self._listener, self._woken], [], [])[0]:
            sock, _ = self._listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def fill(self) -> None:
        """Take every place in the line, so that the next connection hangs."""
        self._wake.close()
        self._thread.join()
        for _ in range(8):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(self._listener.getsockname())
            self._queued.append(sock)
        # Loopback needs no time for a handshake: what is not connected now will not be.
        _, connected, _ = select.select([], self._queued, [], 0)
        assert len(connected) < len(self._queued)

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        for sock in (*self._queued, self._listener, self._woken):
            sock.close()


@dataclass
class Stage:
    """The daemon with its bots: one that echoes, one that is silent, two that will be full."""

    daemon: Daemon
    silent: queue.Queue[str]
    full: list[FullBot]
    descriptors: int

    def is_clean(self) -> None:
        daemon = self.daemon
        # Connections are accepted in turn, so behind this answer the one that was left is
        # among the descriptors, and what it has begun is over when they are given back.
        assert daemon.request("GET", "/").status == 404
        wait_until(
            lambda: descriptors(daemon.process.pid) <= self.descriptors,
            f"descriptors are given back, {self.descriptors} in all",
        )
        for agent in ("bot", "silent"):
            promised = "SELECT id FROM sessions WHERE state = 'reserved' AND reserved_until > 0"
            for (session,) in rows(daemon, f"{promised} AND agent = '{agent}'"):
                assert daemon.request("DELETE", f"/sessions/{session}", admin=True).status == 200
        nothing_is_held(daemon)
        with begin(daemon) as began:  # and the one place is free
            assert echoes(began.ws)
        daemon.wait_ended(began.id)
        is_quiet(daemon)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("relay")
    asked: queue.Queue[str] = queue.Queue()

    def silence(talk: Conversation) -> None:
        asked.put(talk.target)
        talk.wait_closed()

    with ExitStack() as stack:
        echo: ScriptedBot = stack.enter_context(scripted_bot())
        silent: ScriptedBot = stack.enter_context(scripted_bot())
        full = [FullBot(), FullBot()]
        for each in full:
            stack.callback(each.close)
        echo.script, silent.script = Ends(), silence
        agents = "".join(
            f'[agents.{name}]\norganization = "acme"\ninstances = ["{url}"]\nsettle_time = 0\n'
            for name, url in (
                ("silent", silent.url),
                ("full0", full[0].url),
                ("full1", full[1].url),
            )
        )
        daemon = stack.enter_context(running_daemon(folder, [echo.url], agents))
        stage = Stage(daemon, asked, full, 0)
        with begin(daemon):
            pass
        nothing_is_held(daemon)
        # What one call made for good: the store's worker thread, nothing else.
        stage.descriptors = descriptors(daemon.process.pid) + 1  # a probe may be under way
        yield stage


Leave = Callable[[Wire], None]


@pytest.fixture(params=["fin", "reset"])
def leave(request: pytest.FixtureRequest) -> Leave:
    """How the client goes."""
    return reset if request.param == "reset" else Wire.close


def test_during_accept(stage: Stage, leave: Leave) -> None:
    for _ in range(10):
        leave(Wire(stage.daemon.port))
    stage.is_clean()


def test_during_the_head(stage: Stage, leave: Leave) -> None:
    wire = Wire(stage.daemon.port)
    wire.send(b"GET /ws/generic/bot.acme HTTP/1.1\r\nHost: rel")
    leave(wire)
    stage.is_clean()


def test_during_the_body(stage: Stage, leave: Leave) -> None:
    wire = Wire(stage.daemon.port)
    wire.send(request("POST", "/v1/public/bot/start", KEY, "Content-Length: 100", body=b'{"tra'))
    leave(wire)
    stage.is_clean()


def test_during_the_answer_to_a_start(stage: Stage, leave: Leave) -> None:
    """The reservation was made; it lapses by itself, and its session can be stopped until then."""
    body = b'{"transport": "websocket"}'
    wire = Wire(stage.daemon.port)
    length = f"Content-Length: {len(body)}"
    wire.send(request("POST", "/v1/public/bot/start", KEY, length, body=body))
    leave(wire)
    stage.is_clean()


def test_while_it_waits_for_an_instance(stage: Stage, leave: Leave) -> None:
    daemon = stage.daemon
    with begin(daemon):
        token = token_for()
        wire = Wire(daemon.port)
        wire.send(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
        wait_until(lambda: len(live(daemon)) == 2, "the second waits")
        leave(wire)
        wait_until(lambda: len(live(daemon)) == 1, "its place in the line is given up")
    # The token was released with it.
    nothing_is_held(daemon)
    wait_until(lambda: not live(daemon), "the bot is free")
    raw_call(daemon, token).close()
    stage.is_clean()


def test_while_connecting_to_the_bot(stage: Stage, leave: Leave) -> None:
    number = 0 if leave is reset else 1  # one full bot each: no probe finds it ready again
    stage.full[number].fill()
    wire = Wire(stage.daemon.port)
    token = token_for(f"full{number}.acme")
    wire.send(upgrade(f"/ws/generic/full{number}.acme", f"Authorization: Bearer {token}"))
    leases = f"SELECT * FROM leases WHERE agent = 'full{number}'"
    wait_until(lambda: rows(stage.daemon, leases), "the daemon tries to connect")
    leave(wire)
    stage.is_clean()


def test_during_the_bots_handshake(stage: Stage, leave: Leave) -> None:
    wire = Wire(stage.daemon.port)
    token = token_for("silent.acme")
    wire.send(upgrade("/ws/generic/silent.acme", f"Authorization: Bearer {token}"))
    stage.silent.get(timeout=15)
    leave(wire)
    stage.is_clean()


def test_right_at_the_hand_over(stage: Stage, leave: Leave) -> None:
    """Whichever way the race goes: no session at all, or one that ended since its client went."""
    daemon = stage.daemon
    sessions = []
    for number in range(HAND_OVERS):
        started = daemon.start_when_free()
        sessions.append(started["sessionId"])
        mark = f"hand-over-{leave.__name__}-{number}"
        token = f"Authorization: Bearer {started['token']}"
        wire = Wire(daemon.port)
        wire.send(upgrade("/ws/generic/bot.acme", token, f"X-Request-Id: {mark}"))
        leave(wire)
        exchange_line(daemon, mark)  # it has been through all phases
        if daemon.session(sessions[-1])["state"] == "reserved":
            daemon.request("DELETE", f"/sessions/{sessions[-1]}", admin=True)
    causes = {daemon.wait_ended(session)["cause"] for session in sessions}
    assert causes <= {"client_gone", "client_left", "stopped"}
    stage.is_clean()


def test_a_bot_that_dies_at_the_hand_over(stage: Stage) -> None:
    """Its 101 is out, and then nothing: the call begins and ends."""
    daemon = stage.daemon
    with scripted_bot() as bot:
        bot.script = lambda talk: talk.sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + talk.accept_key() + b"\r\n\r\n"
        )
        folder = daemon.folder / "dying"
        folder.mkdir()
        with running_daemon(folder, [bot.url]) as dying:
            started = dying.start_when_free()
            wire = raw_call(dying, started["token"])
            assert wire.file.read(4) == b"\x88\x02\x03\xe8"  # Close 1000: the bot's FIN
            wire.close()
            assert dying.wait_ended(started["sessionId"])["cause"] == "bot_ended"
            nothing_is_held(dying)
