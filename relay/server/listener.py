"""Listening sockets, TCP and Unix, and the connections they bring, counted and bounded."""

from __future__ import annotations

__all__ = ["Listener", "open_listeners", "take_inherited"]

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Collection, Sequence
from functools import partial

import trio

from relay.errors import ConfigError, Refusal
from relay.protocol.proxy_header import ProxyHeaderError
from relay.server.connection import Connection
from relay.server.exchange import Front, Phase
from relay.server.guard import Guard
from relay.server.handshakes import HandshakeFailed, Handshakes
from relay.server.peers import Networks, is_among, peer_of, read_proxy_header
from relay.server.routing import Routes
from relay.server.secure import Stream, TlsStream
from relay.server.succession import Client

# Connections that the kernel completes while the daemon is busy; a burst of callers
# after a network's hiccup fits. The kernel caps it at net.core.somaxconn.
BACKLOG = 1024
# Connections over a limit that are answered at a time, each for a moment: enough for callers
# who ask for too much, while most of a flood costs half as much.
MAX_REFUSING = 16


class Listener:
    """Serves every connection of a set of sockets with one table of routes.

    Args:
        most: how many connections at a time; over it a connection is told 503 and closed.
        kept: how many calls have taken theirs and hold it in this process.
        announcers: which peers begin each connection with a PROXY header.
        guard: what callers may ask for; None where nothing is limited.
        handshakes: makes TLS connections of those to sockets that are `secured`.
    """

    def __init__(
        self,
        listeners: Sequence[trio.SocketListener],
        front: Front,
        routes: Routes,
        most: Callable[[], int],
        kept: Callable[[], int] = lambda: 0,
        announcers: Callable[[], Networks] = tuple,
        guard: Guard | None = None,
        secured: Collection[trio.SocketListener] = (),
        handshakes: Handshakes | None = None,
    ) -> None:
        self._wanted = listeners
        self._secured = secured
        self._handshakes = handshakes
        self._accepting: dict[trio.SocketListener, trio.CancelScope] = {}
        self._front = front
        self._routes = routes
        self._most = most
        self._kept = kept
        self._announcers = announcers
        self._guard = guard
        self._open = 0
        self._refusing = 0
        self._connections: set[Connection] = set()
        self._serving = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._finishing: set[Connection] = set()

    async def serve(self) -> None:
        """Accept until cancelled, connections with it, or until all are handed over."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.listen(self._wanted, self._secured)
            with self._serving:
                await trio.sleep_forever()

    def listen(
        self,
        listeners: Sequence[trio.SocketListener],
        secured: Collection[trio.SocketListener] = (),
    ) -> None:
        """Accept on these from now on; others are closed, and their connections go on."""
        self._wanted, self._secured = listeners, secured
        if self._nursery is None:
            return  # `serve` does it
        for each in self._accepting.keys() - set(listeners):
            self._accepting.pop(each).cancel()
        for each in listeners:
            if each not in self._accepting:
                self._accepting[each] = trio.CancelScope()
                self._nursery.start_soon(self._accept, each, self._accepting[each])

    async def _accept(self, listener: trio.SocketListener, scope: trio.CancelScope) -> None:
        serve = partial(self._serve_one, tls=listener in self._secured)
        with scope:
            await trio.serve_listeners(serve, [listener], handler_nursery=self._nursery)

    def hand_over(self) -> None:
        """Accept no more: the next process does. What has no answer yet goes there."""
        self.listen(())
        self._serving.cancel()
        if self._handshakes is not None:
            self._handshakes.give_up()
        for connection in self._connections:
            connection.move()

    def take(self, stream: trio.SocketStream, client: Client) -> None:
        """Serve a connection that the process before this one had."""
        assert self._nursery is not None, "only while it serves"
        self._nursery.start_soon(self._serve_as, stream, client.peer, False, client)

    def is_busy(self) -> bool:
        """Whether there is a connection."""
        return self._open + self._refusing > 0

    def end_idle(self) -> None:
        """End connections that only wait for a next request; see `finishing` for the others."""
        self._finishing = set(self._connections)
        for connection in self._connections:
            connection.end_idle()

    def finishing(self) -> bool:
        """Whether a request is under way that came before `end_idle`."""
        return not self._finishing.isdisjoint(self._connections)

    async def _serve_one(self, stream: trio.SocketStream, *, tls: bool) -> None:
        peer = peer_of(stream)
        if self._open + self._kept() >= self._most():
            await self._refuse(stream, peer, _too_many(), tls=tls)
            return
        await self._serve_as(stream, peer, tls, None)

    async def _serve_as(
        self, stream: trio.SocketStream, peer: str, tls: bool, before: Client | None
    ) -> None:
        refused: Refusal | None = None
        self._open += 1
        try:
            if before is None and is_among(peer, self._announcers()):
                seconds = self._front.limits.head_timeout
                peer = await read_proxy_header(stream, peer, seconds)
            with self._guard.connected(peer) if self._guard else contextlib.nullcontext():
                client = await self._secure(stream) if tls else stream
                await self._serve_peer(client, peer, before)
        except Refusal as refusal:
            refused = refusal
        except HandshakeFailed as failure:
            if failure.plain:
                refused, tls = _speaks_tls(), False
            else:
                self._note(failure, peer)
        except ProxyHeaderError as error:
            self._front.log.warning("proxy_header", peer=peer, reason=str(error))
            await trio.aclose_forcefully(stream)
        finally:
            self._open -= 1
        if refused is not None:
            await self._refuse(stream, peer, refused, tls=tls)

    async def _secure(self, stream: trio.SocketStream) -> TlsStream:
        assert self._handshakes is not None, "where a socket is secured"
        return await self._handshakes.secure(stream)

    def _note(self, failure: HandshakeFailed, peer: str) -> None:
        """A handshake that failed is a connection that was refused."""
        fields = {"request_id": self._front.new_id(), "peer": peer, "phase": Phase.ACCEPT.value}
        self._front.log.exchange({**fields, "cause": failure.cause, "reason": str(failure)})

    async def _refuse(
        self, stream: trio.SocketStream, peer: str, refusal: Refusal, *, tls: bool
    ) -> None:
        """Say so to the first ones; more are only ended, so that a flood keeps nothing.

        Nor is anything said without TLS where it was expected.
        """
        connection = Connection(stream, peer, self._front, self._routes)
        self._refusing += 1
        try:
            answered = not tls and self._refusing <= MAX_REFUSING
            await connection.refuse_accept(refusal, answered=answered)
        finally:
            self._refusing -= 1

    async def _serve_peer(self, stream: Stream, peer: str, before: Client | None) -> None:
        early = before.data if before is not None else b""
        connection = Connection(stream, peer, self._front, self._routes, early, self._guard)
        if before is not None:
            connection.session_given = before.session
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)


async def open_listeners(kind: str, host: str, port: int, path: str) -> list[trio.SocketListener]:
    """Listen on a TCP address or a Unix socket path (mode 0600).

    Raises:
        ConfigError: the address can't be had; the text says why and what to do.
    """
    try:
        if kind == "unix":
            return [_listen_unix(path)]
        return list(await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG))
    except OSError as error:
        where = path if kind == "unix" else f"{host}:{port}"
        if error.errno == errno.EADDRINUSE and kind == "unix" and not _is_socket(path):
            raise ConfigError(
                f"can't listen on {where}: there is a file that is no socket"
            ) from None
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"{where} is in use by another process; stop it or choose another address"
            ) from None
        raise ConfigError(f"can't listen on {where}: {error.strerror or error}") from None


async def take_inherited(
    sockets: list[socket.socket], kind: str, host: str, port: int, path: str
) -> list[trio.SocketListener]:
    """Those of the sockets that listen on this address, taken out of the list.

    Args:
        sockets: listening already, from a supervisor.
    """
    if kind == "unix":
        wanted = {path}
    elif not sockets:
        return []
    else:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        wanted = {str(address[:2]) for *_, address in found}
    taken = [sock for sock in sockets if _name(sock) in wanted]
    for sock in taken:
        sockets.remove(sock)
        sock.setblocking(False)
    return [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in taken]


def _name(sock: socket.socket) -> str:
    address = sock.getsockname()
    return address if isinstance(address, str) else str(address[:2])


def _listen_unix(path: str) -> trio.SocketListener:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone; anything else stays and makes bind fail."""
    if not _is_socket(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # somebody listens, with a full backlog perhaps, or it is not ours to judge


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _speaks_tls() -> Refusal:
    reason = "this port speaks TLS; use https:// or wss://"
    return Refusal(400, reason, cause="plain_http", close=True)


def _too_many() -> Refusal:
    return Refusal(
        503,
        "too many connections at the moment",
        cause="too_many_connections",
        headers=((b"retry-after", b"1"),),
        close=True,
    )
