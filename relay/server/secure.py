"""Connections with TLS, used like those without.

`TlsLeg` is a `Leg` and `TlsStream` has what the relay uses of trio's streams, so that whoever
relays asks only here which of the two it has. A socket of `ssl` that does not block is
underneath: what OpenSSL can do at once is done at once, as for a plain socket.

Laws
1. What a peer sends behind its end of TLS, or without one, is never taken for its words.
2. A write that was not taken is tried again with the same bytes in front (SSL_write(3)).
"""

from __future__ import annotations

__all__ = [
    "DROP_SIZE",
    "Stream",
    "TlsLeg",
    "TlsSocket",
    "TlsStream",
    "close",
    "detached",
    "leg_of",
    "pass_answer",
    "reset",
    "secure_bot",
    "shake_hands",
    "wrap",
]

import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

import trio

from relay.policy.catalog import Trust
from relay.server.leg import Leg
from relay.tls import toward_bots

# A record of TLS holds so much (RFC 8446 section 5.1); more in one write is taken whole or not.
RECORD = 16 * 1024
# What is dropped at a time of a peer that was told the end.
DROP_SIZE = 64 * 1024
# struct linger: closing resets the connection, so that what was sent is seen to be cut off.
RESET = struct.pack("ii", 1, 0)


class TlsSocket(ssl.SSLSocket):
    """One that tells trio when it is closed, as trio's own sockets do."""

    def close(self) -> None:
        if self.fileno() >= 0:
            trio.lowlevel.notify_closing(self)
        super().close()


class TlsLeg(Leg):
    """One side of an exchange that is encrypted."""

    __slots__ = ("_ended", "_sock")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock.fileno())
        self._sock = sock
        self._ended = False

    async def wait_readable(self) -> None:
        if not self._ended and self._sock.pending():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._open())

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._open())

    def _open(self) -> ssl.SSLSocket:
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this connection was closed")
        return self._sock

    def read_now(self, most: int) -> bytes | None:
        try:
            return self._dropped() if self._ended else self._sock.recv(most)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return None
        except OSError:
            self.broken = True
            return b""

    def read_into(self, view: memoryview) -> int | None:
        try:
            return self._sock.recv_into(view)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            self.broken = True
            return 0

    def write_now(self, data: bytes | memoryview) -> int | None:
        view, taken = memoryview(data), 0
        try:
            while taken < len(view):
                taken += self._sock.send(view[taken : taken + RECORD])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            return None
        return taken

    async def read(self, most: int) -> bytes:
        while True:
            await self.wait_readable()
            data = self.read_now(most)
            if data is not None:
                return data

    def end(self) -> bool:
        """Tell the peer that nothing follows; False if that has to wait.

        Behind it there is nothing to hear from the peer but its own end.
        """
        try:
            self._sock.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):
            pass  # it is gone, or has not answered yet, which nobody waits for
        self._ended = True
        return True

    def _dropped(self) -> bytes | None:
        return None if socket.socket.recv(self._sock, DROP_SIZE) else b""


class TlsStream(trio.abc.HalfCloseableStream):
    """A connection after its handshake.

    Attributes:
        socket: the connection's.
        leg: the same without turns of the loop.
    """

    def __init__(self, sock: TlsSocket) -> None:
        self.socket = sock
        self.leg = TlsLeg(sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self.leg.read(max_bytes or RECORD)
        if not data and self.leg.broken:
            raise trio.BrokenResourceError("the connection was cut off")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        while (taken := self.leg.write_now(left)) is not None:
            left = left[taken:]
            if not left:
                return
            await self.leg.wait_writable()
        raise trio.BrokenResourceError("the connection was cut off")

    async def wait_send_all_might_not_block(self) -> None:
        await self.leg.wait_writable()

    async def send_eof(self) -> None:
        while not self.leg.end():
            await self.leg.wait_writable()
        try:
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        except OSError:
            raise trio.BrokenResourceError("the connection was cut off") from None

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close it, with an end that the peer can believe if that goes at once."""
        if self.socket.fileno() >= 0:
            self.leg.end()
            self.socket.close()


Stream = trio.SocketStream | TlsStream


def leg_of(stream: Stream) -> Leg:
    """A connection as a leg."""
    return stream.leg if isinstance(stream, TlsStream) else Leg(stream.socket.fileno())


def close(stream: Stream) -> None:
    """Close a connection without a wait."""
    if isinstance(stream, TlsStream):
        stream.close()
    else:
        stream.socket.close()


def reset(stream: Stream) -> None:
    """Close a connection so that its peer sees it cut off."""
    try:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    except (OSError, trio.ClosedResourceError):
        pass  # a Unix socket knows no reset
    stream.socket.close()


def detached(stream: trio.SocketStream) -> socket.socket:
    """The socket of a connection, taken out of it."""
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


async def secure_bot(sock: socket.socket, host: str, trust: Trust) -> TlsSocket:
    """A connection to a bot after its handshake; the caller bounds the time.

    Raises:
        OSError: the handshake has failed, perhaps since the bot is not who it is to be.
    """
    secure = wrap(sock, toward_bots(trust.ca), trust.name or host)
    try:
        await shake_hands(secure, trio.Lock())
    except BaseException:
        secure.close()
        raise
    return secure


async def pass_answer(bot: TlsStream, reader: trio.SocketStream) -> None:
    """Pass on what a bot says until either side is at its end; both are closed then."""

    async def watch(scope: trio.CancelScope) -> None:
        try:
            while await reader.receive_some(DROP_SIZE):
                pass  # who waits for an answer says nothing
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            try:
                while data := await bot.receive_some():
                    await reader.send_all(data)
            except trio.BrokenResourceError:
                pass  # an answer that is not whole shows it by its framing
            nursery.cancel_scope.cancel()
    finally:
        bot.close()
        reader.socket.close()


def wrap(sock: socket.socket, context: ssl.SSLContext, server_name: str | None = None) -> TlsSocket:
    """A connected socket as one with TLS, before its handshake.

    Args:
        server_name: whom a client expects; None for the side of the server.

    Raises:
        OSError: the connection is gone already.
    """
    context.sslsocket_class = TlsSocket
    try:
        wrapped = context.wrap_socket(
            sock,
            server_side=server_name is None,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            server_hostname=server_name,
        )
    finally:
        sock.close()  # of no effect once it was taken over
    assert isinstance(wrapped, TlsSocket)
    return wrapped


async def shake_hands(sock: TlsSocket, turn: trio.Lock) -> None:
    """The handshake; the caller bounds the time, and closes the socket when it fails.

    Args:
        turn: whoever has it may reckon: no two handshakes do so in one turn of the loop, since
            each takes a millisecond in which no call goes on.

    Raises:
        OSError: it has failed, as `ssl` says.
    """
    while True:
        async with turn:
            wants = _step(sock)
        if wants is None:
            return
        await wants(sock)


def _step(sock: TlsSocket) -> Callable[[TlsSocket], Awaitable[None]] | None:
    """Do what can be done; what to wait for then, or None at the end."""
    try:
        sock.do_handshake()
    except ssl.SSLWantReadError:
        return trio.lowlevel.wait_readable
    except ssl.SSLWantWriteError:
        return trio.lowlevel.wait_writable
    return None
