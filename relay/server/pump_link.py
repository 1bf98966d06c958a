"""One connection to a pump, and what is known of the tunnels behind it."""

from __future__ import annotations

__all__ = ["Link", "PumpSource", "Tunnels", "sessions_of"]

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import trio

from relay.pump import channel
from relay.pump.channel import Adopt, Finished, Hold, Look
from relay.server.looks import Looks, Seen
from relay.server.pump_offers import HAND_OVER_TIMEOUT, Offer
from relay.server.side_tunnels import is_side

# A pump takes a message in microseconds; one that does not for so long is stuck.
SEND_TIMEOUT = 5.0

# Tunnels by name, each with its session.
Tunnels = dict[str, str]


def sessions_of(tunnels: Tunnels) -> set[str]:
    """The sessions that these tunnels carry, not those of side tunnels."""
    return {session for tunnel, session in tunnels.items() if not is_side(tunnel, session)}


class PumpSource(Protocol):
    """Where pumps come from; `daemon` wires it."""

    async def connect(self, index: int) -> socket.socket:
        """A channel to a pump, started if there is none; raises ConfigError."""

    def living(self) -> set[int]:
        """Pumps that run already, perhaps more than are wanted now."""

    def spooled(self) -> Iterable[Finished]:
        """What pumps that have exited left to be recorded; forgotten once it was given."""


@dataclass(slots=True)
class Link:
    """A connection to a pump, and the tunnels that the pump carries.

    Attributes:
        orphans: tunnels of the link before, until this one has told what it knows.
        understands: its pump speaks this version's messages; another one only finishes
            what it has.
        capacity: tunnels that its pump takes at most.
        full_until: it has refused one; by trio's clock.
        offers: tunnels that it has not answered for.
        leaving: it has been told to quit, though it was empty.
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
    capacity: int = 0
    full_until: float = 0.0
    offers: dict[str, Offer] = field(default_factory=dict)
    leaving: bool = False
    looks: Looks = field(default_factory=Looks)

    @property
    def full(self) -> bool:
        """It has no room for a call, as far as is known."""
        refused = trio.current_time() < self.full_until
        return refused or self.leaving or len(self.tunnels) >= self.capacity

    @property
    def takes_calls(self) -> bool:
        """Whether its pump can be given some."""
        return self.ready.is_set() and self.understands and not self.leaving

    async def hear(self) -> channel.ToControl | None:
        """What the pump says next; None when the channel has ended."""
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            try:
                payload, _fds = channel.receive(self.sock)
                return channel.decode_to_control(payload) if payload else None
            except BlockingIOError:
                continue
            except ConnectionResetError:
                # The pump died with messages of ours unread; its own come behind this.
                continue
            except (OSError, msgspec.DecodeError):
                return None

    def forget(self, tunnel: str) -> None:
        """A tunnel has ended."""
        self.tunnels.pop(tunnel, None)
        self.orphans.pop(tunnel, None)

    async def look(self, most: int) -> Seen:
        """How the pump stands, with `most` of its tunnels."""
        if not (self.ready.is_set() and self.understands):
            return Seen()
        return await self.looks.look(most, lambda most: self.send(Look(most)))

    async def offer(self, message: Adopt | Hold, fds: tuple[int, ...]) -> str:
        """Give it a call; why it has not taken that, "" if it has."""
        offer = self.offers[message.tunnel] = Offer()
        cause = await self._post(message, fds, HAND_OVER_TIMEOUT) or await offer.outcome()
        self.offers.pop(message.tunnel, None)
        if cause:
            self.tunnels.pop(message.tunnel, None)
        return cause

    def give_up_offers(self) -> None:
        """The link is gone; nothing was written to those, so another pump may have them.

        Not what was taken just before: its caller has perhaps had the first bytes.
        """
        for tunnel, offer in self.offers.items():
            if not offer.answered.is_set():
                self.tunnels.pop(tunnel, None)
                offer.answer("no_pump")

    async def send(self, message: channel.ToPump) -> bool:
        """Send whole; False when the pump is gone, and its tunnels with it, or stuck."""
        return not await self._post(message, (), SEND_TIMEOUT)

    async def _post(self, message: channel.ToPump, fds: tuple[int, ...], timeout: float) -> str:
        """Send whole within `timeout` seconds; why that can't be done, "" when it was.

        `no_pump`: the pump is gone. `pump_full`: it takes nothing.
        """
        with trio.move_on_after(timeout):
            async with self.writing:
                while True:
                    try:
                        channel.send(self.sock, message, fds)
                        return ""
                    except BlockingIOError:
                        pass
                    except OSError as error:
                        # Too many descriptors are on their way to pumps that do not take them.
                        return "pump_full" if error.errno == errno.ETOOMANYREFS else "no_pump"
                    try:
                        await trio.lowlevel.wait_writable(self.sock)
                    except (OSError, trio.ClosedResourceError):
                        return "no_pump"
        return "pump_full"
