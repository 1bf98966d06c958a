"""How much one key or address may ask for: token buckets in a bounded table, and shares.

Laws
1. In any time t a name is granted at most `burst + rate * t` (docs/operations.md).
2. The table holds at most `most` names; the one that was asked about longest ago goes
   first, and has its whole burst again if it comes back.
"""

from __future__ import annotations

__all__ = ["MAX_NAMES", "REFUSED_CAUSES", "Buckets", "address_key", "connections_of_one"]

import ipaddress

# Names that are remembered at a time: some 10 MB. Over it the oldest are forgotten: who
# has more addresses than this is bounded by other limits only.
MAX_NAMES = 50_000
# One customer's network: an IPv6 subscriber has a whole /64 to send from (RFC 6177).
IPV6_PREFIX = 64
# Of all connections one address may have one half where nothing else is said, so that it
# cannot shut the others out. Not less: behind a balancer that nobody has declared all
# callers have one address.
SHARE = 2
# What is wrong with a key or a token; a session that was stopped, or a path that is not
# open to callers, says nothing of who asks.
REFUSED_CAUSES = frozenset(
    (
        "bad_api_key",
        "token_missing",
        "token_malformed",
        "token_unknown_key",
        "token_bad_signature",
        "token_expired",
        "token_wrong_scope",
        "token_used",
        "session_over",
    )
)


class Buckets:
    """One bucket per name.

    Args:
        rate: grants per second, above 0. burst: grants at once, at least 1.
        most: names in the table.

    Attributes:
        burst: as it was given.
    """

    def __init__(self, rate: float, burst: float, most: int = MAX_NAMES) -> None:
        self._rate = rate
        self.burst = burst
        self._most = most
        # Tokens when they were last counted, and when; in the order of the last question.
        self._levels: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def wait(self, name: str, now: float) -> float:
        """Seconds until the name would be granted something; 0 when it would be now."""
        return max(0.0, (1.0 - self._level(name, now)) / self._rate)

    def take(self, name: str, now: float) -> float:
        """Grant one thing if there is one left: 0, or the seconds until there will be.

        Args:
            now: seconds on any clock; one that goes back grants nothing for that time.
        """
        level = self._level(name, now)
        granted = level >= 1.0
        _, since = self._levels.pop(name, (level, now))
        if len(self._levels) >= self._most:
            del self._levels[next(iter(self._levels))]
        self._levels[name] = (level - granted, max(now, since))
        return 0.0 if granted else (1.0 - level) / self._rate

    def _level(self, name: str, now: float) -> float:
        level, since = self._levels.get(name, (self.burst, now))
        return min(self.burst, level + max(0.0, now - since) * self._rate)


def connections_of_one(configured: int | None, most: int) -> int:
    """How many of `most` connections one address may have; 0 is no limit of its own."""
    return max(1, most // SHARE) if configured is None else configured


def address_key(peer: str) -> str:
    """The name under which a peer's address is counted: IPv6 by its /64.

    Args:
        peer: `host:port`, IPv6 in brackets or not; anything else is its own name.
    """
    host = peer.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
