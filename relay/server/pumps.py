"""The control process's side of the pumps: hand over, stop, hear what ended, survive a death."""

from __future__ import annotations

__all__ = ["Connect", "Pumps"]

import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import trio

from relay.errors import Refusal
from relay.policy.interfaces import Log
from relay.policy.sessions import SessionEnd
from relay.pump import channel
from relay.pump.channel import Adopt, Finished, Live
from relay.server.sessions import SessionKeeper

# A pump takes a message in microseconds; one that does not for so long is stuck.
HANDOVER_TIMEOUT = 5.0
# Between a pump's death and the start of the next one, doubled up to the second
# number while pumps die young.
RESTART_WAIT = 0.05
RESTART_WAIT_MOST = 5.0
# A pump that lived so long did not die of its start.
LIVED = 10.0
# How long a new connection to a pump may take to tell what it holds.
ASK_TIMEOUT = 5.0

Connect = Callable[[int], Awaitable[socket.socket]]


@dataclass(slots=True)
class Link:
    """A pump: its channel, and the sessions it carries."""

    index: int
    sock: socket.socket
    since: float
    sessions: set[str] = field(default_factory=set)
    ready: trio.Event = field(default_factory=trio.Event)
    writing: trio.Lock = field(default_factory=trio.Lock)


class Pumps:
    """Keeps one link per pump.

    Args:
        count: how many pumps.
        connect: opens the channel to a pump by its index, starting the process if there
            is none; `daemon` wires it.
        spooled: what pumps that have exited left to be recorded.
    """

    def __init__(
        self,
        count: int,
        connect: Connect,
        spooled: Callable[[], Iterable[Finished]],
        keeper: SessionKeeper,
        log: Log,
    ) -> None:
        self._count = count
        self._connect = connect
        self._spooled = spooled
        self._keeper = keeper
        self._log = log
        self._links: dict[int, Link] = {}
        self._seen: set[str] = set()  # sessions found alive while reconciling
        self._quitting = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect to every pump, reconcile, then serve until cancelled."""
        async with trio.open_nursery() as nursery:
            for report in self._spooled():
                await self._keeper.tunnel_ended(report)
            for index in range(self._count):
                await nursery.start(self._keep, index)
            await self._keeper.reconcile(self.sessions())
            task_status.started()

    def sessions(self) -> set[str]:
        """Ids of the sessions that have a tunnel."""
        return {name for link in self._links.values() for name in link.sessions}

    def count(self) -> int:
        """Live tunnels."""
        return sum(len(link.sessions) for link in self._links.values())

    def ready(self) -> bool:
        """Whether a pump can take a call."""
        return any(link.ready.is_set() for link in self._links.values())

    async def adopt(self, message: Adopt, client: int, bot: int) -> None:
        """Give two descriptors to the pump with the fewest tunnels; the caller closes its own.

        Raises:
            Refusal: 503, no pump took it.
        """
        links = [link for link in self._links.values() if link.ready.is_set()]
        if not links:
            raise _no_pump()
        link = min(links, key=lambda each: len(each.sessions))
        link.sessions.add(message.session)
        try:
            with trio.fail_after(HANDOVER_TIMEOUT):
                await self._send(link, message, (client, bot))
        except (OSError, trio.TooSlowError):
            link.sessions.discard(message.session)
            raise _no_pump() from None

    async def end(self, session_id: str, why: Literal["stop", "drain"]) -> bool:
        """End a session's tunnel with the Close that fits; False if there is none here."""
        for link in self._links.values():
            if session_id in link.sessions:
                try:
                    await self._send(link, channel.End(session_id, why))
                except OSError:
                    return False
                return True
        return False

    async def end_all(self) -> None:
        """End every tunnel with Close 1012."""
        await self._tell_all(channel.EndAll())

    async def quit(self) -> None:
        """Let the pumps exit once they are empty."""
        self._quitting = True
        await self._tell_all(channel.Quit())

    async def _tell_all(self, message: channel.ToPump) -> None:
        for link in list(self._links.values()):
            try:
                await self._send(link, message)
            except OSError:
                pass  # that pump is gone, and its tunnels with it

    async def _send(self, link: Link, message: channel.ToPump, fds: tuple[int, ...] = ()) -> None:
        async with link.writing:
            while True:
                try:
                    channel.send(link.sock, message, fds)
                    return
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(link.sock)

    # One pump, life after life.

    async def _keep(self, index: int, *, task_status: trio.TaskStatus[None]) -> None:
        wait = RESTART_WAIT
        while True:
            link = Link(index, await self._connect(index), trio.current_time())
            self._links[index] = link
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, link, task_status)
                await self._hear(link)
                nursery.cancel_scope.cancel()
            del self._links[index]
            link.sock.close()
            if self._quitting:
                return
            self._log.warning("pump_died", pump=index, sessions=len(link.sessions))
            for session_id in link.sessions:
                await self._keeper.end(session_id, SessionEnd("pump_died"))
            wait = RESTART_WAIT if trio.current_time() - link.since > LIVED else wait * 2
            await trio.sleep(min(wait, RESTART_WAIT_MOST))

    async def _ask(self, link: Link, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self._send(link, channel.Ask())
        except OSError:
            return  # it died at once; `_hear` sees it too
        with trio.move_on_after(ASK_TIMEOUT):
            await link.ready.wait()
        try:
            task_status.started()
        except RuntimeError:
            pass  # a later life of this pump

    async def _hear(self, link: Link) -> None:
        while True:
            await trio.lowlevel.wait_readable(link.sock)
            try:
                payload, _fds = channel.receive(link.sock)
                message = channel.decode_to_control(payload) if payload else None
            except BlockingIOError:
                continue
            except (OSError, msgspec.DecodeError):
                return
            if message is None:
                return
            await self._take(link, message)

    async def _take(self, link: Link, message: channel.ToControl) -> None:
        if isinstance(message, Live):
            link.sessions.add(message.session)
        elif isinstance(message, Finished):
            link.sessions.discard(message.session)
            await self._keeper.tunnel_ended(message)
            await self._send(link, channel.Recorded([message.tunnel]))
        else:
            if message.lost:
                self._log.warning("reports_lost", pump=link.index, count=message.lost)
            link.ready.set()


def _no_pump() -> Refusal:
    return Refusal(
        503,
        "no relay process can take the call at the moment; try again",
        cause="no_pump",
        headers=((b"retry-after", b"1"),),
    )
