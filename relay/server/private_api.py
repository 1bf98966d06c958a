"""The private API: an organization's agents and sessions, for the holder of a private key.

Each route is there twice: `/v1/agents/…`, and `/v1/organizations/{organization}/services/…`
as the official command line asks (docs/protocol.md, "Private API").
"""

from __future__ import annotations

__all__ = ["PRIVATE_HANDLERS"]

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from relay.errors import Refusal
from relay.policy import records
from relay.policy.admission import agent_for_key, organization_for_key, organizations_for_key
from relay.policy.catalog import Agent
from relay.policy.interfaces import SessionFilter
from relay.policy.routes import Route, is_session_id
from relay.policy.sessions import LIVE, Session, SessionState
from relay.server.exchange import Exchange
from relay.server.replies import json_body
from relay.server.routing import Handler
from relay.server.start import stop_session

# What the published API gives without `limit`, and what the command line, which never
# sends one, shows of an agent.
DEFAULT_PAGE = 10
COMMAND_LINE_PAGE = 100
# A page is read and written in one piece: a thousand records are half a megabyte.
MAX_PAGE = 1000
MAX_OFFSET = 10**9
# Unix seconds have ten digits until the year 2286; milliseconds by mistake have more.
MAX_TIME = 10**10 - 1

UNITS = {
    "startTime": "unix seconds",
    "endTime": "unix seconds",
    "startTimeMin": "seconds",
    "startTimeMax": "seconds",
}

STATUSES: dict[str, tuple[SessionState, ...]] = {
    "active": LIVE,
    "ended": (SessionState.ENDED,),
    "all": (),
}
START_TYPES: dict[str, bool | None] = {"cold": True, "warm": False, "all": None}
# A filter of the published API for what does not exist here, and the value that filters
# nothing. Another value is refused: an answer that ignores it would be wrong.
NOT_OFFERED = {"deploymentId": ""}
FILTERS = (
    "limit", "offset", "status", "endState", "startTime", "endTime",
    "startType", "startTimeMin", "startTimeMax", *NOT_OFFERED,
)  # fmt: skip


class PrivateHandler:
    """What the handlers share; each finds out itself what the key opens."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def resolve(self) -> None:
        """Nothing to find."""

    async def answer(self, value: object) -> None:
        await self._exchange.reply(200, json_body(value))


class Organizations(PrivateHandler):
    """The organizations that the key opens."""

    async def authenticate(self) -> None:
        self._names = organizations_for_key(
            self._exchange.front.catalog, self._exchange.head.values(b"authorization")
        )

    async def relay(self) -> None:
        found = [{"id": name, "name": name, "verboseName": name} for name in self._names]
        await self.answer({"organizations": found})


class Services(PrivateHandler):
    """The agents of one organization, or of all that the key opens."""

    async def authenticate(self) -> None:
        catalog = self._exchange.front.catalog
        authorization = self._exchange.head.values(b"authorization")
        name = self._exchange.names.get("organization")
        if name is None:
            self._names = organizations_for_key(catalog, authorization)
        else:
            self._names = [organization_for_key(catalog, name, authorization)]

    async def relay(self) -> None:
        agents = self._exchange.front.catalog.agents.values()
        found = [each for each in agents if each.organization in self._names]
        await self.answer({"services": [records.service_record(each) for each in found]})


class AgentHandler(PrivateHandler):
    """What the routes below one agent share."""

    agent: Agent

    async def authenticate(self) -> None:
        exchange = self._exchange
        catalog, name = exchange.front.catalog, exchange.names["agent"]
        authorization = exchange.head.values(b"authorization")
        organization = exchange.names.get("organization")
        if organization is None:
            self.agent = agent_for_key(catalog, name, authorization, private=True)
        else:
            organization_for_key(catalog, organization, authorization)
            self.agent = _agent_of(catalog.agents.get(name), organization)
        exchange.agent = self.agent.name


class Service(AgentHandler):
    """Whether an agent can be called, and how many calls it has."""

    async def relay(self) -> None:
        front, agent = self._exchange.front, self.agent
        active = SessionFilter(
            states=(SessionState.ACTIVE,),
            agent=agent.name,
            organization=agent.organization,
            limit=0,
        )
        _, count = await front.store.find(active)
        # Bots may say that they are not ready while they hold a session: they work.
        ready = front.pool.places(agent).any() or count > 0
        drains = front.draining or agent.name in front.drains.state.agents
        status = records.service_status(
            agent, ready=ready, available=ready and not drains, active=count
        )
        # The command line reads the member `body` and nothing else.
        wrapped = "organization" in self._exchange.names
        await self.answer({"body": status} if wrapped else status)


class Sessions(AgentHandler):
    """A page of an agent's sessions, newest first."""

    async def authenticate(self) -> None:
        await super().authenticate()
        usual = COMMAND_LINE_PAGE if "organization" in self._exchange.names else DEFAULT_PAGE
        self._which = _filter(_parameters(self._exchange), self.agent, usual)

    async def relay(self) -> None:
        found, total = await self._exchange.front.store.find(self._which)
        shown = [records.session_record(each) for each in found]
        await self.answer({"total_count": total, "sessions": shown})


class OneSession(AgentHandler):
    """One session's record, or its end: Close 1001 to both sides, or a place given up."""

    session: Session

    async def resolve(self) -> None:
        exchange = self._exchange
        session_id = exchange.names["session"].lower()
        if not is_session_id(session_id):
            raise Refusal(400, "the session id must be a UUID", cause="bad_session_id")
        session = await exchange.front.store.get(session_id)
        owner = (self.agent.name, self.agent.organization)
        if session is None or (session.agent, session.organization) != owner:
            raise Refusal(404, "this agent has no session with this id", cause="no_session")
        self.session = session
        exchange.session_id = session_id

    async def relay(self) -> None:
        if self._exchange.head.method != b"DELETE":
            await self.answer(records.session_details(self.session))
            return
        await stop_session(self._exchange.front, self.session.id)
        await self.answer({"status": "terminated", "session_id": self.session.id})


PRIVATE_HANDLERS: Mapping[Route, type[Handler]] = {
    Route.ORGANIZATIONS: Organizations,
    Route.SERVICES: Services,
    Route.SERVICE: Service,
    Route.SESSIONS: Sessions,
    Route.SESSION: OneSession,
}


def _agent_of(agent: Agent | None, organization: str) -> Agent:
    """The agent if it is this organization's; another's is as unknown as one that is not."""
    if agent is None or agent.organization != organization:
        raise Refusal(404, "Service not found", cause="unknown_agent")
    return agent


def _parameters(exchange: Exchange) -> dict[str, str]:
    """The query's filters; other parameters do not matter."""
    found: dict[str, str] = {}
    for raw, value in exchange.url.parameters():
        name = raw.decode("utf-8", "replace")
        if name not in FILTERS:
            continue
        if name in found:
            raise _bad_filter(f"{name} must not be repeated")
        found[name] = unquote_to_bytes(value).decode("utf-8", "replace")
    return found


def _filter(values: dict[str, str], agent: Agent, usual: int) -> SessionFilter:
    """What the query asks for.

    Args:
        usual: the length of a page where it does not say.

    Raises:
        Refusal: 400 for a value that cannot be, with those that can.
    """
    for name, nothing in NOT_OFFERED.items():
        if values.get(name, nothing) != nothing:
            offered = [each for each in FILTERS if each not in NOT_OFFERED]
            raise _bad_filter(f"{name} is not offered here; use {', '.join(offered)}")
    states = _states(values)
    start_type = values.get("startType", "all")
    if start_type not in START_TYPES:
        raise _bad_filter(f"startType must be one of {', '.join(START_TYPES)}")
    return SessionFilter(
        states=states,
        agent=agent.name,
        organization=agent.organization,
        causes=records.causes_of(values.get("endState", "")),
        since=_time(values, "startTime"),
        before=_time(values, "endTime"),
        cold=START_TYPES[start_type],
        # 0 is what the published API has by default, and filters nothing.
        longer=_time(values, "startTimeMin") or None,
        shorter=_time(values, "startTimeMax") or None,
        limit=_number(values, "limit", usual, MAX_PAGE),
        offset=_number(values, "offset", 0, MAX_OFFSET),
    )


def _states(values: dict[str, str]) -> tuple[SessionState, ...]:
    status, end_state = values.get("status", "all"), values.get("endState")
    if status not in STATUSES:
        raise _bad_filter(f"status must be one of {', '.join(STATUSES)}")
    if end_state is None:
        return STATUSES[status]
    known = records.end_states()
    if end_state not in known:
        raise _bad_filter(f"endState must be one of {', '.join(known)}")
    implied = "active" if end_state == records.ACTIVE else "ended"
    if status not in ("all", implied):
        raise _bad_filter(f"endState={end_state} needs status={implied} or none")
    return STATUSES[implied]


def _time(values: dict[str, str], name: str) -> float | None:
    return float(_number(values, name, 0, MAX_TIME)) if name in values else None


def _number(values: dict[str, str], name: str, default: int, most: int) -> int:
    text = values.get(name, str(default))
    # The length first: converting thousands of digits is slow, and refused by Python.
    fits = len(text) <= len(str(most)) and text.isascii() and text.isdigit()
    if not fits or int(text) > most:
        unit = f" ({UNITS[name]})" if name in UNITS else ""
        raise _bad_filter(f"{name} must be a number from 0 to {most}{unit}")
    return int(text)


def _bad_filter(reason: str) -> Refusal:
    return Refusal(400, reason, cause="bad_filter")
