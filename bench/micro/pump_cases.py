"""Cases of the pump: turns that only forward, with nobody who feeds or drains.

Two tunnels make a ring: what one writes to its bot arrives at the other as from its
client, and the reverse. A message in a ring goes round for ever, one hop per turn, so a
turn forwards exactly one message for each ring, and no part of the time is a peer's.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import repeat

from bench.micro import samples
from bench.micro.case import Case, Loop
from relay.pump.channel import Adopt
from relay.pump.pump import Pump
from relay.pump.tunnel import Tunnel

__all__ = ["PUMP", "Rings"]


class Rings:
    """A loop of turns of one pump with a message in each of `count` rings."""

    def __init__(self, pump: Pump, count: int) -> None:
        self._turn = partial(pump.turn, 0)
        self.tunnels = [each for number in range(count) for each in _ring(pump, str(number))]

    def __call__(self, count: int) -> int:
        before, turn = self.forwarded(), self._turn
        for _ in repeat(None, count):
            turn()
        # Counted, not taken for granted: what the kernel delivers late is no message.
        forwarded = self.forwarded() - before
        if not forwarded:
            raise RuntimeError("the pump forwarded nothing")
        return forwarded

    def forwarded(self) -> int:
        """Messages passed on by all tunnels since their beginning."""
        return sum(tunnel.from_client.tracker.messages for tunnel in self.tunnels)


def _ring(pump: Pump, name: str) -> list[Tunnel]:
    """Two tunnels from one to the other and back, with a message on its way."""
    (first_client, second_bot), (first_bot, second_client) = _tcp_pair(), _tcp_pair()
    pump.adopt(Adopt(f"{name} a", name), first_client, first_bot)
    message = samples.audio_frame()
    pump.adopt(Adopt(f"{name} b", name, from_client=message), second_client, second_bot)
    return [pump.tunnels[f"{name} {which}"] for which in "ab"]


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection over loopback, without Nagle's delay like the relay's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _pump(rings: int) -> Callable[[ExitStack], Loop]:
    def setup(stack: ExitStack) -> Loop:
        pump = Pump(time.monotonic)
        stack.callback(pump.close)
        return Rings(pump, rings)

    return setup


PUMP = tuple(
    Case(
        f"pump-{rings}",
        "message",
        f"Pump.turn with {2 * rings} tunnels over TCP pairs, {rings} of them ready: "
        f"{samples.AUDIO} bytes received and sent; without sleeping",
        _pump(rings),
        counted=10_000 // rings,
    )
    for rings in (1, 64)
)
