"""The Session API: HTTP requests to the one bot that holds a session, while it does."""

from __future__ import annotations

__all__ = ["SessionRequest"]

from collections.abc import Awaitable, Callable

import trio

from relay.errors import Refusal, StoreError
from relay.policy.sessions import SessionState, Standing
from relay.protocol.bot_http import BotTalk, framed_request, request_head
from relay.protocol.forwarding import hops_left
from relay.server import replies
from relay.server.bot_exchange import MAX_AHEAD, PROMPT, BotExchange
from relay.server.bot_pool import BotLink, open_link
from relay.server.exchange import Exchange
from relay.server.handing import Moved
from relay.server.session_lookup import SessionLookup

# RFC 9110 section 9.2.2: asked twice they do what asked once they do.
IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")


class SessionRequest:
    """One request's way to the bot of its session and back."""

    _lookup: SessionLookup
    _url: str
    _request: bytes

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._session_id: str | None = None  # counted among those under way
        self._bot: BotLink | None = None
        self._received = b""  # the part of the body that is in `_body`, as it came
        self._body = b""

    async def authenticate(self) -> None:
        self._lookup = SessionLookup(self._exchange)

    async def resolve(self) -> None:
        exchange, traffic = self._exchange, self._exchange.front.traffic
        if hops_left(exchange.head.method, exchange.head.headers) == 0:
            return  # this hop is the last one
        self._take_body()
        try:
            session = await self._lookup.find()
            if session.state is SessionState.ACTIVE and traffic.begin_now(session.id):
                self._begun(session)
            else:
                await self._while_connected(self._wait_turn)
            if not exchange.client_left:
                await self._reach()
        except BaseException as error:
            if isinstance(error, Moved):
                error.body = self._received
            self._leave_bot()
            raise
        if exchange.client_left:
            self._leave_bot()
            exchange.cause, exchange.keep_alive = "client_left", False

    def _take_body(self) -> None:
        """Take what is here of the request's body; it is sent behind the head."""
        exchange, body = self._exchange, self._exchange.body
        assert body is not None, "only after the parse phase"
        if not body.whole:
            data = exchange.heads.take()
            self._body += framed_request(body, exchange.take_body(data))
            self._received += data[: len(data) - len(exchange.heads)]
        if body.faulty:
            raise Refusal(400, "the request body is malformed", cause="bad_body", close=True)

    def _begun(self, session: Standing) -> None:
        assert session.instance is not None, "an active session is on an instance"
        self._session_id, self._url = session.id, session.instance

    async def _wait_turn(self) -> None:
        """Wait until a bot holds the session, and then until the request may go there."""
        session = await self._lookup.active()
        await self._exchange.front.traffic.begin(session.id)
        self._begun(session)
        await self._lookup.find()  # it may have ended meanwhile

    async def _while_connected(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do something that takes time, for as long as the client is there.

        Raises:
            Refusal, StoreError: the step's.
        """
        failure: Refusal | StoreError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exchange.cancel_when_left, nursery.cancel_scope, MAX_AHEAD)
            try:
                await step()
            except (Refusal, StoreError) as error:
                failure = error  # raised below: a nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if failure is not None and not self._exchange.client_left:
            raise failure

    async def _reach(self) -> None:
        """A connection to the bot: one that has been used, where a loss could be mended."""
        if self._repeatable:
            self._bot = self._exchange.front.bots.take(self._url)
        if self._bot is not None:
            return
        with trio.move_on_after(PROMPT) as prompt:
            await self._open()
        if prompt.cancelled_caught:
            await self._while_connected(self._open)

    async def _open(self) -> None:
        self._bot = await open_link(self._url, self._lookup.agent.trust)
        if self._bot is None:
            self._exchange.front.bots.drop(self._url)
            raise Refusal(502, "the session's bot cannot be connected", cause="bot_unreachable")

    @property
    def _repeatable(self) -> bool:
        """Whether the request may be sent again when a connection turns out to be closed.

        Then its answer is the same (RFC 9110 section 9.2.2), and all of it is still here.
        """
        exchange = self._exchange
        assert exchange.body is not None, "only after the parse phase"
        return exchange.head.method in IDEMPOTENT and exchange.body.whole

    async def relay(self) -> None:
        exchange = self._exchange
        if exchange.client_left:
            return
        if self._session_id is None:
            await exchange.reply(204, None, ((b"allow", replies.METHODS),))
            return
        try:
            self._request = self._written()
            if await self._exchanged():
                return
            # The bot has closed a connection that was idle, before it saw the request.
            self._close_bot()
            await self._open()
            await self._exchanged()
        finally:
            self._leave_bot()

    async def _exchanged(self) -> bool:
        """One try; False when it may be made again on a new connection.

        Raises:
            Refusal: as `BotExchange.run`.
        """
        exchange, bot, session_id = self._exchange, self._bot, self._session_id
        assert bot is not None
        assert session_id is not None
        talk = BotTalk(exchange.head.method)
        doing = BotExchange(exchange, bot.leg, talk, self._request)
        try:
            await doing.run(exchange.front.traffic, session_id)
        except Refusal as refusal:
            if bot.reused and talk.untouched and refusal.cause == "bot_died":
                return False
            raise
        if doing.reusable:
            exchange.front.bots.give_back(bot)
            self._bot = None
        return True

    def _written(self) -> bytes:
        """The request for the bot, with what is here of its body."""
        exchange, bot = self._exchange, self._bot
        assert bot is not None
        self._take_body()
        fields = self._lookup.fields_for_bot()
        head = request_head(exchange.head, self._lookup.target, bot.authority, fields)
        return head + self._body

    def _leave_bot(self) -> None:
        self._close_bot()
        if self._session_id is not None:
            session_id, self._session_id = self._session_id, None
            self._exchange.front.traffic.end(session_id)

    def _close_bot(self) -> None:
        if self._bot is not None:
            bot, self._bot = self._bot, None
            bot.close()
