"""How calls end, seen from everywhere: the client, the bot, the store, the processes."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from tests.helpers.daemon import PATIENCE, Bot, Daemon, start_daemon, wait_until
from tests.helpers.scripted_bot import RECEIVE, Conversation
from tests.helpers.wire import Wire, call, echoes, upgrade

# What a caller sees when TCP ends without a Close (RFC 6455 section 7.1.5).
ABNORMAL = (1006, "")
LINGER_RESET = struct.pack("ii", 1, 0)


@dataclass
class Began:
    """A call that goes on, until it is ended or the block is left."""

    id: str
    token: str
    ws: ClientConnection

    def __enter__(self) -> Began:
        return self

    def __exit__(self, *_: object) -> None:
        self.ws.close()


def begin(daemon: Daemon, agent: str = "bot") -> Began:
    """Start a session, connect, and hear the bot once."""
    started = daemon.start_when_free(agent)
    ws = call(daemon, f"/ws/generic/{agent}.acme", started["token"])
    ws.__enter__()  # `Began` or the other side closes it
    assert echoes(ws)
    return Began(started["sessionId"], started["token"], ws)


def raw_call(daemon: Daemon, token: str, agent: str = "bot") -> Wire:
    """A call on a bare socket, the 101 read."""
    wire = Wire(daemon.port, tls=daemon.tls)
    wire.send(upgrade(f"/ws/generic/{agent}.acme", f"Authorization: Bearer {token}"))
    assert wire.answer().status == 101
    return wire


def reset(wire: Wire) -> None:
    """Leave with a reset, as a client does whose machine forgets the connection."""
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    wire.close()


def close_seen(ws: ClientConnection) -> tuple[int, str]:
    """Wait for the end of a call; the Close that the client got, or `ABNORMAL`."""
    try:
        while True:
            ws.recv(PATIENCE)
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else ABNORMAL


@dataclass
class Ends:
    """A script for `ScriptedBot`: echo texts, and note how each call ends for the bot."""

    seen: queue.Queue[tuple[int, str]] = field(default_factory=queue.Queue)

    def next(self) -> tuple[int, str]:
        return self.seen.get(timeout=PATIENCE)

    def __call__(self, talk: Conversation) -> None:
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = talk.accept_key().decode()
        talk.sock.sendall(f"{head}Sec-WebSocket-Accept: {key}\r\n\r\n".encode())
        try:
            self.seen.put(self._echo(talk.sock))
        except OSError:
            self.seen.put(ABNORMAL)

    @staticmethod
    def _echo(sock: socket.socket) -> tuple[int, str]:
        ws = Connection(ConnectionType.SERVER)
        while data := sock.recv(RECEIVE):
            ws.receive_data(data)
            for event in ws.events():
                if isinstance(event, TextMessage):
                    sock.sendall(ws.send(TextMessage(event.data, event.frame_finished)))
                elif isinstance(event, CloseConnection):
                    sock.sendall(ws.send(event.response()))
                    return event.code, event.reason or ""
        return ABNORMAL


# The processes.


def kill_control(daemon: Daemon) -> None:
    """SIGKILL of the control process alone."""
    daemon.process.popen.kill()
    daemon.process.popen.wait(PATIENCE)


def restart(daemon: Daemon, config: str | None = None) -> Daemon:
    """A control process on the same files, perhaps with another configuration."""
    text = config if config is not None else daemon.config.read_text()
    return start_daemon(daemon.folder, text, f"relay-{len(list(daemon.folder.glob('*.err')))}")


def kill_pump(daemon: Daemon) -> int:
    """SIGKILL of the only pump; its pid."""
    (pid,) = daemon.pump_pids()
    os.kill(pid, signal.SIGKILL)
    return pid


def signal_daemon(daemon: Daemon, signum: int) -> None:
    daemon.process.popen.send_signal(signum)


def ends_cleanly(daemon: Daemon, timeout: float = PATIENCE) -> None:
    """The daemon leaves by itself with 0, with its pumps, and nothing ugly on stderr."""
    assert daemon.process.popen.wait(timeout) == 0, daemon.process.errors()
    assert daemon.pump_pids() == []
    is_quiet(daemon)


def is_quiet(daemon: Daemon) -> None:
    """No traceback, no Python warning, no bug: every line on stderr is a log line."""
    for text in daemon.process.errors().splitlines():
        assert text.startswith('{"'), daemon.process.errors()
    lines = daemon.logs()
    assert lines, "nothing was logged"
    for line in lines:
        assert line["event"] != "bug", line


def zombies_of(pid: int) -> list[int]:
    """Children of a process that have died and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == pid:
            found.append(int(stat.parent.name))
    return found


def sleeps(pid: int) -> bool:
    """Whether a process of one thread waits in the kernel."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# The store and the bot.


def rows(daemon: Daemon, query: str) -> list[Any]:
    """What a query finds in the store's file."""
    with closing(sqlite3.connect(f"file:{daemon.folder}/relay.db?mode=ro", uri=True)) as store:
        return store.execute(query).fetchall()


def cause_of(daemon: Daemon, session_id: str) -> str | None:
    """The recorded cause, without any daemon's help."""
    causes: dict[str, str | None] = dict(rows(daemon, "SELECT id, cause FROM sessions"))
    return causes[session_id]


def nothing_is_held(daemon: Daemon) -> None:
    """No lease, no claim that was not spent, no session in anybody's hands."""

    def held() -> dict[str, list[Any]]:
        found = {
            "leases": rows(daemon, "SELECT * FROM leases"),
            "claims": rows(daemon, "SELECT * FROM tokens WHERE spent = 0"),
            "sessions": rows(
                daemon, "SELECT id, state FROM sessions WHERE state IN ('waiting', 'active')"
            ),
        }
        return {name: value for name, value in found.items() if value}

    try:
        wait_until(lambda: not held(), "nothing is held")
    except AssertionError:
        raise AssertionError(f"still held: {held()}") from None


def is_idle(bot: Bot) -> bool:
    return bool(bot.get("/status")["status"] == "idle")


def wait_idle(bot: Bot) -> None:
    wait_until(lambda: is_idle(bot), "the bot is idle")


def readiness(daemon: Daemon) -> tuple[int, list[str]]:
    """Status and reasons of /readyz."""
    answer = daemon.request("GET", "/readyz", admin=True)
    return answer.status, answer.json()["reasons"]


def wait_ready(daemon: Daemon) -> None:
    wait_until(lambda: readiness(daemon)[0] == 200, "the daemon is ready")
