"""`/ws/generic/…`: check the token, find a bot, shake hands on both sides, have it relayed.

The caller gets a 101 only when the bot has answered its own; until then every end is
an HTTP status. The token is claimed before a place is looked for, given back when the
caller could not be served, and spent at the 101.
"""

from __future__ import annotations

__all__ = ["GenericWebSocket", "ProviderWebSocket"]

from dataclasses import replace
from urllib.parse import unquote_to_bytes

import trio

from relay.errors import Refusal, RelayError, StoreError
from relay.policy.admission import at_capacity
from relay.policy.catalog import Address, Agent
from relay.policy.interfaces import SessionFilter
from relay.policy.sessions import SessionEnd, SessionState
from relay.policy.tokens import TOKEN_TTL, Claims, find_carrier, verify
from relay.protocol.body import decode_body
from relay.protocol.bot_request import bot_target
from relay.protocol.handshake import (
    BotAnswer,
    BotHandshake,
    BotRefusal,
    Upgrade,
    check_upgrade,
    switching,
)
from relay.protocol.headers import end_to_end, for_bot_upgrade, from_bot_upgrade
from relay.pump.channel import MAX_EARLY, Adopt
from relay.server.callers import Caller
from relay.server.exchange import Exchange
from relay.server.start import draining
from relay.server.upstream import BotConnection, open_bot

Parameters = tuple[tuple[bytes, bytes], ...]

# A caller that had to wait in vain may try again after so many seconds.
RETRY_AFTER = 5


class GenericWebSocket:
    """One caller's way from the upgrade request to a tunnel."""

    _agent: Agent
    _upgrade: Upgrade
    _claims: Claims | None
    _caller: Caller
    _bot_target: str

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._bot: BotConnection | None = None
        self._answer: BotAnswer | BotRefusal | None = None

    # Is this a WebSocket, for an agent of ours, from somebody who may?

    async def authenticate(self) -> None:
        exchange = self._exchange
        self._upgrade = check_upgrade(exchange.head)
        parameters = exchange.url.parameters()
        self._agent = _find_agent(exchange, parameters)
        exchange.agent = self._agent.name
        if self._agent.relay == "frames":
            self._upgrade = replace(self._upgrade, extensions=())  # no compression
        self._claims = _check_token(exchange, self._agent, parameters)
        body = decode_body([value for name, value in parameters if name == b"body"])
        # Both checked here, so that nothing is claimed for a request that can't go on.
        self._bot_target = bot_target(self._agent.ws_path, exchange.url.query, body)
        for_bot_upgrade(exchange.head.headers, "")

    # A session, an instance, a bot that answers.

    async def resolve(self) -> None:
        exchange = self._exchange
        if exchange.front.draining:
            raise draining()
        self._caller = await self._admit()
        exchange.session_id = self._caller.session.id
        try:
            self._answer = await self._while_connected()
        except Refusal as refusal:
            waited = refusal.cause in ("at_capacity", "no_instance_ready", "bot_silent")
            await self._give_back("no_instance" if waited else "bot_refused")
            raise
        except StoreError:
            await self._give_back("no_instance")
            raise
        except BaseException:
            await self._give_back("client_left")
            raise
        if self._answer is None:
            exchange.cause, exchange.keep_alive = "client_left", False
            await self._give_back("client_left")

    async def _admit(self) -> Caller:
        front, claims = self._exchange.front, self._claims
        if claims is not None:
            try:
                return await front.sessions.admit(
                    self._agent, claims.session_id, claims.nonce, claims.expires
                )
            except Refusal as refusal:
                # Where no token is needed, a used one is like none.
                used = refusal.cause in ("token_used", "session_over")
                if self._agent.websocket_auth == "token" or not used:
                    raise
        expires = front.now() + TOKEN_TTL
        return await front.sessions.admit(self._agent, front.new_id(), None, expires)

    async def _while_connected(self) -> BotAnswer | BotRefusal | None:
        """Attach for as long as the client is there; None when it has left.

        Raises:
            Refusal: the caller can't be served.
            StoreError: nor can it be known where.
        """
        outcome: BotAnswer | BotRefusal | RelayError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exchange.cancel_when_left, nursery.cancel_scope, MAX_EARLY)
            with self._caller.scope:
                try:
                    outcome = await self._attach()
                except (Refusal, StoreError) as error:
                    outcome = error  # raised below: a nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if self._caller.stopped and not isinstance(outcome, BotAnswer):
            raise Refusal(403, "the session has been stopped", cause="session_stopped")
        if isinstance(outcome, RelayError):
            raise outcome
        return outcome

    async def _attach(self) -> BotAnswer | BotRefusal:
        front, agent = self._exchange.front, self._agent
        with trio.move_on_after(agent.attach_timeout):
            while True:
                instance = await front.sessions.place(self._caller)
                self._bot = await open_bot(Address.of(instance))
                if self._bot is not None:
                    return await self._shake_hands(self._bot, Address.of(instance))
                # Nothing of the request has been seen by a bot: another may serve it.
                front.pool.failed(instance, "cannot connect")
                front.sessions.let_go(self._caller)
        raise await self._too_late()

    async def _too_late(self) -> Refusal:
        """What the caller has waited for in vain."""
        front, agent = self._exchange.front, self._agent
        if self._bot is not None:
            reason = f"the bot did not answer within {agent.attach_timeout:g} s"
            return _in_vain(reason, cause="bot_silent")
        # An instance that holds a call may well say that it is not ready for another.
        busy = SessionFilter(states=(SessionState.ACTIVE,), agent=agent.name, limit=1)
        _, calls = await front.store.find(busy)
        if calls or front.pool.places(agent).ready:
            return at_capacity(RETRY_AFTER, status=503)
        reason = f"no instance of this agent became ready within {agent.attach_timeout:g} s"
        return _in_vain(reason, cause="no_instance_ready")

    async def _shake_hands(self, bot: BotConnection, address: Address) -> BotAnswer | BotRefusal:
        handshake = BotHandshake(self._upgrade)
        fields = for_bot_upgrade(self._exchange.head.headers, self._caller.session.id)
        request = handshake.request(address.authority, self._bot_target, fields)
        return await bot.upgrade(handshake, request)

    async def _give_back(self, cause: str) -> None:
        with trio.CancelScope(shield=True):
            if self._bot is not None:
                await trio.aclose_forcefully(self._bot.stream)
            await self._exchange.front.sessions.give_back(self._caller, SessionEnd(cause))

    # The 101 and the pump, or the bot's own refusal.

    async def relay(self) -> None:
        answer = self._answer
        if isinstance(answer, BotRefusal):
            self._exchange.cause = "bot_refused"
            await self._give_back("bot_refused")
            fields = end_to_end(answer.fields)
            await self._exchange.reply(answer.status, answer.body, fields, passed=True)
        elif answer is not None:
            with trio.CancelScope(shield=True):
                await self._hand_over(answer)

    async def _hand_over(self, answer: BotAnswer) -> None:
        """Spend the token, then give both sockets to who relays them, and sends the 101."""
        exchange, caller, bot = self._exchange, self._caller, self._bot
        front, client = exchange.front, exchange.stream
        assert bot is not None
        assert isinstance(client, trio.SocketStream)
        frames = self._agent.relay == "frames"
        try:
            if not frames:
                front.pumps.require()  # before the token is spent
            await front.sessions.activate(caller)
        except BaseException:
            await self._give_back("no_instance")
            raise
        message = self._adoption(answer, bot.early)
        if frames:
            exchange.status = 101
            exchange.leave()
            # Taken out of the stream, which is closed with its connection's task.
            taken = trio.socket.socket(fileno=client.socket.detach())
            front.calls.frames.adopt(message, trio.SocketStream(taken), bot.stream)
            return
        try:
            await front.pumps.adopt(message, client.socket.fileno(), bot.stream.socket.fileno())
        except Refusal:
            await trio.aclose_forcefully(bot.stream)
            await front.sessions.end(message.session, SessionEnd("pump_died"))
            raise
        exchange.status = 101
        exchange.leave()
        client.socket.close()
        bot.stream.socket.close()

    def _adoption(self, answer: BotAnswer, early: bytes) -> Adopt:
        """The call as its relay is told of it; `early` came behind the bot's 101."""
        exchange, session_id = self._exchange, self._caller.session.id
        own = [
            (b"X-Daily-Session-Id", session_id.encode()),
            (b"X-Request-Id", exchange.request_id.encode()),
        ]
        chosen = BotAnswer(
            answer.subprotocol, answer.extensions, tuple(from_bot_upgrade(answer.fields))
        )
        return Adopt(
            tunnel=session_id,
            session=session_id,
            preface=switching(self._upgrade.key, chosen, own),
            from_client=exchange.heads.take(),
            from_bot=early,
            rsv=answer.rsv,
            max_message=self._agent.max_message_size,
            max_seconds=self._agent.max_session_duration,
            idle_seconds=self._agent.idle_timeout,
            ping_seconds=self._agent.ping_interval,
            close_timeout=exchange.front.limits.close_timeout,
            watched=bool(self._agent.command),
        )


class ProviderWebSocket:
    """`/ws/twilio` and the like: refused with a line that says what to use instead."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def authenticate(self) -> None:
        if self._exchange.names["provider"] not in ("twilio", "telnyx", "plivo", "exotel"):
            raise Refusal(404, "there is nothing at this path", cause="no_such_path")
        raise Refusal(
            501,
            "provider paths are not available in this version; point the provider at the "
            "wsUrl of /start with the token as the last path segment",
            cause="provider_path",
        )

    async def resolve(self) -> None:
        """Never reached."""

    async def relay(self) -> None:
        """Never reached."""


def _in_vain(reason: str, *, cause: str) -> Refusal:
    headers = ((b"retry-after", b"%d" % RETRY_AFTER),)
    return Refusal(503, reason, cause=cause, headers=headers)


def _find_agent(exchange: Exchange, parameters: Parameters) -> Agent:
    in_query = [value for name, value in parameters if name == b"serviceHost"]
    given = {unquote_to_bytes(value).decode("utf-8", "replace") for value in in_query}
    if "host" in exchange.names:
        given.add(exchange.names["host"])
    if len(given) > 1 or len(in_query) > 1:
        raise Refusal(400, "the service host is given more than once", cause="two_service_hosts")
    if not given:
        raise Refusal(
            400,
            "name the agent: /ws/generic/{agent}.{organization} or ?serviceHost=",
            cause="no_service_host",
        )
    agent = exchange.front.catalog.by_service_host(given.pop())
    if agent is None:
        raise Refusal(404, "no agent has this service host", cause="unknown_service_host")
    return agent


def _check_token(exchange: Exchange, agent: Agent, parameters: Parameters) -> Claims | None:
    """The claims of the caller's token; None only where none is needed."""
    token = find_carrier(
        exchange.head.values(b"authorization"),
        [value for name, value in parameters if name == b"token"],
        exchange.names.get("token"),
    )
    keys = exchange.front.catalog.organization_of(agent).token_keys
    if token is None:
        if agent.websocket_auth == "none":
            return None
        raise Refusal(
            403,
            "a token is needed: Authorization: Bearer, ?token= or as the last path segment",
            cause="token_missing",
        )
    try:
        return verify(token, keys, agent.service_host, exchange.front.now())
    except Refusal:
        if agent.websocket_auth == "none":
            return None  # decided: where none is needed an invalid one is ignored
        raise
