"""What a session store does, said once more in plain memory and without regard to speed."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, Places, Reservation, SessionFilter
from relay.policy.sessions import Session, SessionEnd, SessionState

RESERVED, WAITING, ACTIVE, ENDED = SessionState


@dataclass
class Claim:
    """A token that has been let in and not given back."""

    session: str
    until: float
    expires: float


class ModelStore:
    """The calls of `relay.policy.interfaces.Store`, each with the calling node before the rest."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.claimed: dict[str, Claim] = {}
        self.spent: dict[str, float] = {}  # until when it is remembered
        self.held: dict[tuple[str, str], tuple[str, str]] = {}  # lease -> agent, node
        self.to_stop: set[str] = set()

    # What tests ask.

    def claim_lapsed(self, nonce: str, now: float) -> bool:
        claim = self.claimed.get(nonce)
        return nonce not in self.spent and (claim is None or claim.until <= now)

    def claims(self, nonce: str, name: str) -> bool:
        """Whether this token's caller is the one who is in the session."""
        return nonce in self.claimed and self.claimed[nonce].until == max(
            claim.until for claim in self.claimed.values() if claim.session == name
        )

    def is_promised(self, name: str, now: float) -> bool:
        """A waiting caller with a live reservation that has not been placed."""
        session = self.sessions.get(name)
        return (
            session is not None
            and session.state is WAITING
            and session.reserved_until > now
            and all(lease[0] != name for lease in self.held)
        )

    # The store.

    def reserve(
        self, node: str, session: Session, agent: Agent, places: Places, now: float
    ) -> Reservation:
        if not places.any() and not any(name == agent.name for name, _ in self.held.values()):
            return Reservation.NONE_READY
        if self._spare(session.id, agent, places, now) <= 0:
            return Reservation.FULL
        self.sessions[session.id] = session
        return Reservation.HELD

    def admit(self, node: str, session: Session, nonce: str, until: float, now: float) -> Admission:
        if not self.claim_lapsed(nonce, now):
            return Admission.REPLAYED
        known = self.sessions.get(session.id, session)
        claims = [claim.until for claim in self.claimed.values() if claim.session == known.id]
        abandoned = known.state is WAITING and bool(claims) and max(claims) <= now
        if known.id in self.to_stop or not (known.state is RESERVED or abandoned):
            return Admission.OVER
        self.claimed[nonce] = Claim(known.id, until, max(session.expires, until))
        self.sessions[known.id] = replace(
            known,
            state=WAITING,
            node=node,
            admitted=now,
            instance=None,
            reserved_until=until if known.reserved_until > now else 0.0,
        )
        return Admission.ADMITTED

    def lease(self, node: str, name: str, agent: Agent, places: Places, now: float) -> str | None:
        session = self.sessions.get(name)
        if session is None or session.state is not WAITING:
            return None
        if session.reserved_until <= now and self._spare(name, agent, places, now) <= 0:
            return None
        for url in places.ready:
            if self._room(agent, url) > 0 and (name, url) not in self.held:
                self.held[name, url] = (agent.name, node)
                self.sessions[name] = replace(session, instance=url)
                return url
        return None

    def activate(self, node: str, name: str, nonce: str, now: float) -> bool:
        session = self.sessions.get(name)
        if session is None or (session.state, session.node) != (WAITING, node):
            return False
        if name in self.to_stop:
            return False
        self.sessions[name] = replace(session, state=ACTIVE, started=now)
        self.spent[nonce] = self.claimed.pop(nonce).expires
        return True

    def give_back(self, node: str, name: str, nonce: str | None, now: float) -> None:
        session = self.sessions.get(name)
        if session is None or (session.state, session.node) != (WAITING, node):
            return
        self.sessions[name] = replace(
            session, state=RESERVED, reserved_until=0.0, node=None, instance=None
        )
        for each, claim in list(self.claimed.items()):
            if each == nonce or (nonce is None and claim.session == name):
                del self.claimed[each]

    def end(self, node: str, name: str, end: SessionEnd, now: float) -> Session | None:
        session = self.sessions.get(name)
        if session is None or session.state is ENDED:
            return None
        self.sessions[name] = replace(
            session,
            state=ENDED,
            ended=now,
            cause=end.cause,
            close_code=end.code,
            close_reason=end.reason,
            figures=end.figures,
        )
        return self.sessions[name]

    def free(self, node: str, name: str, instance: str) -> None:
        self.held.pop((name, instance), None)

    def request_stop(self, node: str, name: str) -> Session | None:
        session = self.sessions.get(name)
        if session is None or session.state is ENDED:
            return None
        self.to_stop.add(name)
        return session

    def stop_requests(self, node: str) -> list[Session]:
        return [session for session in self.mine(node) if session.id in self.to_stop]

    def get(self, node: str, name: str) -> Session | None:
        return self.sessions.get(name)

    def find(self, node: str, which: SessionFilter) -> tuple[list[Session], int]:
        found = [
            session
            for session in sorted(self.sessions.values(), key=lambda each: (-each.created, each.id))
            if (not which.states or session.state in which.states)
            and which.agent in (None, session.agent)
            and which.organization in (None, session.organization)
            and (not which.causes or session.cause in which.causes)
            and (which.since is None or session.created >= which.since)
            and (which.before is None or session.created < which.before)
        ]
        return found[which.offset :][: which.limit], len(found)

    def mine(self, node: str) -> list[Session]:
        live = (session for session in self.sessions.values() if session.node == node)
        return [session for session in live if session.state in (WAITING, ACTIVE)]

    def leases(self, node: str) -> list[tuple[str, str]]:
        return [lease for lease, (_, holder) in self.held.items() if holder == node]

    def sweep(self, node: str, now: float) -> list[Session]:
        ended = []
        for name in sorted(self.sessions):
            session = self.sessions[name]
            if session.state is RESERVED and (name in self.to_stop or session.expires <= now):
                cause = "stopped" if name in self.to_stop else "unused"
                ended.append(self.end(node, name, SessionEnd(cause), now))
        for nonce, claim in list(self.claimed.items()):
            if claim.expires <= now:
                del self.claimed[nonce]
        self.spent = {nonce: until for nonce, until in self.spent.items() if until > now}
        return [session for session in ended if session is not None]

    def _room(self, agent: Agent, url: str) -> int:
        return agent.sessions_per_instance - sum(instance == url for _, instance in self.held)

    def _spare(self, name: str, agent: Agent, places: Places, now: float) -> int:
        """Places that are neither taken nor promised to others."""
        placed = {lease[0] for lease in self.held}
        promised = [
            session.id
            for session in self.sessions.values()
            if session.agent == agent.name
            and session.state in (RESERVED, WAITING)
            and session.reserved_until > now
            and session.id not in placed | {name}
        ]
        later = places.startable * agent.sessions_per_instance
        return later + sum(self._room(agent, url) for url in places.ready) - len(promised)
