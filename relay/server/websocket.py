"""`/ws/generic/…`: check the token, find a bot, shake hands on both sides, have it relayed.

The caller gets a 101 only when the bot has answered its own; until then every end is
an HTTP status. The token is claimed before a place is looked for, given back when the
caller could not be served, and spent at the 101.
"""

from __future__ import annotations

__all__ = ["GenericWebSocket", "ProviderWebSocket"]

from urllib.parse import unquote_to_bytes

import trio

from relay.errors import Refusal, StoreError
from relay.policy.admission import at_capacity
from relay.policy.catalog import Address, Agent
from relay.policy.health import Failure, is_silent
from relay.policy.interfaces import SessionFilter
from relay.policy.sessions import SessionEnd, SessionState
from relay.policy.tokens import TOKEN_TTL, Claims, find_carrier, verify
from relay.policy.traces import in_trace
from relay.protocol.body import decode_body
from relay.protocol.bot_request import bot_target
from relay.protocol.handshake import BotAnswer, BotRefusal, check_upgrade
from relay.protocol.headers import for_bot_upgrade
from relay.server.bot_websocket import RETRY_AFTER, BotWebSocket, bot_silent, in_vain
from relay.server.callers import Caller
from relay.server.exchange import Exchange
from relay.server.handing import Moved
from relay.server.peers import hop_of
from relay.server.start import check_open
from relay.server.stored_bodies import stored_body
from relay.server.upstream import BotConnection, open_bot

Parameters = tuple[tuple[bytes, bytes], ...]


class GenericWebSocket(BotWebSocket):
    """One caller's way from the upgrade request to a tunnel."""

    _claims: Claims | None
    _caller: Caller
    _bot_target: str
    _asked = 0.0

    # Is this a WebSocket, for an agent of ours, from somebody who may?

    async def authenticate(self) -> None:
        exchange = self._exchange
        upgrade = check_upgrade(exchange.head)
        parameters = exchange.url.parameters()
        agent = _find_agent(exchange, parameters)
        exchange.agent = agent.name
        self._offer(agent, upgrade)
        self._claims = _check_token(exchange, self._agent, parameters)
        body = decode_body([value for name, value in parameters if name == b"body"])
        # Both checked here, so that nothing is claimed for a request that can't go on.
        self._bot_target = bot_target(self._agent.ws_path, exchange.url.query, body)
        for_bot_upgrade(exchange.head.headers, "", hop_of(exchange))

    # A session, an instance, a bot that answers.

    async def resolve(self) -> None:
        exchange = self._exchange
        check_open(exchange.front, self._agent)
        self._caller = await self._admit()
        exchange.opens(self._caller.session.id)
        try:
            self._answer = await self._while_connected(self._caller.scope)
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
        if self._exchange.guard is not None:
            self._exchange.guard.new_session(self._exchange, None)
        expires = front.now() + TOKEN_TTL
        session_id = self._exchange.session_given or front.new_id()
        return await front.sessions.admit(self._agent, session_id, None, expires)

    def _called_off(self) -> Refusal | None:
        caller = self._caller
        if not caller.stopped:
            given = caller.session.id if caller.nonce is None else None
            return Moved(given) if caller.moving else None
        return Refusal(403, "the session has been stopped", cause="session_stopped")

    async def _attach(self) -> BotAnswer | BotRefusal:
        front, agent = self._exchange.front, self._agent
        with trio.move_on_after(agent.attach_timeout):
            while True:
                instance = await front.sessions.place(self._caller)
                self._bot = await open_bot(Address.of(instance), self._agent.trust)
                if self._bot is not None:
                    return await self._ask(self._bot, instance)
                # Nothing of the request has been seen by a bot: another may serve it.
                front.pool.failed(instance, Failure.UNREACHABLE)
                front.sessions.let_go(self._caller)
        raise await self._too_late()

    async def _ask(self, bot: BotConnection, instance: str) -> BotAnswer | BotRefusal:
        """The bot's answer to the upgrade; the pool is told how the bot took it."""
        front, self._asked = self._exchange.front, trio.current_time()
        pool, session_id = front.pool, self._caller.session.id
        exchange = self._exchange
        fields = for_bot_upgrade(exchange.head.headers, session_id, hop_of(exchange))
        if front.traces is not None:
            fields = in_trace(fields, front.traces.of(session_id))
        if self._agent.stored_bodies:
            fields += await stored_body(front, session_id)
        address = Address.of(instance)
        try:
            answer = await self._shake_hands(bot, address, self._bot_target, fields)
        except Refusal:
            pool.failed(instance, Failure.BROKEN)
            raise
        if isinstance(answer, BotRefusal):
            pool.failed(instance, Failure.REFUSED)
        else:
            pool.served(instance)
        return answer

    async def _too_late(self) -> Refusal:
        """What the caller has waited for in vain."""
        front, agent = self._exchange.front, self._agent
        if self._bot is not None:
            assert self._caller.instance is not None
            if is_silent(self._asked, trio.current_time(), agent.attach_timeout):
                front.pool.failed(self._caller.instance, Failure.SILENT)
            return bot_silent(agent)
        # An instance that holds a call may well say that it is not ready for another.
        busy = SessionFilter(states=(SessionState.ACTIVE,), agent=agent.name, limit=1)
        _, calls = await front.store.find(busy)
        if calls or front.pool.places(agent).ready:
            return at_capacity(RETRY_AFTER, status=503)
        reason = f"no instance of this agent became ready within {agent.attach_timeout:g} s"
        return in_vain(reason, cause="no_instance_ready")

    async def _give_back(self, cause: str) -> None:
        with trio.CancelScope(shield=True):
            await self._close_bot()
            await self._exchange.front.sessions.give_back(self._caller, SessionEnd(cause))

    # The 101 and the pump, or the bot's own refusal.

    async def relay(self) -> None:
        answer = self._answer
        if isinstance(answer, BotRefusal):
            await self._give_back("bot_refused")
            await self._pass_refusal(answer)
        elif answer is not None:
            with trio.CancelScope(shield=True):
                await self._begin(answer)

    async def _begin(self, answer: BotAnswer) -> None:
        """Spend the token, then hand over."""
        caller, front = self._caller, self._exchange.front
        try:
            if not self._frames and front.successor is None:
                await front.pumps.require()  # before the token is spent
            await front.sessions.activate(caller)
        except BaseException:
            await self._give_back("no_instance")
            raise
        name = caller.session.id
        try:
            await self._hand_over(
                self._adoption(answer, name, name, self._agent.max_session_duration)
            )
        except Refusal:
            await self._close_bot()
            await front.sessions.end(name, SessionEnd("pump_died"))
            raise


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
