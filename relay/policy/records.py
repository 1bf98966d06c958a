"""Agents and sessions as the private API shows them (docs/protocol.md, "Private API").

Laws:
- A session's record follows from the stored session alone.
- A session that has not ended has the endState `active`, no `endedAt` and no completion
  status; one that has ended has all three.
- Its events are in the order of their times, and the last one is an end exactly when it
  has ended.
"""

from __future__ import annotations

__all__ = [
    "ACTIVE",
    "causes_of",
    "end_states",
    "iso",
    "service_record",
    "service_status",
    "session_details",
    "session_record",
]

from datetime import UTC, datetime

from relay.policy.catalog import Agent
from relay.policy.sessions import END_STATES, Session, public_end

ACTIVE = "active"

Record = dict[str, object]


def end_states() -> list[str]:
    """Every endState that a session may have, `active` first."""
    return [ACTIVE, *sorted({state for state, _ in END_STATES.values()})]


def causes_of(end_state: str) -> tuple[str, ...]:
    """The causes of an end that are shown as this endState; none for `active`."""
    return tuple(cause for cause, (state, _) in END_STATES.items() if state == end_state)


def session_record(session: Session) -> Record:
    """One session; times in ISO 8601, UTC, with milliseconds and `Z`."""
    end_state, completion = ACTIVE, None
    if session.ended is not None:
        end_state, completion = public_end(session.cause, session.transport)
    times = (session.created, session.admitted, session.started, session.ended)
    return {
        "sessionId": session.id,
        "serviceId": f"{session.agent}.{session.organization}",
        "organizationId": session.organization,
        "deploymentId": None,
        "createdAt": iso(session.created),
        "updatedAt": iso(max(time for time in times if time is not None)),
        "endedAt": iso(session.ended) if session.ended is not None else None,
        "botStartSeconds": None if session.took is None else round(session.took),
        "coldStart": session.cold,
        "completionStatus": completion,
        "endState": end_state,
        "events": [
            {"eventCode": code, "eventTs": iso(at)} for code, at in _events(session, end_state)
        ],
    }


def session_details(session: Session) -> Record:
    """One session with what only its own page has; nothing of it is measured here."""
    return session_record(session) | {"resourceMetrics": None, "meetingIds": []}


def _events(session: Session, end_state: str) -> list[tuple[str, float]]:
    events = [("SESSION_START_INITIATED", session.created)]
    if session.started is not None:
        events.append(("REQUEST_ARRIVED_AT_BOT", session.started))
    if session.ended is not None:
        in_vain = end_state == "agent_start_timeout"
        code = "SESSION_TIMEOUT" if in_vain else "SESSION_COMPLETED"
        events.append((code, session.ended))
    return events


def service_record(agent: Agent) -> Record:
    """One agent in a list. It has no region, no deployments and no dates: it is configured."""
    return {
        "id": agent.service_host,
        "name": agent.name,
        "organizationId": agent.organization,
        "region": None,
        "desiredDeploymentId": None,
        "activeDeploymentId": None,
        "reconciledDeploymentId": None,
        "createdAt": None,
        "updatedAt": None,
        "deletedAt": None,
    }


def service_status(agent: Agent, *, ready: bool, available: bool, active: int) -> Record:
    """One agent's state.

    Args:
        ready: an instance is ready, or holds a session.
        available: a start would not be refused for lack of an instance that works.
        active: sessions that a bot holds.
    """
    least = most = len(agent.instances)
    if agent.command:
        least, most = agent.min_agents, agent.max_agents
    duration = agent.max_session_duration
    errors = [] if ready else [{"code": "PCC-1001", "message": "no instance is ready"}]
    return {
        "id": agent.service_host,
        "name": agent.name,
        "organizationId": agent.organization,
        "ready": ready,
        "available": available,
        "activeDeploymentReady": ready,
        "activeSessionCount": active,
        "autoScaling": {"minReplicas": least, "maxReplicas": most},
        "websocketAuth": agent.websocket_auth,
        "deployment": {
            "manifest": {
                "spec": {
                    # A whole number where it is one, as other servers write it.
                    "maxSessionDurationSeconds": int(duration) if duration % 1 == 0 else duration
                }
            }
        },
        "errors": errors,
    }


def iso(seconds: float) -> str:
    """A time in ISO 8601, UTC, with milliseconds and `Z`."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
