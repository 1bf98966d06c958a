"""What a session store does, said once more in plain memory and without regard to speed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, Places, Reservation, SessionFilter, Wait
from relay.policy.nodes import Estate, Lease, Neighbour
from relay.policy.sessions import Beginning, Session, SessionEnd, SessionState
from relay.store.sqlite import KEEP_TOKENS
from tests.helpers.store_counts import Counted, is_promise

RESERVED, WAITING, ACTIVE, ENDED = SessionState


@dataclass
class Claim:
    """A token that has been let in and not given back."""

    session: str
    until: float
    expires: float


class ModelStore(Counted):
    """The calls of `relay.policy.interfaces.Store`, each with the calling node before the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.claimed: dict[str, Claim] = {}
        self.spent: dict[str, float] = {}  # until when it is remembered
        self.leased: dict[str, float] = {}  # when a shared instance was leased last
        self.to_stop: set[str] = set()
        self.lives: dict[str, tuple[str, int]] = {}  # node -> place, beats since it joined

    # What tests ask.

    def claim_lapsed(self, nonce: str, now: float) -> bool:
        claim = self.claimed.get(nonce)
        return nonce not in self.spent and (claim is None or claim.until <= now)

    def claims(self, nonce: str, name: str) -> bool:
        """Whether this token's caller is the one who is in the session."""
        return nonce in self.claimed and self.claimed[nonce].until == max(
            claim.until for claim in self.claimed.values() if claim.session == name
        )

    def is_promised(self, node: str, name: str, now: float) -> bool:
        """A waiting caller of this node with a live reservation that has not been placed."""
        session = self.sessions.get(name)
        return (
            session is not None
            and (session.state, session.node) == (WAITING, node)
            and is_promise(session, now)
            and not self.placed(name)
        )

    # The store.

    def reserve(
        self,
        node: str,
        session: Session,
        agent: Agent,
        places: Places,
        now: float,
        together: int = 0,
    ) -> Reservation:
        if not places.any() and not self.counted(node, agent):
            return Reservation.NONE_READY
        if self.spare(node, session.id, agent, places, now) <= 0:
            return Reservation.FULL
        if self.allowed(session.id, agent, now, together) <= 0:
            return Reservation.CAPPED
        self.sessions[session.id] = replace(session, node=node)
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
        turns = [
            each.turn
            for each in self.sessions.values()
            if each.agent == known.agent
            and (each.state is WAITING or (each.state is RESERVED and each.turn))
        ]
        kept = known.turn if known.state is RESERVED else 0
        self.sessions[known.id] = replace(
            known,
            state=WAITING,
            node=node,
            admitted=now,
            instance=None,
            cause=None,
            reserved_until=until if is_promise(known, now) else 0.0,
            turn=kept or max(turns, default=0) + 1,
        )
        return Admission.ADMITTED

    def lease(
        self,
        node: str,
        name: str,
        agent: Agent,
        places: Places,
        now: float,
        together: int = 0,
        defer: bool = True,
    ) -> str | Wait:
        session = self.sessions.get(name)
        if session is None or (session.state, session.node) != (WAITING, node):
            return Wait.FULL
        if not is_promise(session, now):
            spare: float = self.spare(node, name, agent, places, now)
            spare = min(spare, self.allowed(name, agent, now, together))
            if spare <= 0:
                return Wait.FULL
            if defer and not agent.command and spare <= len(self.before(session, now)):
                return Wait.BEHIND
        free = [
            url
            for url in places.ready
            if self.room(node, agent, url) > 0 and (name, url) not in self.held
        ]
        if not free:
            return Wait.FULL
        url = free[0]
        if not agent.command:
            url = min(free, key=lambda each: self.leased.get(each, 0.0))
            self.leased[url] = now
        self.held[name, url] = (agent.name, node)
        self.sessions[name] = replace(session, instance=url)
        return url

    def activate(self, node: str, name: str, nonce: str, now: float, beginning: Beginning) -> bool:
        session = self.sessions.get(name)
        if session is None or (session.state, session.node) != (WAITING, node):
            return False
        if name in self.to_stop:
            return False
        self.sessions[name] = replace(
            session,
            state=ACTIVE,
            started=max(now, session.created),
            queued=beginning.queued,
            took=beginning.took,
            cold=beginning.cold,
            pumped=beginning.pumped,
        )
        self.spent[nonce] = self.claimed.pop(nonce).expires
        return True

    def give_back(
        self, node: str, name: str, nonce: str, now: float, cause: str | None = None
    ) -> None:
        session = self.sessions.get(name)
        if session is None or (session.state, session.node) != (WAITING, node):
            return
        self._back(session, cause)
        self.claimed.pop(nonce, None)

    def pass_on(self, node: str, name: str, nonce: str) -> None:
        session = self.sessions.get(name)
        if session is not None and (session.state, session.node) == (WAITING, node):
            self.sessions[name] = replace(session, state=RESERVED, instance=None)
            self.claimed.pop(nonce, None)

    def end(self, node: str, name: str, end: SessionEnd, now: float) -> Session | None:
        session = self.sessions.get(name)
        if session is None or session.state is ENDED:
            return None
        times = (session.started, session.admitted, session.created)
        ended = max(now, next(time for time in times if time is not None))
        if end.lasted is not None and session.started is not None:
            ended = session.started + end.lasted
        self.sessions[name] = replace(
            session,
            state=ENDED,
            ended=ended,
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
            and which.cold in (None, session.cold)
            and (which.longer is None or (session.took or 0) > which.longer)
            and (which.shorter is None or (session.took or 1e9) < which.shorter)
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
                cause = "stopped" if name in self.to_stop else session.cause or "unused"
                ended.append(self.end(node, name, SessionEnd(cause), now))
        for nonce, claim in list(self.claimed.items()):
            if claim.expires <= now - KEEP_TOKENS:
                del self.claimed[nonce]
        self.spent = {
            nonce: until for nonce, until in self.spent.items() if until > now - KEEP_TOKENS
        }
        return [session for session in ended if session is not None]

    # Nodes.

    def join(self, node: str, place: str) -> None:
        for former in [name for name, (at, _) in self.lives.items() if (at, name) != (at, node)]:
            if self.lives[former][0] == place:
                del self.lives[former]
                self._rename(former, node)
        self.lives[node] = (place, 0)

    def beat(self, node: str) -> dict[str, tuple[str, int]] | None:
        """The others with their places and beats."""
        if node not in self.lives:
            return None
        place, beats = self.lives[node]
        self.lives[node] = (place, beats + 1)
        return {name: life for name, life in self.lives.items() if name != node}

    def recover(self, node: str, live: Collection[str], now: float) -> Estate:
        return self._inherit(node, node, live, {}, (), now)

    def take_over(
        self,
        node: str,
        dead: Neighbour,
        now: float,
        pumps: bool,
        ends: Mapping[str, SessionEnd],
        foreign: Collection[str],
    ) -> Estate:
        live = {each.id for each in self.mine(dead.name) if each.state is ACTIVE and each.pumped}
        if not pumps:
            del self.lives[dead.name]
        return self._inherit(dead.name, node, live if pumps else (), ends, foreign, now)

    def _inherit(
        self,
        node: str,
        heir: str,
        live: Collection[str],
        ends: Mapping[str, SessionEnd],
        foreign: Collection[str],
        now: float,
    ) -> Estate:
        ended = []
        for session in self.mine(node):
            claims = [each for each, claim in self.claimed.items() if claim.session == session.id]
            if session.id in live:
                continue
            if session.state is WAITING and claims and session.id not in ends:
                self._back(session, "lost")
                for nonce in claims:
                    del self.claimed[nonce]
            else:
                end = ends.get(session.id, SessionEnd("lost"))
                ended.append(self.end(heir, session.id, end, now))
        leases = []
        for (name, instance), (agent, holder) in list(self.held.items()):
            known = self.sessions[name]
            goes_on = name in live and known.instance == instance
            if holder == node and agent not in foreign and not goes_on:
                self.held[name, instance] = (agent, heir)
                leases.append(Lease(name, instance, agent, known.transport, known.cause))
        return Estate(tuple(each for each in ended if each is not None), tuple(leases))

    def _rename(self, former: str, node: str) -> None:
        for name, session in self.sessions.items():
            if session.node == former:
                self.sessions[name] = replace(session, node=node)
        for lease, (agent, holder) in self.held.items():
            if holder == former:
                self.held[lease] = (agent, node)

    def _back(self, session: Session, cause: str | None) -> None:
        self.sessions[session.id] = replace(
            session,
            state=RESERVED,
            reserved_until=0.0,
            turn=0,
            node=None,
            instance=None,
            cause=cause,
        )
