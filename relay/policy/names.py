"""What an answer of the domain name system means for an agent's instances.

Addresses arrive as resolvers give them: in any order, twice, of both families, and some
of them no host's. Rules: docs/configuration.md, "Instances found through DNS".
"""

from __future__ import annotations

__all__ = ["MAX_ADDRESSES", "Found", "Rank", "bounded", "next_look", "ranked", "usable"]

import ipaddress
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

Item = TypeVar("Item")

# Of the greatest: a weight of 0 stands for a very small one beside others (RFC 2782).
LEAST_WEIGHT = 0.01

# Instances of one name. Each is probed every few seconds; more belong into several names.
MAX_ADDRESSES = 256
# A TTL below this would have a name server asked without pause.
MIN_INTERVAL = 1.0
BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class Rank(msgspec.Struct, frozen=True):
    """Which of several instances is used first (RFC 2782); the default where nothing says so.

    Attributes:
        priority: those with a lower one are used as long as one of them is free; from 0.
        weight: of those with one priority one with twice the weight is used twice as often;
            the greatest is 1.
    """

    priority: int = 0
    weight: float = 1.0

    def turn(self, rested: float) -> tuple[float, float]:
        """Of several instances the one with the least is to be used.

        Who is used when its rest times its weight is the longest is used as often as the
        weights say, without anybody's keeping count, whichever node uses it.

        Args:
            rested: seconds since it was used last.
        """
        return self.priority, -rested * self.weight


class Found(msgspec.Struct, frozen=True):
    """The answer to one look.

    Attributes:
        urls: of the instances, each once.
        ranks: of those for which the answer has one.
        left_out: what stands for more than MAX_ADDRESSES of them.
        ttl: seconds that the answer holds, where that is known.
    """

    urls: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ttl: float | None = None
    ranks: Mapping[str, Rank] = {}


def ranked(services: Mapping[str, tuple[int, int]]) -> dict[str, Rank]:
    """The rank of each URL, from the priority and the weight that an answer gives it.

    Both are relative, so that instances of another answer, or of a list, may stand beside.
    """
    lowest = min((priority for priority, _ in services.values()), default=0)
    heaviest: dict[int, int] = {}
    for priority, weight in services.values():
        heaviest[priority] = max(weight, heaviest.get(priority, 0))
    return {
        url: Rank(
            priority - lowest,
            max(weight / heaviest[priority], LEAST_WEIGHT) if heaviest[priority] else 1.0,
        )
        for url, (priority, weight) in services.items()
    }


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
