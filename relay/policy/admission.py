"""Who may start a session, and what a start request asks for (docs/protocol.md, "Start").

Order of checks, so that nothing is learnt without a key: the key (401), the agent
(404), the key's organization (401), then the body.
"""

from __future__ import annotations

__all__ = [
    "StartRequest",
    "agent_for_key",
    "at_capacity",
    "organization_for_key",
    "organizations_for_key",
    "parse_start",
    "presented_key",
    "start_refused",
]

import json
import math
from dataclasses import dataclass

from relay.errors import Refusal
from relay.policy.catalog import Agent, Catalog
from relay.policy.interfaces import Reservation
from relay.policy.tokens import key_matches
from relay.protocol.body import MAX_BODY, compact_json, encode_body

TRANSPORTS = ("daily", "webrtc", "websocket")
# The documented cap for bodies that do not travel in a URL.
MAX_BOT_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A valid start request.

    Attributes:
        transport: as asked for, None for the SDK and the CLI, which name none.
        body: for a WebSocket session, the body as base64 where one was sent.
        stored: for a WebSocket session, the body as JSON that its bot has to fetch, or b"".
        bot_body: for a session over HTTP, the JSON object that `POST /bot` carries.
        wants_ice: the answer is to name the agent's ICE servers.
    """

    transport: str | None
    body: str | None = None
    stored: bytes = b""
    bot_body: bytes = b"{}"
    wants_ice: bool = False

    @property
    def over_http(self) -> bool:
        """The bot is started at once, by a request that it answers when it has finished."""
        return self.transport != "websocket"


def agent_for_key(
    catalog: Catalog, name: str, authorization: list[bytes], *, private: bool
) -> Agent:
    """The agent that an API key gives access to.

    Args:
        private: only private keys open this route; they also open public ones.

    Raises:
        Refusal: 401 for a missing or foreign key, 404 for an unknown agent.
    """
    opened = _opened(catalog, authorization, private=private)
    agent = catalog.agents.get(name)
    if agent is None:
        raise Refusal(404, "Service not found", cause="unknown_agent")
    if agent.organization not in opened:
        raise _unauthorized("the API key belongs to another organization")
    return agent


def organizations_for_key(catalog: Catalog, authorization: list[bytes]) -> list[str]:
    """The names of the organizations that a private key opens, in the catalog's order.

    Raises:
        Refusal: 401 for a missing, unknown or public key.
    """
    return _opened(catalog, authorization, private=True)


def organization_for_key(catalog: Catalog, name: str, authorization: list[bytes]) -> str:
    """The organization that a private key gives access to, by its name.

    Raises:
        Refusal: 401 for a missing or foreign key, 404 for an unknown organization.
    """
    opened = _opened(catalog, authorization, private=True)
    if name not in catalog.organizations:
        raise Refusal(404, "Organization not found", cause="unknown_organization")
    if name not in opened:
        raise _unauthorized("the API key belongs to another organization")
    return name


def _opened(catalog: Catalog, authorization: list[bytes], *, private: bool) -> list[str]:
    presented = presented_key(authorization)
    opened = []
    for organization in catalog.organizations.values():
        keys = organization.private_keys
        if not private:
            keys = (*keys, *organization.public_keys)
        if key_matches(presented, keys):
            opened.append(organization.name)
    if not opened:
        raise _unauthorized("the API key is not valid here")
    return opened


def presented_key(authorization: list[bytes]) -> bytes:
    """The API key of a request, not judged; raises Refusal, 401, when there is none."""
    if len(authorization) != 1:
        raise _unauthorized("send one header Authorization: Bearer with an API key")
    scheme, _, value = authorization[0].partition(b" ")
    if scheme.lower() != b"bearer" or not value.strip():
        raise _unauthorized("send the header Authorization: Bearer with an API key")
    return value.strip()


def _unauthorized(reason: str) -> Refusal:
    challenge = ((b"www-authenticate", b"Bearer"),)
    return Refusal(401, reason, cause="bad_api_key", headers=challenge)


def parse_start(raw: bytes, agent: Agent) -> StartRequest:
    """Read a start request's JSON.

    Raises:
        Refusal: 400 for what is no start request, 413 for a body that is too large.
    """
    fields = _json_object(raw)
    transport = fields.get("transport")
    if transport is not None and transport not in TRANSPORTS:
        raise _bad(f'"transport" must be one of {", ".join(TRANSPORTS)}', "bad_transport")
    if fields.get("createDailyRoom") not in (None, False):
        raise _bad(
            '"createDailyRoom" is not offered here: there are no Daily rooms; '
            'use "transport": "websocket"',
            "daily_not_offered",
        )
    body = fields.get("body")
    if body is not None and not isinstance(body, dict):
        raise _bad('"body" must be a JSON object', "body_not_object")
    if transport != "websocket":
        return StartRequest(
            transport,
            bot_body=compact_json(body or {}, MAX_BOT_BODY),
            wants_ice=fields.get("enableDefaultIceServers") is True,
        )
    if body is None:
        return StartRequest(transport)
    if agent.websocket_auth == "none":
        raise _bad(
            '"body" needs websocket_auth = "token"; with "none", append ?body= '
            "(base64 of the JSON) to the WebSocket URL yourself",
            "body_without_token",
        )
    if agent.stored_bodies:
        data = compact_json(body, MAX_BOT_BODY)
        if len(data) > MAX_BODY:
            return StartRequest(transport, stored=data)
    return StartRequest(transport, encode_body(body))


def _json_object(raw: bytes) -> dict[str, object]:
    if not raw.strip():
        return {}
    try:
        value = json.loads(
            raw.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_members,
        )
    except ValueError:
        raise _bad("the request body is not JSON in UTF-8", "bad_json") from None
    except RecursionError:
        raise _bad("the request body nests too deeply", "bad_json") from None
    if not isinstance(value, dict):
        raise _bad("the request body must be a JSON object", "bad_json")
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):  # RFC 8259 section 4: readers differ on which one counts
        raise _bad("an object in the request body has a member twice", "bad_json")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def _bad(reason: str, cause: str) -> Refusal:
    return Refusal(400, reason, cause=cause)


def start_refused(answer: Reservation, retry_after: int) -> Refusal:
    """The refusal of a start request that the store has not held a place for.

    Returns:
        429 when full or over `max_sessions`, 400 PCC-1001 when no instance is ready, 503
        when there is no room for the body.
    """
    if answer is Reservation.NONE_READY:
        return not_ready()
    if answer is Reservation.CAPPED:
        return too_many_sessions(retry_after)
    if answer is Reservation.NO_ROOM:
        return bodies_full(retry_after)
    return at_capacity(retry_after)


def at_capacity(retry_after: int, *, status: int = 429) -> Refusal:
    """All places are taken: 429 at once for /start and a full queue, 503 after waiting."""
    return Refusal(
        status,
        "all instances of this agent are in use or reserved; try again later",
        cause="at_capacity",
        error="PCC-AGENT-AT-CAPACITY: all instances of this agent are in use or reserved",
        headers=((b"retry-after", b"%d" % retry_after),),
    )


def too_many_sessions(retry_after: int) -> Refusal:
    """The agent or its organization has as many sessions as it may have (`max_sessions`)."""
    return Refusal(
        429,
        "this agent or its organization has as many sessions as it may have; try again later",
        cause="session_limit",
        error="PCC-AGENT-AT-CAPACITY: the limit of sessions is reached",
        headers=((b"retry-after", b"%d" % retry_after),),
    )


def bodies_full(retry_after: int) -> Refusal:
    """The store holds as many bytes of bodies as it may."""
    return Refusal(
        503,
        "too many large bodies wait for their sessions; try again later, or with a smaller one",
        cause="bodies_full",
        headers=((b"retry-after", b"%d" % retry_after),),
    )


def not_ready() -> Refusal:
    """No instance of the agent is ready and none can be started."""
    return Refusal(
        400,
        "no instance of this agent is ready",
        cause="not_ready",
        code="PCC-1001",
        headers=((b"retry-after", b"5"),),
    )
