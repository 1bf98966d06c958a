"""The PROXY protocol's header, versions 1 and 2: who is at the other side of a balancer.

A connection from a trusted balancer begins with it, before any byte of HTTP. It is
judged strictly: what is not exactly a header ends the connection, since the first bytes
of a request that were taken for an address, or the reverse, would be believed.

Source: the protocol's specification, proxy-protocol.txt, sections 2.1 to 2.2.
"""

from __future__ import annotations

__all__ = ["MAX_HEADER", "ProxyHeader", "ProxyHeaderError", "parse_proxy_header"]

import ipaddress
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
# Version 1: the longest line that the specification knows, with its CR LF.
MAX_LINE = 107
# Version 2: addresses take 36 bytes; the rest is room for what balancers add (TLVs with a
# TLS certificate's name, an id), of which nothing is used.
MAX_HEADER = 2048
PREFIX_SIZE = 16
LOCAL, PROXY = 0x20, 0x21
TCP_OVER_IPV4, TCP_OVER_IPV6 = 0x11, 0x21
ADDRESS_SIZES = {TCP_OVER_IPV4: 4, TCP_OVER_IPV6: 16}
FAMILIES = {b"TCP4": 4, b"TCP6": 6}


class ProxyHeaderError(Exception):
    """No header of the protocol, or one that names no TCP peer; the text says which."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header that was read.

    Attributes:
        size: bytes that it takes.
        peer: the client's `host:port`, as the kernel would name it; None when the balancer
            speaks for itself (its health checks) or does not know.
    """

    size: int
    peer: str | None


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the beginning of `data`, None while it is not whole.

    Raises:
        ProxyHeaderError: these bytes cannot become a header.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _binary(data) if len(data) >= PREFIX_SIZE else None
    if not data.startswith(b"PROXY "[: len(data)]):
        raise ProxyHeaderError("expected a PROXY header")
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end >= 0:
        return ProxyHeader(end + 2, _line(data[:end]))
    if len(data) >= MAX_LINE or b"\n" in data:
        raise ProxyHeaderError(f"expected a PROXY line of at most {MAX_LINE} bytes")
    return None


def _line(line: bytes) -> str | None:
    """The peer of a line of version 1 (section 2.1)."""
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    version = FAMILIES.get(words[1])
    if version is None or len(words) != 6:
        raise ProxyHeaderError("expected PROXY TCP4 or TCP6, two addresses and two ports")
    source, _destination = (_address(word, version) for word in words[2:4])
    port, _ = (_port(word) for word in words[4:])
    return f"{source}:{port}"


def _address(word: bytes, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(word.decode("ascii"))
    except ValueError:
        address = None
    if address is None or address.version != version or b"%" in word:
        raise ProxyHeaderError(f"expected an IPv{version} address")
    return address


def _port(word: bytes) -> int:
    plain = word.isdigit() and len(word) <= 5 and (word == b"0" or not word.startswith(b"0"))
    if not plain or int(word) > 65535:
        raise ProxyHeaderError("expected a port from 0 to 65535")
    return int(word)


def _binary(data: bytes) -> ProxyHeader | None:
    """The header of version 2 (section 2.2); what follows the addresses is skipped."""
    command, kind = data[12], data[13]
    size = PREFIX_SIZE + int.from_bytes(data[14:16], "big")
    if command not in (LOCAL, PROXY):
        raise ProxyHeaderError("expected version 2 and the command LOCAL or PROXY")
    if size > MAX_HEADER:
        raise ProxyHeaderError(f"expected a PROXY header of at most {MAX_HEADER} bytes")
    if len(data) < size:
        return None
    if command == LOCAL or kind == 0:
        return ProxyHeader(size, None)
    width = ADDRESS_SIZES.get(kind)
    if width is None or size < PREFIX_SIZE + 2 * width + 4:
        raise ProxyHeaderError("expected the addresses of TCP over IPv4 or IPv6")
    source = ipaddress.ip_address(data[PREFIX_SIZE : PREFIX_SIZE + width])
    at = PREFIX_SIZE + 2 * width
    return ProxyHeader(size, f"{source}:{int.from_bytes(data[at : at + 2], 'big')}")
