"""The administration's routes: health, sessions, stop. On a listener of their own."""

from __future__ import annotations

__all__ = ["ADMIN_HANDLERS", "session_record"]

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

import msgspec
import trio

from relay.errors import Refusal
from relay.policy.interfaces import SessionFilter
from relay.policy.routes import Route, is_session_id
from relay.policy.sessions import LIVE, Session, SessionState, public_end
from relay.policy.tokens import key_matches
from relay.server.exchange import Exchange
from relay.server.replies import json_body
from relay.server.routing import Handler
from relay.server.start import no_session, stop_session
from relay.server.status import why_not

MAX_PAGE = 1000


class AdminHandler:
    """What the administration's handlers share: the optional bearer token."""

    # Whether it is answered under any name: what shows no secret and changes nothing.
    any_host = False

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def authenticate(self) -> None:
        token = self._exchange.front.rules.admin_token
        if token is None:
            if not self.any_host:
                self._check_host()
            return
        for value in self._exchange.head.values(b"authorization"):
            scheme, _, presented = value.partition(b" ")
            if scheme.lower() == b"bearer" and key_matches(presented.strip(), (token,)):
                return
        raise Refusal(
            401,
            "send the header Authorization: Bearer with the administration's token",
            cause="bad_admin_token",
            headers=((b"www-authenticate", b"Bearer"),),
        )

    def _check_host(self) -> None:
        """Without a token, only who asks by address or as localhost is answered.

        A web page whose name is made to point here after it was loaded (DNS rebinding)
        asks by that name; a browser lets no page forge it.
        """
        host = (self._exchange.head.value(b"host") or b"").decode("latin-1")
        name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            if name.lower() != "localhost":
                raise Refusal(
                    403,
                    "ask by address or as localhost, or set server.admin_token",
                    cause="admin_host",
                ) from None

    async def resolve(self) -> None:
        """Nothing to find."""


class Livez(AdminHandler):
    """The process serves."""

    async def authenticate(self) -> None:
        """Probes carry no token."""

    async def relay(self) -> None:
        await self._exchange.reply(200, json_body({"status": "ok"}))


class Readyz(AdminHandler):
    """200 while new sessions are taken: not draining, the store answers, a pump is there."""

    async def authenticate(self) -> None:
        """Probes carry no token."""

    async def relay(self) -> None:
        front = self._exchange.front
        await front.store.get("")  # a store that fails makes this a 503
        reasons = why_not(front)
        answer: dict[str, object] = {
            "status": "not ready" if reasons else "ok",
            "reasons": reasons,
        }
        answer["instances"] = front.pool.statistics()
        answer["calls"] = len(front.calls.sessions())
        answer["side_tunnels"] = front.calls.sides.count()
        answer["tasks"] = trio.lowlevel.current_statistics().tasks_living
        await self._exchange.reply(503 if reasons else 200, json_body(answer))


class AllInstances(AdminHandler):
    """Every agent's instances and names of instances, with all that is known of them."""

    async def relay(self) -> None:
        await self._exchange.reply(200, json_body(self._exchange.front.pool.details()))


class UpgradeNode(AdminHandler):
    """Another process takes the node's place; answered when it serves."""

    async def relay(self) -> None:
        await self._exchange.reply(200, json_body(await self._exchange.front.upgrade()))


class Sessions(AdminHandler):
    """A page of sessions, newest first: `?state=&agent=&limit=&offset=`."""

    async def relay(self) -> None:
        values = {
            name: unquote_to_bytes(value).decode("utf-8", "replace")
            for name, value in self._exchange.url.parameters()
        }
        which = SessionFilter(
            states=_states(values.get(b"state", "all")),
            agent=values.get(b"agent") or None,
            limit=_number(values, b"limit", 100, MAX_PAGE),
            offset=_number(values, b"offset", 0, 10**9),
        )
        found, total = await self._exchange.front.store.find(which)
        records = [session_record(session) for session in found]
        await self._exchange.reply(200, json_body({"sessions": records, "total": total}))


class OneSession(AdminHandler):
    """One session's record, or its end."""

    async def relay(self) -> None:
        exchange = self._exchange
        session_id = exchange.names["session"].lower()
        if not is_session_id(session_id):
            raise Refusal(400, "the session id must be a UUID", cause="bad_session_id")
        session = await exchange.front.store.get(session_id)
        if session is None:
            raise no_session()
        exchange.session_id = session_id
        if exchange.head.method != b"DELETE":
            await exchange.reply(200, json_body(session_record(session)))
            return
        await stop_session(exchange.front, session_id)
        await exchange.reply(200, json_body({"status": "terminated", "session_id": session_id}))


ADMIN_HANDLERS: Mapping[Route, type[Handler]] = {
    Route.LIVEZ: Livez,
    Route.READYZ: Readyz,
    Route.ADMIN_INSTANCES: AllInstances,
    Route.ADMIN_UPGRADE: UpgradeNode,
    Route.ADMIN_SESSIONS: Sessions,
    Route.ADMIN_SESSION: OneSession,
}


def session_record(session: Session) -> dict[str, object]:
    """A session as the administration shows it; times in ISO 8601, UTC."""
    ended_state, status = "active", None
    if session.ended is not None:
        ended_state, status = public_end(session.cause, session.transport)
    duration = None
    if session.started is not None and session.ended is not None:
        duration = _seconds(session.ended - session.started)
    return {
        "sessionId": session.id,
        "agent": session.agent,
        "organization": session.organization,
        "state": session.state.value,
        "transport": session.transport,
        "node": session.node,
        "instance": session.instance,
        "createdAt": _iso(session.created),
        "admittedAt": _iso(session.admitted),
        "startedAt": _iso(session.started),
        "endedAt": _iso(session.ended),
        "queuedSeconds": _seconds(session.queued),
        "botStartSeconds": _seconds(session.took),
        "coldStart": session.cold,
        "durationSeconds": duration,
        "cause": session.cause,
        "endState": ended_state,
        "completionStatus": status,
        "closeCode": session.close_code,
        "closeReason": session.close_reason,
        "figures": msgspec.json.decode(session.figures) if session.figures else None,
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _states(name: str) -> tuple[SessionState, ...]:
    if name == "all":
        return ()
    if name == "live":
        return LIVE
    try:
        return (SessionState(name),)
    except ValueError:
        known = ", ".join([*SessionState, "live", "all"])
        raise Refusal(400, f"state must be one of {known}", cause="bad_filter") from None


def _number(values: dict[bytes, str], name: bytes, default: int, most: int) -> int:
    text = values.get(name, str(default))
    # The length first: converting thousands of digits is slow, and refused by Python.
    fits = len(text) <= len(str(most)) and text.isascii() and text.isdigit()
    if not fits or int(text) > most:
        raise Refusal(400, f"{name.decode()} must be a number from 0 to {most}", cause="bad_filter")
    return int(text)
