"""The Session API: HTTP requests to the one bot that holds a session, while it does."""

from __future__ import annotations

__all__ = ["SessionRequest"]

import trio

from relay.errors import Refusal, StoreError
from relay.policy.catalog import Address
from relay.protocol.bot_http import BotTalk
from relay.server.bot_exchange import MAX_AHEAD, BotExchange
from relay.server.exchange import Exchange
from relay.server.session_lookup import SessionLookup
from relay.server.upstream import BotConnection, open_bot


class SessionRequest:
    """One request's way to the bot of its session and back."""

    _lookup: SessionLookup
    _talk: BotTalk

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._bot: BotConnection | None = None

    async def authenticate(self) -> None:
        self._lookup = SessionLookup(self._exchange)

    async def resolve(self) -> None:
        try:
            await self._while_connected()
        except BaseException:
            await self._close_bot()
            raise
        if self._exchange.client_left:
            await self._close_bot()
            self._exchange.cause, self._exchange.keep_alive = "client_left", False

    async def _while_connected(self) -> None:
        """Find the session and connect to its bot, for as long as the client is there.

        Raises:
            Refusal, StoreError: the bot can't be reached.
        """
        failure: Refusal | StoreError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exchange.cancel_when_left, nursery.cancel_scope, MAX_AHEAD)
            try:
                await self._reach()
            except (Refusal, StoreError) as error:
                failure = error  # raised below: a nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if failure is not None and not self._exchange.client_left:
            raise failure

    async def _reach(self) -> None:
        exchange = self._exchange
        session = await self._lookup.active()
        assert session.instance is not None, "an active session is on an instance"
        address = Address.of(session.instance)
        query = b"?" + exchange.url.query if b"?" in exchange.head.target else b""
        target = self._lookup.path + query
        self._talk = BotTalk(
            exchange.head, target, address.authority, session.id, exchange.request_id
        )
        self._bot = await open_bot(address)
        if self._bot is None:
            raise Refusal(502, "the session's bot cannot be connected", cause="bot_unreachable")

    async def relay(self) -> None:
        exchange, bot = self._exchange, self._bot
        if bot is None:
            return
        try:
            await BotExchange(exchange, bot.stream, self._talk).run()
        finally:
            await self._close_bot()

    async def _close_bot(self) -> None:
        if self._bot is not None:
            bot, self._bot = self._bot, None
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(bot.stream)
