"""One connection to a pump, and what is known of the tunnels behind it."""

from __future__ import annotations

__all__ = ["Link", "Tunnels", "sessions_of"]

import socket
from dataclasses import dataclass, field

import trio

from relay.pump import channel
from relay.pump.channel import Look
from relay.server.looks import Looks, Seen
from relay.server.side_tunnels import is_side

# A pump takes a message in microseconds; one that does not for so long is stuck.
SEND_TIMEOUT = 5.0

# Tunnels by name, each with its session.
Tunnels = dict[str, str]


def sessions_of(tunnels: Tunnels) -> set[str]:
    """The sessions that these tunnels carry, not those of side tunnels."""
    return {session for tunnel, session in tunnels.items() if not is_side(tunnel, session)}


@dataclass(slots=True)
class Link:
    """A connection to a pump, and the tunnels that the pump carries.

    Attributes:
        orphans: tunnels of the link before, until this one has told what it knows.
        understands: its pump speaks this version's messages; another one only finishes
            what it has.
        looks: what its pump said of itself and its tunnels.
    """

    index: int
    sock: socket.socket
    since: float
    orphans: Tunnels
    tunnels: Tunnels = field(default_factory=dict)
    ready: trio.Event = field(default_factory=trio.Event)
    writing: trio.Lock = field(default_factory=trio.Lock)
    understands: bool = True
    looks: Looks = field(default_factory=Looks)

    def forget(self, tunnel: str) -> None:
        """A tunnel has ended."""
        self.tunnels.pop(tunnel, None)
        self.orphans.pop(tunnel, None)

    async def look(self, most: int) -> Seen:
        """How the pump stands, with `most` of its tunnels."""
        if not (self.ready.is_set() and self.understands):
            return Seen()
        return await self.looks.look(most, lambda most: self.send(Look(most)))

    async def send(self, message: channel.ToPump, fds: tuple[int, ...] = ()) -> bool:
        """Send whole; False when the pump is gone, and its tunnels with it, or stuck."""
        with trio.move_on_after(SEND_TIMEOUT):
            async with self.writing:
                while True:
                    try:
                        channel.send(self.sock, message, fds)
                        return True
                    except BlockingIOError:
                        pass
                    except OSError:
                        return False
                    try:
                        await trio.lowlevel.wait_writable(self.sock)
                    except (OSError, trio.ClosedResourceError):
                        return False
        return False
