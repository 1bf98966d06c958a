"""Every live call of this daemon, whoever relays it: the pumps, or tasks of its own.

A session has one call, and perhaps side tunnels (`server.side_tunnels`).
"""

from __future__ import annotations

__all__ = ["Calls", "Frames"]

import heapq
from functools import partial

import trio

from relay.policy.interfaces import Log, Store
from relay.policy.sessions import SessionState
from relay.protocol.lifecycle import Event
from relay.pump.channel import Adopt, Live
from relay.server.frames_relay import FramesCall
from relay.server.looks import Seen
from relay.server.pumps import Pumps
from relay.server.secure import Stream, TlsStream, pass_answer
from relay.server.sessions import SessionKeeper
from relay.server.side_tunnels import Order, SideTunnels, is_side

ORDERS: dict[Order, Event] = {
    "stop": Event.STOP,
    "drain": Event.DRAIN,
    "session ended": Event.SESSION_ENDED,
}


class Frames:
    """The calls and side tunnels that are relayed here, message by message.

    Args:
        nursery: where they run; it outlives connections.
    """

    def __init__(self, keeper: SessionKeeper, log: Log, nursery: trio.Nursery) -> None:
        self._keeper = keeper
        self._log = log
        self._nursery = nursery
        self._calls: dict[str, FramesCall] = {}
        self._sessions: set[str] = set()
        self._bridges = 0

    def adopt(self, message: Adopt, client: Stream, bot: Stream) -> None:
        """Relay between two connections from now on, and close them at the end."""
        failed = partial(self._keeper.bot_failed, message.session)
        call = FramesCall(message, client, bot, failed)
        self._calls[message.tunnel] = call
        if is_side(message.tunnel, message.session):
            self._keeper.sides.carried(message.tunnel, message.session, self._tell)
        else:
            self._sessions.add(message.session)
        self._nursery.start_soon(self._carry, call, message.tunnel, message.session)

    async def _carry(self, call: FramesCall, tunnel: str, session: str) -> None:
        try:
            await call.run()
        except Exception as error:  # no call may take the daemon with it
            self._log.failure("bug", error, session_id=session)
        await self._keeper.tunnel_ended(call.report())
        # Only now: whoever waits for the last call waits for its record too.
        del self._calls[tunnel]
        self._sessions.discard(tunnel)

    def bridge(self, bot: TlsStream) -> trio.SocketStream:
        """A connection for a pump, on which there comes what a bot with TLS says."""
        ours, theirs = (trio.SocketStream(sock) for sock in trio.socket.socketpair())
        self._bridges += 1
        self._nursery.start_soon(self._cross, bot, ours)
        return theirs

    async def _cross(self, bot: TlsStream, ours: trio.SocketStream) -> None:
        try:
            await pass_answer(bot, ours)
        finally:
            self._bridges -= 1

    def count(self) -> int:
        """Live calls, side tunnels, and what goes over a bridge."""
        return len(self._calls) + self._bridges

    def sessions(self) -> set[str]:
        """Ids of the sessions whose calls are here."""
        return set(self._sessions)

    def carries(self, session_id: str) -> bool:
        """Whether a session is one of them."""
        return session_id in self._sessions

    def end(self, tunnel: str, why: Order) -> bool:
        """End a call or a side tunnel with the Close that fits; False if it is not here."""
        call = self._calls.get(tunnel)
        if call is not None:
            call.end(ORDERS[why])
        return call is not None

    async def _tell(self, tunnel: str, why: Order) -> None:
        self.end(tunnel, why)

    def live(self) -> list[Live]:
        """Every call as it stands."""
        return [call.live() for call in self._calls.values()]

    def end_all(self) -> None:
        """End them all with Close 1012."""
        for call in self._calls.values():
            call.end(Event.DRAIN)


class Calls:
    """What is asked of calls without caring how they are relayed."""

    def __init__(self, pumps: Pumps, frames: Frames, sides: SideTunnels) -> None:
        self._pumps = pumps
        self.frames = frames
        self.sides = sides

    def sessions(self) -> set[str]:
        """Ids of the sessions whose calls this daemon carries: one each."""
        return self._pumps.sessions() | self.frames.sessions()

    async def look(self, most: int) -> tuple[list[tuple[int, str, Seen]], list[Live]]:
        """How every pump stands, and `most` live tunnels, the quietest first."""
        pumps = await self._pumps.look(most)
        calls = [*self.frames.live(), *(call for _, _, seen in pumps for call in seen.calls)]
        return pumps, heapq.nlargest(most, calls, key=lambda call: call.from_client.quiet)

    def any(self) -> bool:
        """Whether a call or a side tunnel is left."""
        return bool(self.sessions() or self.sides.count())

    async def end(self, session_id: str, why: Order) -> bool:
        """End a session's call, and its side tunnels, with the Close that fits.

        Returns:
            False if its call is not here.
        """
        await self.sides.end(session_id, why)
        return self.frames.end(session_id, why) or await self._pumps.end(session_id, why)

    async def end_strays(self, store: Store) -> None:
        """End side tunnels of sessions that have ended without a word to this daemon.

        Another daemon may have held the session, or this one's order may have met a
        channel to a pump that was just being made again.

        Raises:
            StoreError: it can't be known which.
        """
        for session_id in self.sides.sessions():
            if self._pumps.carries(session_id) or self.frames.carries(session_id):
                continue
            session = await store.get(session_id)
            if session is None or session.state is not SessionState.ACTIVE:
                await self.sides.end(session_id, "session ended")

    async def end_all(self) -> None:
        """End every call and side tunnel with Close 1012."""
        self.frames.end_all()
        await self._pumps.end_all()
