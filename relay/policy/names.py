"""What an answer of the domain name system means for an agent's instances.

Addresses arrive as resolvers give them: in any order, twice, of both families, and some
of them no host's. Rules: docs/configuration.md, "Instances found through DNS".
"""

from __future__ import annotations

__all__ = ["MAX_ADDRESSES", "Found", "bounded", "next_look", "usable"]

import ipaddress
from collections.abc import Iterable
from typing import TypeVar

import msgspec

Item = TypeVar("Item")

# Instances of one name. Each is probed every few seconds; more belong into several names.
MAX_ADDRESSES = 256
# A TTL below this would have a name server asked without pause.
MIN_INTERVAL = 1.0
BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class Found(msgspec.Struct, frozen=True):
    """The answer to one look.

    Attributes:
        urls: of the instances, each once.
        left_out: what stands for more than MAX_ADDRESSES of them.
        ttl: seconds that the answer holds, where that is known.
    """

    urls: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ttl: float | None = None


def usable(texts: Iterable[str]) -> list[str]:
    """The addresses that can be a bot's, each once, in numeric order, of one family.

    A bot with an IPv4 and an IPv6 address would count twice and get twice its sessions,
    so IPv6 is used only where there is no IPv4. Unspecified, broadcast, multicast and
    link-local addresses (those need a zone) are nobody's.
    """
    four: set[ipaddress.IPv4Address] = set()
    six: set[ipaddress.IPv6Address] = set()
    for text in texts:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_unspecified or address.is_multicast or address.is_link_local:
            continue
        if isinstance(address, ipaddress.IPv6Address):
            six.add(address)
        elif address != BROADCAST:
            four.add(address)
    return [str(address) for address in sorted(four)] or [str(address) for address in sorted(six)]


def bounded(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """The first MAX_ADDRESSES, and the rest: the same ones on every look and every node."""
    return items[:MAX_ADDRESSES], items[MAX_ADDRESSES:]


def next_look(interval: float, ttl: float | None) -> float:
    """Seconds until a name is looked up again: the interval, or less where an answer says so.

    A longer TTL is not waited for: container networks answer with minutes and mean seconds.
    0 means that nobody should keep the answer for others, not that it is wrong at once.
    """
    if not ttl:
        return interval
    return min(interval, max(ttl, MIN_INTERVAL))
