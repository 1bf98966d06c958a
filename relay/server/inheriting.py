"""The new process of a restart in place: it takes what the old one still brings.

The old process is there until it has finished what only it can: exchanges that a bot has
seen, calls that it relays itself. Its sessions count as live until then.
"""

from __future__ import annotations

__all__ = ["Inheritance"]

import os
import socket
from collections.abc import Mapping

import msgspec
import trio

from relay.errors import Refusal, StoreError
from relay.policy.admission import StartRequest
from relay.policy.sessions import SessionEnd
from relay.server.exchange import Front
from relay.server.http_start import start_over_http
from relay.server.listener import Listener
from relay.server.settling import RETRY_STORE
from relay.server.side_tunnels import is_side
from relay.server.succession import (
    Begin,
    Carried,
    Carry,
    Client,
    Role,
    Serving,
    Settle,
    Talk,
    TalkEnded,
    ToNew,
    Wait,
)


class Inheritance:
    """What the old process has and brings.

    Attributes:
        kept: sessions that it still attached, or relayed itself, when this process began.
        ended: it is gone.
    """

    def __init__(self, talk: Talk, kept: set[str]) -> None:
        self._talk = talk
        self._carrying: set[str] = set()
        self.kept = kept
        self.ended = trio.Event()

    async def run(self, front: Front, listeners: Mapping[Role, Listener]) -> None:
        """Take what comes until the old process is gone, and clear up after it."""
        front.alone = self.ended
        try:
            await self._talk.send(Serving())
            while True:
                message, fds = await self._talk.from_old()
                self._take(front, listeners, message, fds)
        except TalkEnded:
            pass
        finally:
            self._talk.close()
        await self._clear_up(front)
        self.ended.set()

    async def _clear_up(self, front: Front) -> None:
        """Nobody has these sessions any more but who has been given them."""
        self.kept.clear()
        while front.successor is None:  # else the next process does it, after this one
            try:
                await front.sessions.reconcile(front.calls.sessions() | self._carrying)
                return
            except StoreError:
                await trio.sleep(RETRY_STORE)

    def _take(
        self, front: Front, listeners: Mapping[Role, Listener], message: ToNew, fds: list[int]
    ) -> None:
        start = front.background.start_soon
        if isinstance(message, Client) and len(fds) == 1:
            listeners[message.role].take(_stream(fds[0]), message)
        elif isinstance(message, Carry) and len(fds) == 2:
            self._carrying.add(message.adopt.session)
            start(self._carry, front, message, fds)
        elif isinstance(message, Wait) and len(fds) == 1:
            self._carrying.add(message.hold.session)
            start(self._wait, front, message, fds[0])
        elif isinstance(message, Begin) and len(fds) == 1:
            start(self._begin, front, message, fds[0])
        elif isinstance(message, Settle):
            agent = front.catalog.agents.get(message.agent)
            front.sessions.settling.begin(
                agent, message.instance, message.session, deaf=message.deaf
            )
        else:
            for fd in fds:
                os.close(fd)

    async def _carry(self, front: Front, message: Carry, fds: list[int]) -> None:
        adopt, (client, bot) = message.adopt, fds
        try:
            if front.successor is not None:
                await front.successor.adopt(adopt, client, bot, frames=message.frames)
            elif message.frames:
                front.calls.frames.adopt(adopt, _stream(os.dup(client)), _stream(os.dup(bot)))
            else:
                await front.pumps.adopt(adopt, client, bot)
            taken = True
        except Refusal:
            taken = False
        self._carried(adopt.session, *fds)
        await self._answer(front, adopt.tunnel, adopt.session, taken=taken)

    async def _wait(self, front: Front, message: Wait, bot: int) -> None:
        hold = message.hold
        try:
            await (front.successor or front.pumps).hold(hold, bot)
            taken = True
        except Refusal:
            taken = False
        self._carried(hold.session, bot)
        await self._answer(front, hold.tunnel, hold.session, taken=taken)

    def _carried(self, session: str, *fds: int) -> None:
        self._carrying.discard(session)
        self.kept.discard(session)
        for fd in fds:
            os.close(fd)

    async def _answer(self, front: Front, tunnel: str, session: str, *, taken: bool) -> None:
        """Say what became of a call."""
        try:
            await self._talk.send(Carried(tunnel, taken))
        except TalkEnded:
            if not taken and not is_side(tunnel, session):
                await front.sessions.end(session, SessionEnd("pump_died"))

    async def _begin(self, front: Front, message: Begin, file: int) -> None:
        session = message.session
        with open(file, "rb", closefd=True) as stored:
            stored.seek(0)
            request = msgspec.msgpack.decode(stored.read(), type=StartRequest)
        agent = front.catalog.agents.get(session.agent)
        if agent is None:
            await front.sessions.end(session.id, SessionEnd("no_instance"))
            return
        await start_over_http(front, agent, session, request)


def _stream(fd: int) -> trio.SocketStream:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
