"""Bodies that are too large for a URL: the bot is told an address, and fetches its session's.

The address has a key that is new for each upgrade that a bot gets, and replaces the one
before, so only the bot that was asked last can read the body (docs/protocol.md, "Stored
bodies").
"""

from __future__ import annotations

__all__ = ["StoredBody", "stored_body"]

import secrets

from relay.errors import Refusal
from relay.protocol.headers import Field
from relay.server.exchange import Exchange, Front

# 192 bits, beyond any search.
KEY_BYTES = 24


async def stored_body(front: Front, session_id: str) -> list[Field]:
    """The field that tells a bot where its session's body is; none without one.

    Raises:
        StoreError: it can't be known.
    """
    key = secrets.token_urlsafe(KEY_BYTES)
    if not await front.store.open_body(session_id, key):
        return []
    url = f"{front.catalog.public_url}/v1/bodies/{session_id}?key={key}"
    return [(b"x-relay-body", url.encode())]


class StoredBody:
    """`GET /v1/bodies/{session}?key=…` by a bot."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body = b""

    async def authenticate(self) -> None:
        exchange = self._exchange
        session_id = exchange.names["session"]
        keys = [value for name, value in exchange.url.parameters() if name == b"key"]
        key = keys[0].decode("latin-1") if len(keys) == 1 else ""
        body = await exchange.front.store.body(session_id, key)
        if body is None:
            raise Refusal(404, "there is no body here, or not for this key", cause="no_body")
        exchange.session_id = session_id
        self._body = body

    async def resolve(self) -> None:
        """Nothing to find."""

    async def relay(self) -> None:
        # For one reader, and gone with its session.
        await self._exchange.reply(200, self._body, [(b"cache-control", b"no-store")])
