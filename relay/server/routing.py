"""From a request target to the handler of its route; what is asked again and again is kept."""

from __future__ import annotations

__all__ = ["Handler", "Routes", "target_of"]

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Protocol

from relay.policy import routes
from relay.policy.routes import Match, Pattern, Route
from relay.protocol.http1 import Request
from relay.protocol.target import Target, parse_target
from relay.server.exchange import Exchange
from relay.server.start import is_preflight
from relay.server.succession import Role

# Clients ask for few addresses again and again; a target is judged by itself and its host.
# Longer ones, and more of them, are judged anew.
MAX_KNOWN_TARGET = 512
KNOWN_TARGETS = 512
_known_target = lru_cache(KNOWN_TARGETS)(parse_target)


class Handler(Protocol):
    """What a route does; one object per exchange, its methods are the phases 4 to 6."""

    def __init__(self, exchange: Exchange) -> None: ...

    async def authenticate(self) -> None: ...

    async def resolve(self) -> None: ...

    async def relay(self) -> None: ...


class Routes:
    """A table of paths, what makes the handler of each route, and the one for preflights if any.

    Args:
        role: of the listeners that it is for.
    """

    def __init__(
        self,
        role: Role,
        table: tuple[Pattern, ...],
        handlers: Mapping[Route, Callable[[Exchange], Handler]],
        preflight: type[Handler] | None = None,
    ) -> None:
        self.role = role
        self._match = partial(routes.match, table)
        self._known_match = lru_cache(KNOWN_TARGETS)(self._match)
        self._handlers = handlers
        self._preflight = preflight

    def handler(self, exchange: Exchange) -> Handler:
        """What does what a request asks for.

        Raises:
            Refusal: as `policy.routes.match`.
        """
        if self._preflight is not None and is_preflight(exchange):
            return self._preflight(exchange)
        exchange.match = match = self._matched(exchange.head.method, exchange.url)
        return self._handlers[match.route](exchange)

    def _matched(self, method: bytes, target: Target) -> Match:
        known = len(target.path) + len(target.query) <= MAX_KNOWN_TARGET
        return (self._known_match if known else self._match)(method, target)


def target_of(request: Request) -> Target:
    """The target of a request; raises Refusal as `protocol.target.parse_target`."""
    host = request.value(b"host")
    known = len(request.target) + len(host or b"") <= MAX_KNOWN_TARGET
    return (_known_target if known else parse_target)(request.target, host)
