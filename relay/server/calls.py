"""Every live call of this daemon, whoever relays it: the pumps, or tasks of its own."""

from __future__ import annotations

__all__ = ["Calls", "Frames"]

from functools import partial
from typing import Literal

import trio

from relay.policy.interfaces import Log
from relay.protocol.lifecycle import Event
from relay.pump.channel import Adopt
from relay.server.frames_relay import FramesCall
from relay.server.pumps import Pumps
from relay.server.sessions import SessionKeeper

ORDERS = {"stop": Event.STOP, "drain": Event.DRAIN}


class Frames:
    """The calls that are relayed here, message by message.

    Args:
        nursery: where they run; it outlives connections.
    """

    def __init__(self, keeper: SessionKeeper, log: Log, nursery: trio.Nursery) -> None:
        self._keeper = keeper
        self._log = log
        self._nursery = nursery
        self._calls: dict[str, FramesCall] = {}

    def adopt(self, message: Adopt, client: trio.SocketStream, bot: trio.SocketStream) -> None:
        """Relay between two connections from now on, and close them at the end."""
        session = message.session
        failed = partial(self._keeper.bot_failed, session)
        self._calls[session] = FramesCall(message, client, bot, failed)
        self._nursery.start_soon(self._carry, session)

    async def _carry(self, session: str) -> None:
        call = self._calls[session]
        try:
            await call.run()
        except Exception as error:  # no call may take the daemon with it
            self._log.failure("bug", error, session_id=session)
        await self._keeper.tunnel_ended(call.report())
        # Only now: whoever waits for the last call waits for its record too.
        del self._calls[session]

    def count(self) -> int:
        """Live calls."""
        return len(self._calls)

    def end(self, session_id: str, why: Literal["stop", "drain"]) -> bool:
        """End a session's call with the Close that fits; False if there is none here."""
        call = self._calls.get(session_id)
        if call is not None:
            call.end(ORDERS[why])
        return call is not None

    def end_all(self) -> None:
        """End every call with Close 1012."""
        for call in self._calls.values():
            call.end(Event.DRAIN)


class Calls:
    """What is asked of calls without caring how they are relayed."""

    def __init__(self, pumps: Pumps, frames: Frames) -> None:
        self._pumps = pumps
        self.frames = frames

    def count(self) -> int:
        """Live calls."""
        return self._pumps.count() + self.frames.count()

    async def end(self, session_id: str, why: Literal["stop", "drain"]) -> bool:
        """End a session's call with the Close that fits; False if there is none here."""
        return self.frames.end(session_id, why) or await self._pumps.end(session_id, why)

    async def end_all(self) -> None:
        """End every call with Close 1012."""
        self.frames.end_all()
        await self._pumps.end_all()
