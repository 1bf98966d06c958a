"""The Session API: HTTP requests to the one bot that holds a session, while it does."""

from __future__ import annotations

__all__ = ["SESSION_POLL", "SessionRequest"]

import trio

from relay.errors import Refusal, StoreError
from relay.policy.catalog import Address, Agent
from relay.policy.routes import is_session_id
from relay.policy.sessions import Session, SessionState
from relay.protocol.bot_http import BotTalk
from relay.protocol.target import canonical_path, is_reserved
from relay.server.bot_exchange import MAX_AHEAD, BotExchange
from relay.server.exchange import Exchange
from relay.server.start import no_session, public_agent
from relay.server.upstream import BotConnection, open_bot

# A request that waits for its session looks into the store so often, in seconds: a
# caller does not hear the difference, and a hundred of them do not load the store.
SESSION_POLL = 0.1
# Who has waited in vain, or may not wait, may try again after so many seconds.
RETRY_AFTER = 5
# The exchange of WebRTC offers, of use only to bots that were started over HTTP.
OFFER = b"/api/offer"


class SessionRequest:
    """One request's way to the bot of its session and back."""

    _agent: Agent
    _talk: BotTalk

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._bot: BotConnection | None = None

    async def authenticate(self) -> None:
        exchange = self._exchange
        self._agent = public_agent(exchange)
        if is_reserved(self._path):
            raise Refusal(
                403,
                "this path of a bot starts, ends or probes sessions and is not open to callers",
                cause="reserved_path",
            )
        upgrade, connection = exchange.head.tokens(b"upgrade"), exchange.head.tokens(b"connection")
        if b"websocket" in upgrade and b"upgrade" in connection:
            raise Refusal(
                501,
                "this version opens no WebSocket through a session; send a plain HTTP request",
                cause="session_upgrade",
            )

    @property
    def _path(self) -> bytes:
        match = self._exchange.match
        assert match is not None, "only after the route phase"
        return match.rest

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
        session = await self._session()
        exchange.session_id = session.id
        if canonical_path(self._path) == OFFER and session.transport == "websocket":
            raise Refusal(
                409,
                "this session was started over WebSocket; offers are for sessions over HTTP",
                cause="not_over_http",
            )
        if session.state is not SessionState.ACTIVE:
            session = await self._wait_active()
        assert session.instance is not None, "an active session is on an instance"
        address = Address.of(session.instance)
        query = b"?" + exchange.url.query if b"?" in exchange.head.target else b""
        self._talk = BotTalk(
            exchange.head, self._path + query, address.authority, session.id, exchange.request_id
        )
        self._bot = await open_bot(address)
        if self._bot is None:
            raise Refusal(502, "the session's bot cannot be connected", cause="bot_unreachable")

    async def _session(self) -> Session:
        """The session that the path names; it lives, and is of this agent."""
        session_id = self._exchange.names["session"].lower()
        session = None
        if is_session_id(session_id):
            session = await self._exchange.front.store.get(session_id)
        if (
            session is None
            or session.agent != self._agent.name
            or session.state is SessionState.ENDED
        ):
            raise no_session()
        return session

    async def _wait_active(self) -> Session:
        """The session once a bot holds it."""
        front, agent = self._exchange.front, self._agent
        retry = ((b"retry-after", b"%d" % RETRY_AFTER),)
        if front.held[agent.name] >= front.limits.max_waiting:
            raise Refusal(
                429,
                "too many requests wait for sessions of this agent to begin",
                cause="too_many_held",
                headers=retry,
            )
        front.held[agent.name] += 1
        try:
            with trio.move_on_after(agent.attach_timeout):
                while True:
                    await trio.sleep(SESSION_POLL)
                    session = await self._session()
                    if session.state is SessionState.ACTIVE:
                        return session
        finally:
            front.held[agent.name] -= 1
        raise Refusal(
            503,
            f"no bot has held this session within {agent.attach_timeout:g} s",
            cause="session_not_started",
            headers=retry,
        )

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
