"""What a request tells a bot of the way that it has come: who asked, through whom, and the trace.

Laws:
- From a peer that nobody trusts nothing that it says of the way is believed: its forwarding
  fields are replaced by what is known here. A trusted peer's are kept and continued.
- A trace context that is valid passes unchanged; any other is replaced, and its state dropped.
- The same hop is described in the same way in every field.

RFC 9110 section 7.6 (Via, Max-Forwards), RFC 7239 (Forwarded), W3C Trace Context (traceparent).
"""

from __future__ import annotations

__all__ = ["FORWARDING", "Hop", "forwarding", "hops_left", "told_caller", "trace"]

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import msgspec

Field = tuple[bytes, bytes]

# How this hop calls itself (RFC 9110 section 7.6.3 allows a pseudonym).
PSEUDONYM = b"relay"
# Fields by which bots judge who asked: no caller may write them unless it is trusted.
FORWARDING = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    )
)
# W3C Trace Context section 3.2: version 00 has exactly these parts, later ones may have more.
TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?"
)
TRACE_BYTES = 24  # 16 for the trace, 8 for the first span
HOPS = re.compile(rb"[0-9]{1,9}")
# RFC 7239 section 4: what need not be quoted is a token.
# The parts of a Forwarded element are separated by semicolons (section 4).
FOR = re.compile(rb"(?:^|;)[ \t]*for=([^;]*)", re.IGNORECASE)
# Section 6, and how X-Forwarded-For is written with a port.
NODE = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
# Proxies in a row that are asked whom they had it from; then the last one counts.
MAX_PROXIES = 16
# A caller's requests come one after the other; what is said of its hop is kept for the last ones.
MAX_KNOWN_HOST = 255
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Hop(msgspec.Struct, frozen=True, gc=False):
    """The last hop that a request has come, as the front door knows it.

    Attributes:
        peer: the address without the port, "" where there is none (a Unix socket).
        trusted: a proxy of the operator's, whose own account of the way is believed.
        host: the Host field, which is what the caller wanted to reach.
        version: of HTTP.
        tls: it came through TLS.
    """

    peer: str
    trusted: bool
    host: bytes | None
    version: bytes
    tls: bool = False


def forwarding(fields: Iterable[Field], hop: Hop) -> Sequence[Field]:
    """Via, Forwarded and the X-Forwarded fields for the bot, in place of the request's own."""
    given: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name == b"via" or (hop.trusted and name in FORWARDING):
            given.setdefault(name, []).append(value)
    if not given and len(hop.host or b"") <= MAX_KNOWN_HOST:
        return _first_account(hop)
    return _account(given, hop)


def _account(given: dict[bytes, list[bytes]], hop: Hop) -> list[Field]:
    """What hops before this one have said, and what this one adds."""
    peer, proto = hop.peer.encode(), b"https" if hop.tls else b"http"
    result = [
        (b"via", _joined(given.pop(b"via", []), b"%s %s" % (hop.version, PSEUDONYM))),
        (b"forwarded", _joined(given.pop(b"forwarded", []), _element(peer, hop.host, proto))),
    ]
    addresses = _joined(given.pop(b"x-forwarded-for", []), peer)
    if addresses:
        result.append((b"x-forwarded-for", addresses))
    # Who spoke to the caller knows these, and each later proxy only what it was told.
    if b"x-forwarded-proto" not in given:
        result.append((b"x-forwarded-proto", proto))
    if b"x-forwarded-host" not in given and hop.host is not None:
        result.append((b"x-forwarded-host", hop.host))
    result.extend((name, value) for name, values in given.items() for value in values)
    return result


def _joined(before: list[bytes], last: bytes) -> bytes:
    return b", ".join([value for value in (*before, last) if value]) if before else last


@lru_cache(maxsize=512)
def _first_account(hop: Hop) -> tuple[Field, ...]:
    """The same for all requests that have come no other hop, as most have."""
    return tuple(_account({}, hop))


def _element(peer: bytes, host: bytes | None, proto: bytes) -> bytes:
    """This hop in the form of RFC 7239 section 4."""
    node = b"unknown" if not peer else b'"[%s]"' % peer if b":" in peer else peer
    if host is None:
        return b"for=%s;proto=%s" % (node, proto)
    name = host if TOKEN.fullmatch(host) else b'"%s"' % host
    return b"for=%s;host=%s;proto=%s" % (node, name, proto)


def told_caller(fields: Iterable[Field], trusted: Callable[[str], bool]) -> str | None:
    """Who asked, as a trusted proxy tells it: the last address that is no proxy's own.

    A proxy continues one of X-Forwarded-For and Forwarded and may pass the other as its
    caller wrote it. So two accounts that differ are none.

    Args:
        trusted: whether a hop, as `address:0`, is a proxy whose account is believed too.

    Returns:
        The hop in that form; None when no account can be used.
    """
    given: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in (b"x-forwarded-for", b"forwarded"):
            given.setdefault(name, []).append(value)
    accounts = set()
    for name, values in given.items():
        # From the end, so that it costs nothing how much a caller has put in front.
        hops = b",".join(values).rsplit(b",", MAX_PROXIES)[-MAX_PROXIES:]
        nodes = hops if name == b"x-forwarded-for" else [_for(element) for element in hops]
        accounts.add(_last_caller(nodes, trusted))
    return accounts.pop() if len(accounts) == 1 else None


def _for(element: bytes) -> bytes:
    found = FOR.search(element)
    return found[1].strip(b' \t"') if found is not None else b""


def _last_caller(nodes: list[bytes], trusted: Callable[[str], bool]) -> str | None:
    hop = None
    for node in reversed(nodes):
        hop = _hop(node.strip(b" \t"))
        if hop is None or not trusted(hop):
            break
    return hop


def _hop(node: bytes) -> str | None:
    found = NODE.fullmatch(node)
    if found is None:
        return None
    try:
        return f"{ipaddress.ip_address((found[1] or found[2] or found[3]).decode())}:0"
    except ValueError:
        return None


def trace(fields: Iterable[Field], random: bytes) -> list[Field]:
    """The trace context for the bot: the caller's, or a new one (W3C Trace Context section 4).

    Args:
        random: `TRACE_BYTES` random bytes for a new one; it is not sampled, since nobody
            here records spans.
    """
    parents, states = [], []
    for field in fields:
        if field[0] == b"traceparent":
            parents.append(field)
        elif field[0] == b"tracestate":
            states.append(field)
    if len(parents) == 1 and is_trace(parents[0][1]):
        return parents + states
    digits = random.hex().encode()
    return [(b"traceparent", b"00-%s-%s-00" % (digits[:32], digits[32:]))]


def is_trace(value: bytes) -> bool:
    """Whether this is a valid traceparent (W3C Trace Context section 3.2)."""
    found = TRACEPARENT.fullmatch(value)
    return found is not None and (found[1] != b"00" or found[2] is None)


def hops_left(method: bytes, fields: Iterable[Field]) -> int | None:
    """How often an OPTIONS request may still be forwarded; None where that is not limited.

    RFC 9110 section 7.6.2: at 0 the receiver answers by itself. Other methods, and values
    that are no number, do not limit anything.
    """
    if method != b"OPTIONS":
        return None
    for name, value in fields:
        if name == b"max-forwards" and HOPS.fullmatch(value):
            return int(value)
    return None
