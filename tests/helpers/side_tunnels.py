"""Sessions of both kinds on scripted bots, and WebSockets through the Session API beside them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.sync.client import ClientConnection

from tests.helpers.daemon import PUBLIC_KEY, Daemon, wait_until
from tests.helpers.ends import Ends, begin
from tests.helpers.launched import start_http
from tests.helpers.scripted_bot import Conversation
from tests.helpers.wire import call, echoes


@dataclass
class SideBot:
    """A script for `ScriptedBot`: a WebSocket that echoes on every path, and a held `POST /bot`.

    It notes per path how each WebSocket ended for it.
    """

    paths: dict[str, Ends] = field(default_factory=dict)
    held: dict[str, socket.socket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ends(self, path: str) -> Ends:
        with self._lock:
            return self.paths.setdefault(path, Ends())

    def __call__(self, talk: Conversation) -> None:
        if talk.target == "/bot":
            self.held[talk.field("x-daily-session-id").decode()] = talk.sock
            talk.wait_closed()
        else:
            self.ends(talk.target.partition("?")[0])(talk)

    def finish(self, session: str) -> None:
        """Answer the `POST /bot` of a session."""
        self.held[session].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@dataclass
class Held:
    """An active session: over HTTP, or the call of a client."""

    daemon: Daemon
    agent: str
    bot: SideBot
    id: str
    ws: ClientConnection | None

    def path(self, rest: str = "/watch") -> str:
        return f"/v1/public/{self.agent}/sessions/{self.id}{rest}"

    def side(self, rest: str = "/watch", **options: Any) -> ClientConnection:
        """A side tunnel that has echoed once."""
        ws = call(self.daemon, self.path(rest), PUBLIC_KEY, **options)
        ws.__enter__()  # whoever asked for it closes it, or the other side does
        assert echoes(ws)
        return ws

    def goes_on(self) -> bool:
        """Whether a bot holds it, and its client, if any, hears it."""
        active: bool = self.daemon.session(self.id)["state"] == "active"
        return active and (self.ws is None or echoes(self.ws))

    def end(self) -> None:
        """End it as its client or its bot does, and wait for its record."""
        if self.ws is None:
            self.bot.finish(self.id)
        else:
            self.ws.close()
        self.daemon.wait_ended(self.id)


def over_websocket(daemon: Daemon, bot: SideBot, agent: str = "bot") -> Held:
    began = begin(daemon, agent)
    return Held(daemon, agent, bot, began.id, began.ws)


def over_http(daemon: Daemon, bot: SideBot, agent: str = "bot") -> Held:
    session = start_http(daemon, agent)
    wait_until(lambda: daemon.session(session)["state"] == "active", "it is active")
    wait_until(lambda: session in bot.held, "its bot has the request")
    return Held(daemon, agent, bot, session, None)


Begin = Callable[[Daemon, SideBot, str], Held]


def side_ends(daemon: Daemon, session: str, count: int = 1) -> list[dict[str, Any]]:
    """The log lines of a session's side tunnels that have ended, once there are so many."""

    def lines() -> list[dict[str, Any]] | None:
        found = [each for each in daemon.logs() if each["event"] == "side_tunnel_ended"]
        found = [each for each in found if each["session_id"] == session]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = wait_until(lines, f"{count} side tunnels have ended")
    assert len(found) == count, found
    return found


def carried(daemon: Daemon) -> tuple[int, int]:
    """Live calls and side tunnels, as /readyz counts them."""
    answer = daemon.request("GET", "/readyz", admin=True).json()
    return answer["calls"], answer["side_tunnels"]
