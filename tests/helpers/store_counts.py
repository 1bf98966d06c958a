"""Who may have which place, counted in plain memory: half of the model of the store."""

from __future__ import annotations

from relay.policy.catalog import Agent
from relay.policy.interfaces import Places
from relay.policy.sessions import Session, SessionState
from relay.store.places import SET_BACK

RESERVED, WAITING, ACTIVE, ENDED = SessionState


class Counted:
    """Sessions and leases, and what follows from them."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.held: dict[tuple[str, str], tuple[str, str]] = {}  # lease -> agent, node

    def placed(self, name: str) -> bool:
        return any(lease[0] == name for lease in self.held)

    def counted(self, node: str, agent: Agent) -> list[str]:
        """The instances of the leases that count for an agent on a node."""
        return [
            instance
            for (_, instance), (name, holder) in self.held.items()
            if name == agent.name and (not agent.command or holder == node)
        ]

    def room(self, node: str, agent: Agent, url: str) -> int:
        return agent.sessions_per_instance - self.counted(node, agent).count(url)

    def spare(self, node: str, name: str, agent: Agent, places: Places, now: float) -> int:
        """Places that are neither taken nor promised to others."""
        promised = [
            session.id
            for session in self.sessions.values()
            if session.agent == agent.name
            and (not agent.command or session.node == node)
            and session.state in (RESERVED, WAITING)
            and is_promise(session, now)
            and session.id != name
            and not self.placed(session.id)
        ]
        later = places.startable * agent.sessions_per_instance
        room = sum(self.room(node, agent, url) for url in places.ready)
        return later + room - len(promised)

    def allowed(self, name: str, agent: Agent, now: float, together: int) -> float:
        """How many further sessions there may be."""
        admitted = [
            session
            for session in self.sessions.values()
            if session.id != name
            and (
                session.state is ACTIVE
                or (session.state is WAITING and self.placed(session.id))
                or (session.state in (RESERVED, WAITING) and is_promise(session, now))
            )
        ]
        left = float("inf")
        if agent.max_sessions:
            left = agent.max_sessions - sum(each.agent == agent.name for each in admitted)
        if together:
            of_it = sum(each.organization == agent.organization for each in admitted)
            left = min(left, together - of_it)
        return left

    def before(self, me: Session, now: float) -> list[Session]:
        """Callers of other nodes who have waited longer and have no promise."""
        return [
            session
            for session in self.sessions.values()
            if (session.state, session.agent) == (WAITING, me.agent)
            and session.node != me.node
            and session.turn < me.turn
            and not is_promise(session, now)
            and not self.placed(session.id)
        ]


def is_promise(session: Session, now: float) -> bool:
    return session.reserved_until > now and session.created <= now + SET_BACK
