"""WebSockets through the Session API: a side tunnel to the bot that holds a session.

`GET /v1/public/{agent}/sessions/{id}/{path}` with an upgrade. It is like any other request
to the session until the bot has answered, and like any other tunnel from then on; what
ties it to its session is in `server.side_tunnels`.
"""

from __future__ import annotations

__all__ = ["SessionWebSocket", "session_api"]

import trio

from relay.errors import Refusal
from relay.policy.catalog import Address
from relay.policy.sessions import Session, SessionState
from relay.protocol.handshake import BotAnswer, BotRefusal, asks_for_websocket, check_upgrade
from relay.server.bot_websocket import BotWebSocket, bot_silent
from relay.server.exchange import Exchange
from relay.server.http_proxy import SessionRequest
from relay.server.routing import Handler
from relay.server.session_lookup import SessionLookup
from relay.server.side_tunnels import SideTunnel
from relay.server.start import no_session
from relay.server.upstream import open_bot

# What is left of a session that should have ended just now: a limit of 0 would be none.
LEAST_SECONDS = 0.001
# No trailers follow an upgrade.
NOT_IN_UPGRADES = (b"connection", b"te")


def session_api(exchange: Exchange) -> Handler:
    """The handler of a request of the Session API: a WebSocket's or one for plain HTTP."""
    if asks_for_websocket(exchange.head):
        return SessionWebSocket(exchange)
    return SessionRequest(exchange)


class SessionWebSocket(BotWebSocket):
    """One side tunnel's way from the upgrade request to who relays it."""

    _lookup: SessionLookup
    _session: Session

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._side: SideTunnel | None = None
        self._scope = trio.CancelScope()

    async def authenticate(self) -> None:
        self._lookup = SessionLookup(self._exchange)
        self._offer(self._lookup.agent, check_upgrade(self._exchange.head))

    async def resolve(self) -> None:
        exchange = self._exchange
        try:
            self._answer = await self._while_connected(self._scope)
        except BaseException:
            await self._give_up()
            raise
        if self._answer is None:
            exchange.cause, exchange.keep_alive = "client_left", False
            await self._give_up()

    def _called_off(self) -> Refusal | None:
        return no_session() if self._side is not None and self._side.over else None

    async def _attach(self) -> BotAnswer | BotRefusal:
        front, agent = self._exchange.front, self._agent
        standing = await self._lookup.active()
        side = SideTunnel(front.new_id(), standing.id, self._scope)
        front.sessions.sides.open(side)
        self._side = side
        self._session = session = await self._still_active(standing.id)
        assert session.instance is not None, "an active session is on an instance"
        address = Address.of(session.instance)
        with trio.move_on_after(agent.attach_timeout):
            self._bot = await open_bot(address, agent.trust)
            if self._bot is None:
                raise Refusal(502, "the session's bot cannot be connected", cause="bot_unreachable")
            return await self._shake_hands(
                self._bot, address, self._lookup.target.decode("ascii"), self._fields()
            )
        raise bot_silent(agent)

    async def _still_active(self, session_id: str) -> Session:
        """The session, looked up once its end would be heard of."""
        session = await self._exchange.front.store.get(session_id)
        if session is None or session.state is not SessionState.ACTIVE:
            raise no_session()
        return session

    def _fields(self) -> list[tuple[bytes, bytes]]:
        """The same fields that any request of the Session API brings, but the handshake's."""
        fields = self._lookup.fields_for_bot()
        return [
            field
            for field in fields
            if not field[0].startswith(b"sec-websocket-") and field[0] not in NOT_IN_UPGRADES
        ]

    async def relay(self) -> None:
        answer = self._answer
        if isinstance(answer, BotRefusal):
            await self._give_up()
            await self._pass_refusal(answer)
        elif answer is not None:
            with trio.CancelScope(shield=True):
                try:
                    await self._begin(answer)
                except BaseException:
                    await self._give_up()
                    raise

    async def _begin(self, answer: BotAnswer) -> None:
        side, session = self._side, self._session
        assert side is not None
        assert session.started is not None, "it is active"
        if side.over:
            raise no_session()
        left = session.started + session.max_duration - self._exchange.front.now()
        await self._hand_over(
            self._adoption(answer, side.name, session.id, max(left, LEAST_SECONDS))
        )

    async def _give_up(self) -> None:
        await self._close_bot()
        if self._side is not None:
            self._exchange.front.sessions.sides.leave(self._side)
