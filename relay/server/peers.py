"""Who is at the other end of a connection, if need be by what a balancer in front says."""

from __future__ import annotations

__all__ = ["Networks", "hop_of", "is_among", "peer_address", "peer_of", "read_proxy_header"]

import ipaddress
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import trio

from relay.protocol.forwarding import Hop
from relay.protocol.proxy_header import ProxyHeaderError, parse_proxy_header
from relay.server.secure import TlsStream

if TYPE_CHECKING:
    from relay.server.exchange import Exchange

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]]

# A header comes in one read of this size.
READ_SIZE = 4096


def peer_of(stream: trio.SocketStream) -> str:
    """The other end as `host:port`, `unix`, or `gone`."""
    try:
        address = stream.socket.getpeername()
    except OSError:
        return "gone"
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"


def peer_address(peer: str) -> str:
    """The address in the name of a peer, without its port; "" for a Unix socket."""
    return "" if peer == "unix" else peer.rpartition(":")[0].partition("%")[0]


def hop_of(exchange: Exchange) -> Hop:
    """The last hop of an exchange's request, for the account of its way that a bot gets."""
    head = exchange.head
    tls = isinstance(exchange.stream, TlsStream)
    peer = peer_address(exchange.peer)
    return Hop(peer, exchange.trusted, head.value(b"host"), head.version, tls)


def is_among(peer: str, networks: Networks) -> bool:
    """Whether a peer is in one of the networks; "unix" is all that come over a Unix socket."""
    if peer == "unix":
        return "unix" in networks
    try:
        address = ipaddress.ip_address(peer_address(peer))
    except ValueError:
        return False  # it has gone already
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any(each != "unix" and (mapped or address) in each for each in networks)


async def read_proxy_header(stream: trio.SocketStream, peer: str, seconds: float) -> str:
    """The header with which a balancer begins a connection (docs/http.md, "PROXY protocol").

    Args:
        peer: who is meant when the balancer speaks for itself.
        seconds: the whole header is here by then.

    Returns:
        The caller's address, as `peer_of`. What is behind the header is still to be read,
        by whoever speaks what comes there.

    Raises:
        ProxyHeaderError: it does not come whole, or is none; the text says which.
    """
    data = b""
    with trio.move_on_after(seconds):
        while True:
            known = len(data)
            try:
                data += await stream.socket.recv(READ_SIZE, socket.MSG_PEEK)
            except OSError:
                pass  # it ends like one that was closed
            if len(data) == known:
                raise ProxyHeaderError("expected a PROXY header, found the end")
            header = None
            try:
                header = parse_proxy_header(data)
            finally:
                # What is no header is taken too, so that its sender sees an end and no reset.
                await stream.socket.recv((header.size if header else len(data)) - known)
            if header is not None:
                return header.peer or peer
    raise ProxyHeaderError(f"expected a whole PROXY header within {seconds:g} s")
