"""The session that a request of the Session API names: found, and waited for."""

from __future__ import annotations

__all__ = ["SESSION_POLL", "SessionLookup"]

import trio

from relay.errors import Refusal
from relay.policy.catalog import Agent
from relay.policy.routes import is_session_id
from relay.policy.sessions import SessionState, Standing
from relay.policy.traces import in_trace
from relay.protocol.forwarding import TRACE_BYTES
from relay.protocol.headers import Field, for_bot
from relay.protocol.target import RESERVED_PATHS, canonical_path
from relay.server.exchange import Exchange
from relay.server.handing import Moved
from relay.server.identifiers import random_bytes
from relay.server.peers import hop_of
from relay.server.start import no_session, public_agent

# A request that waits for its session looks into the store so often, in seconds: a
# caller does not hear the difference, and a hundred of them do not load the store.
SESSION_POLL = 0.1
# Who has waited in vain, or may not wait, may try again after so many seconds.
RETRY_AFTER = 5
# The exchange of WebRTC offers, of use only to bots that were started over HTTP.
OFFER = b"/api/offer"


class SessionLookup:
    """Who asks for which session, and whether it is there.

    Args:
        exchange: routed, with the session's id and the bot's path in its match.

    Raises:
        Refusal: as `public_agent`, and 403 for a path that is not open to callers.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.agent: Agent = public_agent(exchange)
        assert exchange.match is not None, "only after the route phase"
        self.path = exchange.match.rest
        self._canonical = canonical_path(self.path)
        if self._canonical in RESERVED_PATHS:
            raise Refusal(
                403,
                "this path of a bot starts, ends or probes sessions and is not open to callers",
                cause="reserved_path",
            )

    async def active(self) -> Standing:
        """The session once a bot holds it; bounded by the agent's `attach_timeout`.

        Raises:
            Refusal: as `find`, and 429 and 503 for a wait that may not begin or was in vain.
            StoreError: it can't be looked up.
        """
        session = await self.find()
        if session.state is not SessionState.ACTIVE:
            session = await self._wait_active()
        return session

    async def find(self) -> Standing:
        """The session that the path names, as the store has it now: it lives, and is of this agent.

        Raises:
            Refusal: 404 for none that lives, 409 for a path that it cannot serve.
            StoreError: it can't be looked up.
        """
        session_id = self._exchange.names["session"].lower()
        session = None
        if is_session_id(session_id):
            session = await self._exchange.front.store.look(session_id)
        if (
            session is None
            or session.agent != self.agent.name
            or session.state is SessionState.ENDED
        ):
            raise no_session()
        self._exchange.session_id = session.id
        if session.transport == "websocket" and self._canonical == OFFER:
            raise Refusal(
                409,
                "this session was started over WebSocket; offers are for sessions over HTTP",
                cause="not_over_http",
            )
        return session

    @property
    def target(self) -> bytes:
        """Path and query for the bot, as the client sent them."""
        exchange = self._exchange
        return self.path + (b"?" + exchange.url.query if b"?" in exchange.head.target else b"")

    def fields_for_bot(self) -> list[Field]:
        """The fields that the request brings the bot, without Host and framing."""
        exchange = self._exchange
        head = exchange.head
        assert exchange.session_id is not None, "only once the session is found"
        random = random_bytes(TRACE_BYTES)
        fields = for_bot(head, exchange.session_id, exchange.request_id, hop_of(exchange), random)
        return fields if exchange.trace is None else in_trace(fields, exchange.trace)

    async def _wait_active(self) -> Standing:
        """The session once a bot holds it."""
        front, agent = self._exchange.front, self.agent
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
                    if front.successor is not None:
                        raise Moved()
                    session = await self.find()
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
