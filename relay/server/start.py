"""`POST /v1/public/{agent}/start`, preflights, and how a session is stopped."""

from __future__ import annotations

__all__ = [
    "Preflight",
    "StartSession",
    "check_open",
    "is_preflight",
    "no_session",
    "public_agent",
    "stop_session",
]

import secrets

import msgspec

from relay.errors import Refusal
from relay.policy.admission import StartRequest, agent_for_key, parse_start, presented_key
from relay.policy.catalog import Agent
from relay.policy.sessions import SessionState
from relay.policy.tokens import TOKEN_TTL, Claims, mint
from relay.server.exchange import Exchange, Front
from relay.server.http_start import start_over_http
from relay.server.replies import json_body, preflight

# Tokens and ICE credentials are for one caller.
NO_STORE = [(b"cache-control", b"no-store")]
NONCE_BYTES = 12  # 96 bits: no two tokens of five minutes share one


class StartSession:
    """Reserves a place. A WebSocket session gets token and URL, and its bot when it connects;
    a session over HTTP gets its bot at once, in the background."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._agent: Agent | None = None
        self._start: StartRequest | None = None
        self._catalog = exchange.front.catalog

    async def authenticate(self) -> None:
        exchange = self._exchange
        # The agent's own to the end, though a reload may take it away meanwhile.
        self._catalog = exchange.front.catalog
        self._agent = public_agent(exchange)
        if exchange.guard is not None:
            key = presented_key(exchange.head.values(b"authorization"))
            exchange.guard.new_session(exchange, key)
        raw = await exchange.read_body(exchange.front.limits.max_start_request)
        self._start = parse_start(raw, self._agent)

    async def resolve(self) -> None:
        exchange, agent, start = self._exchange, self._agent, self._start
        assert agent is not None
        assert start is not None
        check_open(exchange.front, agent)
        session_id = exchange.front.new_id()
        transport = start.transport or "http"
        session = await exchange.front.sessions.reserve(agent, session_id, transport, start.stored)
        exchange.opens(session_id)
        if start.over_http:
            exchange.front.background.start_soon(
                start_over_http, exchange.front, agent, session, start
            )

    async def relay(self) -> None:
        exchange, agent, start = self._exchange, self._agent, self._start
        assert agent is not None
        assert start is not None
        assert exchange.session_id is not None
        if start.over_http:
            started: dict[str, object] = {"sessionId": exchange.session_id}
            if start.wants_ice and agent.ice_servers:
                # Where the client's WebRTC finds its way; bots have their own settings.
                started["iceConfig"] = {"iceServers": msgspec.to_builtins(agent.ice_servers)}
            await exchange.reply(200, json_body(started), NO_STORE)
            return
        front = exchange.front
        key = self._catalog.organization_of(agent).token_keys[0]
        claims = Claims(
            service_host=agent.service_host,
            session_id=exchange.session_id,
            expires=int(front.now()) + TOKEN_TTL,
            nonce=secrets.token_urlsafe(NONCE_BYTES),
            key_id=key.id,
        )
        answer = {
            "sessionId": exchange.session_id,
            "token": mint(claims, key),
            "wsUrl": self._catalog.ws_url(agent),
        }
        if start.body is not None:
            answer["body"] = start.body
        await exchange.reply(200, json_body(answer), NO_STORE)


async def stop_session(front: Front, session_id: str) -> None:
    """Record the wish to stop and carry it out where the session is held here.

    Raises:
        Refusal: 404 when the session is unknown or has ended.
    """
    state = await front.sessions.stop(session_id)
    if state is None:
        raise no_session()
    if state is SessionState.ACTIVE:
        await front.calls.end(session_id, "stop")


class Preflight:
    """Answers a browser's preflight for any public path; it needs no key."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def authenticate(self) -> None:
        """Nothing: browsers send no credentials here."""

    async def resolve(self) -> None:
        """Nothing."""

    async def relay(self) -> None:
        await self._exchange.reply(204, None, preflight(self._exchange))


def is_preflight(exchange: Exchange) -> bool:
    """A browser's question before a cross-origin request; it never carries credentials."""
    request = exchange.head
    return (
        request.method == b"OPTIONS"
        and exchange.url.segments[:1] == ("v1",)
        and request.value(b"origin") is not None
        and request.value(b"access-control-request-method") is not None
        and request.value(b"authorization") is None
    )


def public_agent(exchange: Exchange) -> Agent:
    """The agent that the path names, for a caller with a public or private key of it.

    Raises:
        Refusal: as `admission.agent_for_key`.
    """
    agent = agent_for_key(
        exchange.front.catalog,
        exchange.names["agent"],
        exchange.head.values(b"authorization"),
        private=False,
    )
    exchange.agent = agent.name
    return agent


def no_session() -> Refusal:
    return Refusal(404, "there is no live session with this id", cause="no_session")


def check_open(front: Front, agent: Agent) -> None:
    """Raises Refusal, 503, when this node takes no new sessions of the agent."""
    if front.ending:
        why = "this node takes no new sessions: it is about to stop"
    elif front.drains.state.node:
        why = "this node takes no new sessions at the moment"
    elif agent.name in front.drains.state.agents:
        why = "this agent takes no new sessions at the moment"
    else:
        return
    raise Refusal(503, why, cause="draining", headers=((b"retry-after", b"5"),))
