"""Limits on what one address or key may ask for on the public listener (docs/operations.md).

Laws
1. Who is over a limit is told so before anything is looked up, compared or kept for it.
2. What one address does over its limits takes nothing from another address, nor from a key.
3. Names in the tables are addresses of connections that came about and keys that are valid.
"""

from __future__ import annotations

__all__ = ["Guard"]

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from relay.errors import Refusal
from relay.policy.abuse import REFUSED_CAUSES, Buckets, address_key, connections_of_one
from relay.protocol.forwarding import told_caller
from relay.server.peers import is_among
from relay.server.rules import Rules

if TYPE_CHECKING:
    from relay.server.exchange import Exchange

MINUTE = 60.0
# One that is told to wait for a connection of its own to end: a moment, as for
# `too_many_connections`.
CONNECTION_RETRY = 1
# A connection carries many requests, and its peer is the same for all of them.
_known_key = lru_cache(maxsize=4096)(address_key)


class Guard:
    """Counts for the public listener.

    Args:
        rules: the limits, and the proxies over whose connections many callers come.
        most: how many connections at a time, of all addresses together.
        clock: monotonic seconds.
    """

    def __init__(self, rules: Rules, most: Callable[[], int], clock: Callable[[], float]) -> None:
        self._rules = rules
        self._all = most
        self._clock = clock
        self._connections: Counter[str] = Counter()
        self._of_keys: Buckets | None = None
        self._of_addresses: Buckets | None = None
        self._refused: Buckets | None = None
        self.follow()

    def follow(self) -> None:
        """Take over the limits in force; what was counted stays where a limit does."""
        limits = self._rules.limits
        self._of_keys = _per_minute(limits.key_sessions_per_minute, self._of_keys)
        self._of_addresses = _per_minute(limits.address_sessions_per_minute, self._of_addresses)
        self._refused = _per_minute(limits.address_refusals_per_minute, self._refused)

    @contextmanager
    def connected(self, peer: str) -> Iterator[None]:
        """Count a connection of a peer for as long as the block lasts.

        Raises:
            Refusal: 429 when its address has too many.
        """
        address = address_key(peer)
        of_one = self._rules.limits.max_connections_per_address
        most = connections_of_one(of_one, self._all())
        if not most or self._is_proxy(peer):
            yield
            return
        if self._connections[address] >= most:
            raise _refusal(
                f"this address has {most} connections already",
                "too_many_from_address",
                CONNECTION_RETRY,
            )
        self._connections[address] += 1
        try:
            yield
        finally:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]

    def check(self, exchange: Exchange) -> None:
        """Before a key or token is judged.

        Raises:
            Refusal: 429 for an address of which too many were refused.
        """
        if self._refused is None or not len(self._refused):
            return
        wait = self._refused.wait(self._address(exchange), self._clock())
        if wait:
            reason = "too many keys or tokens from this address were refused"
            raise _refusal(reason, "too_many_refused", wait)

    def refused(self, exchange: Exchange, refusal: Refusal) -> None:
        """An exchange was refused; only what is wrong with a key or a token counts."""
        if self._refused is not None and refusal.cause in REFUSED_CAUSES:
            self._refused.take(self._address(exchange), self._clock())

    def new_session(self, exchange: Exchange, key: bytes | None) -> None:
        """A session is asked for, with a key that is valid or where none is needed.

        Raises:
            Refusal: 429 for an address or a key that asks too often.
        """
        now = self._clock()
        if self._of_addresses is not None:
            wait = self._of_addresses.take(self._address(exchange), now)
            if wait:
                reason = "this address asks for too many sessions"
                raise _refusal(reason, "rate_limited_address", wait)
        # Second, so that an address over its own limit does not use up the key's.
        if self._of_keys is not None and key is not None:
            wait = self._of_keys.take(key.decode("latin-1"), now)
            if wait:
                raise _refusal("too many sessions with this key", "rate_limited_key", wait)

    def _address(self, exchange: Exchange) -> str:
        """What a caller is counted by: a trusted proxy's word, else its own address."""
        told = told_caller(exchange.head.headers, self._is_proxy) if exchange.trusted else None
        return _known_key(told or exchange.peer)

    def _is_proxy(self, peer: str) -> bool:
        return peer == "unix" or is_among(peer, self._rules.trusted)


def _per_minute(number: int, before: Buckets | None) -> Buckets | None:
    if before is not None and before.burst == number:
        return before
    return Buckets(number / MINUTE, number) if number else None


def _refusal(reason: str, cause: str, wait: float) -> Refusal:
    retry = ((b"retry-after", b"%d" % math.ceil(wait)),)
    return Refusal(429, f"{reason}; try again later", cause=cause, headers=retry)
