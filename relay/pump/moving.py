"""A live tunnel as a plain value, so that another pump can go on with it.

Law: between `export` and `adopt_moved` not a byte is read or written, so what the second
pump passes on is exactly what the first one would have. A tunnel that has begun to end
stays where it is: it is over in seconds.
"""

from __future__ import annotations

__all__ = ["Moved", "MovedTransfer", "adopt_moved", "export"]

import socket

import msgspec

from relay.pump.channel import NOTABLE_GAP, Adopt
from relay.pump.pump import Pump
from relay.pump.transfer import Transfer
from relay.pump.tunnel import Tunnel


class MovedTransfer(msgspec.Struct, frozen=True):
    """One direction: what is held for its sink, its tracker, its figures; times in seconds.

    Attributes:
        carried: bytes passed on.
        silent_for: since its last read.
        held_for: since it began to hold what it holds.
    """

    tracker: dict[str, bool | int | bytes]
    held: bytes
    silent_for: float
    held_for: float
    carried: int
    largest_gap: float
    gaps: list[int]
    held_time: float
    longest_hold: float


class Moved(msgspec.Struct, frozen=True):
    """A tunnel between two pumps. `adopt` is as it was given to the first one, without the
    bytes that came with it.

    Attributes:
        age: seconds since the first adoption.
        inactive_for: seconds without a data message, as far as was known.
    """

    adopt: Adopt
    age: float
    inactive_for: float
    from_client: MovedTransfer
    from_bot: MovedTransfer


def export(pump: Pump, name: str) -> tuple[Moved, socket.socket, socket.socket] | None:
    """Take a tunnel out of a pump: its value, the client's and the bot's socket.

    Returns:
        None for one that is not there or has begun to end.
    """
    tunnel = pump.tunnels.get(name)
    if tunnel is None or name in pump.closing:
        return None
    now = pump.now()
    moved = Moved(
        adopt=tunnel.adopt,
        age=now - tunnel.started,
        inactive_for=tunnel.idle_for(now),
        from_client=_of(tunnel.from_client, now),
        from_bot=_of(tunnel.from_bot, now),
    )
    sockets = (tunnel.downstream.sock, tunnel.upstream.sock)
    pump.forget(tunnel)
    return moved, *sockets


def adopt_moved(
    pump: Pump, moved: Moved, downstream: socket.socket, upstream: socket.socket
) -> None:
    """Go on with a tunnel that another pump has exported.

    Raises:
        ValueError: a tunnel of this name exists; the sockets stay the caller's.
    """

    def restore(tunnel: Tunnel, now: float) -> None:
        _restore(tunnel.from_client, moved.from_client, now)
        _restore(tunnel.from_bot, moved.from_bot, now)
        tunnel.shift(moved.age, moved.inactive_for, now)

    pump.adopt(moved.adopt, downstream, upstream, restore)


def _of(transfer: Transfer, now: float) -> MovedTransfer:
    return MovedTransfer(
        tracker=transfer.tracker.export(),
        held=transfer.held,
        silent_for=now - transfer.last_read,
        held_for=now - transfer.held_since if transfer.held else 0.0,
        carried=transfer.bytes,
        largest_gap=transfer.largest_gap,
        gaps=list(transfer.gaps or ()),
        held_time=transfer.held_time,
        longest_hold=transfer.longest_hold,
    )


def _restore(transfer: Transfer, moved: MovedTransfer, now: float) -> None:
    transfer.tracker.restore(moved.tracker)
    transfer.held = moved.held
    transfer.last_read = now - moved.silent_for
    transfer.held_since = now - moved.held_for
    transfer.bytes = moved.carried
    transfer.largest_gap = moved.largest_gap
    transfer.usual_gap = min(moved.largest_gap, NOTABLE_GAP)
    transfer.gaps = list(moved.gaps) or None
    if moved.held:
        transfer.sums.hold(transfer.held_since)
    transfer.held_time = moved.held_time
    transfer.longest_hold = moved.longest_hold
