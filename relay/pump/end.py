"""One socket of a tunnel."""

from __future__ import annotations

__all__ = ["NOTSENT_LOWAT", "End"]

import socket
from typing import TYPE_CHECKING

from relay.protocol.lifecycle import Side

if TYPE_CHECKING:
    from relay.pump.transfer import Transfer
    from relay.pump.tunnel import Tunnel

NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class End:
    """One socket of a tunnel: the transfer that reads it and the one that writes it."""

    __slots__ = (
        "fd",
        "hung_up",
        "incoming",
        "outgoing",
        "registered",
        "released",
        "reset",
        "shut",
        "side",
        "sock",
        "tunnel",
    )
    # For the compiled pump, which deletes only what is declared: see `Tunnel.unlink`.
    __deletable__ = ("incoming", "outgoing", "tunnel")

    incoming: Transfer
    outgoing: Transfer

    def __init__(self, sock: socket.socket, side: Side, tunnel: Tunnel) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.side = side
        self.tunnel = tunnel
        self.registered = 0  # the mask in force; 0 is "not registered"
        self.released = False  # given up; closed at the end of the batch
        self.shut = False  # our write side has been shut
        self.hung_up = False  # it takes nothing any more
        self.reset = False  # and that was a reset, which its reads do not show any more

    def shut_write(self) -> None:
        if not self.shut:
            self.shut = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer was faster; its loss is seen by the next read

    def send_ahead(self) -> None:
        """Let the kernel take whatever it has room for; trio told it to refuse earlier.

        For bulk, which would be held back after each write. Calls leave it so: what a caller's
        line does not take is seen at once, and does not grow old in the kernel.
        """
        if NOTSENT_LOWAT is not None:
            try:
                self.sock.setsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT, 0)
            except OSError:
                pass  # a Unix socket, which has no such thing

    def set_reset(self) -> None:
        """Make the coming close a reset, which a WebSocket peer sees as 1006."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except OSError:
            pass  # a Unix socket knows no reset; closing it is all there is
