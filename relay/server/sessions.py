"""The daemon's desk: reserve, admit, place, activate, give back, end.

Moves sessions through the store, keeps callers in line for instances, and lets an
instance go only when its bot has really ended.
"""

from __future__ import annotations

__all__ = ["SessionKeeper"]

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

import msgspec
import trio

from relay.errors import Refusal, StoreError
from relay.policy.admission import at_capacity, start_refused
from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission, InstancePool, Log, Reservation, Store
from relay.policy.nodes import Estate, Neighbour
from relay.policy.sessions import Beginning, Session, SessionEnd, SessionState
from relay.policy.tokens import TOKEN_TTL
from relay.pump.channel import Finished
from relay.server.callers import Caller, session_over, token_used
from relay.server.ends import end_of, is_deaf
from relay.server.handing import Moved, Successor
from relay.server.placement import Placement
from relay.server.rules import Rules
from relay.server.settling import Settling, insist
from relay.server.side_tunnels import SideTunnels, is_side
from relay.server.traffic import Traffic

# A token's claim outlasts the longest attach by this, so that it never lapses under
# a caller who is being served.
CLAIM_MARGIN = 10.0


class SessionKeeper:
    """See the module; one per daemon.

    Args:
        nursery: where instances are let go in the background; it outlives connections.

    Attributes:
        sides: further WebSockets of sessions, which end with them.
        settling: instances that are free in a moment.
        elsewhere: sessions that an earlier control process still holds.
    """

    def __init__(
        self,
        rules: Rules,
        store: Store,
        pool: InstancePool,
        traffic: Traffic,
        log: Log,
        now: Callable[[], float],
        nursery: trio.Nursery,
    ) -> None:
        self._rules = rules
        self._store = store
        self._pool = pool
        self._traffic = traffic
        self._log = log
        self._now = now
        self._nursery = nursery
        self._callers: dict[str, Caller] = {}
        self._waiting: Counter[str] = Counter()
        self._placement = Placement(rules, store, pool, now)
        self._successor: Successor | None = None
        self.sides = SideTunnels(rules, log)
        self.settling = Settling(store, pool, self.sides, log, nursery)
        self.elsewhere: Collection[str] = ()

    async def reserve(
        self, agent: Agent, session_id: str, transport: str, body: bytes = b""
    ) -> Session:
        """A reserved session for /start, with the body that is to be stored.

        Raises:
            Refusal: as `admission.start_refused`.
        """
        await self._pool.wait_known(agent)
        now = self._now()
        session = self._new(agent, session_id, transport, now, expires=now + TOKEN_TTL)
        places = self._pool.places(agent)
        together = self._rules.catalog.max_together(agent)
        held = await self._store.reserve(session, agent, places, now, together, body)
        if held is not Reservation.HELD:
            raise start_refused(held, self._retry_after())
        return session

    def _new(
        self, agent: Agent, session_id: str, transport: str, now: float, *, expires: float
    ) -> Session:
        return Session(
            id=session_id,
            agent=agent.name,
            organization=agent.organization,
            state=SessionState.RESERVED,
            created=now,
            reserved_until=now + self._rules.limits.reservation_timeout,
            expires=expires,
            max_duration=agent.max_session_duration,
            transport=transport,
        )

    def _retry_after(self) -> int:
        return max(1, math.ceil(self._rules.limits.reservation_timeout / 10))

    async def admit(
        self,
        agent: Agent,
        session_id: str,
        nonce: str | None,
        expires: float,
        transport: str = "websocket",
    ) -> Caller:
        """Claim the token and let its caller in, as a waiting session.

        Raises:
            Refusal: 403 for a token that was used, or whose session is over; 429 when
                too many callers wait already.
        """
        if self._successor is not None:
            raise Moved(None if nonce is not None else session_id)
        here = self._callers.get(session_id)
        if here is not None:  # its claim may have lapsed, it may not be called dead
            raise token_used() if here.nonce == nonce else session_over()
        if self._waiting[agent.name] >= self._rules.limits.max_waiting:
            raise at_capacity(self._retry_after())
        # Counted before the store is asked, so that a crowd does not pass the bound at once.
        self._waiting[agent.name] += 1
        try:
            session = self._new(agent, session_id, transport, self._now(), expires=expires)
            session = msgspec.structs.replace(session, reserved_until=0.0)
            await self._claim(agent, session, nonce)
        except BaseException:
            self._waiting[agent.name] -= 1
            raise
        caller = Caller(session, agent, nonce)
        self._callers[session_id] = caller
        return caller

    async def _claim(self, agent: Agent, session: Session, nonce: str | None) -> None:
        until = session.created + agent.attach_timeout + CLAIM_MARGIN
        admission = await self._store.admit(session, nonce, until, session.created)
        if admission is Admission.REPLAYED:
            raise token_used()
        if admission is Admission.OVER:
            raise session_over()

    async def place(self, caller: Caller) -> str:
        """Wait, first come first served, for an instance and lease it; see `Placement`."""
        if self._successor is not None:
            caller.move()
            await trio.lowlevel.checkpoint()
        return await self._placement.place(caller)

    async def activate(self, caller: Caller) -> None:
        """The bot has answered: the token is spent, the session active.

        Raises:
            Refusal: 403 when the session was stopped meanwhile.
        """
        beginning = Beginning(
            queued=caller.queued,
            took=trio.current_time() - caller.since,
            cold=caller.cold,
            pumped=caller.agent.relay == "tunnel" or caller.session.transport != "websocket",
        )
        session_id, now = caller.session.id, self._now()
        if not await self._store.activate(session_id, caller.nonce, now, beginning):
            raise Refusal(403, "the session has been stopped", cause="session_stopped")
        self._leave(caller)

    async def give_back(self, caller: Caller, end: SessionEnd) -> None:
        """The caller is not served: release token and instance.

        With a token the session stays and the token may be used again; without one, or
        when it was stopped, the session ends for the cause in `end`.
        """
        self._leave(caller)
        with trio.CancelScope(shield=True):
            try:
                await self._hand_back(caller, end)
            except StoreError as error:
                # The caller gets its answer now; the store is told when it is back.
                self._log.failure("store", error)
                self._nursery.start_soon(insist, partial(self._hand_back, caller, end), self._log)
        for instance in (caller.instance, caller.missed):
            if instance is not None:
                self.settling.begin(caller.agent, instance, caller.session.id)
        caller.instance = caller.missed = None

    async def _hand_back(self, caller: Caller, end: SessionEnd) -> None:
        session_id = caller.session.id
        if caller.moving and not caller.stopped:
            await self._store.pass_on(session_id, caller.nonce or "")
        elif caller.stopped or caller.nonce is None:
            await self._record_end(session_id, SessionEnd("stopped") if caller.stopped else end)
        elif session_id not in self._callers:  # unless its claim has lapsed and it is here again
            await self._store.give_back(session_id, caller.nonce, self._now(), end.cause)

    def let_go(self, caller: Caller) -> None:
        """No bot could be reached at the caller's instance: it is free when it tries again."""
        caller.missed, caller.instance = caller.instance, None

    def queue(self) -> list[Caller]:
        """Callers who wait for a bot, in the order in which they came."""
        return list(self._callers.values())

    def waiting(self, agent: str) -> int:
        """How many of them are this agent's."""
        return self._waiting[agent]

    def is_waiting(self, caller: Caller) -> bool:
        """Whether the caller has been neither activated nor given back."""
        return self._callers.get(caller.session.id) is caller

    def _leave(self, caller: Caller) -> None:
        if self._callers.get(caller.session.id) is caller:
            del self._callers[caller.session.id]
            self._waiting[caller.agent.name] -= 1

    async def tunnel_ended(self, report: Finished) -> None:
        """Record the end of an active session and free its instance when it has settled.

        The end of a side tunnel is only told.
        """
        if is_side(report.tunnel, report.session):
            self.sides.ended(report)
            return
        await self.end(report.session, end_of(report))

    async def bot_failed(self, session_id: str) -> bool:
        """Whether the bot, which has closed its connection, has died of a failure."""
        try:
            session = await self._store.get(session_id)
        except StoreError:
            return False
        if session is None or session.instance is None:
            return False
        return await self._pool.has_failed(session.instance)

    async def end(self, session_id: str, end: SessionEnd) -> None:
        """End a session for whatever cause; its instance is let go when it has settled."""
        session = await insist(partial(self._record_end, session_id, end), self._log)
        await self.sides.end(session_id, "session ended")
        if session is not None and session.instance is not None:
            agent = self._rules.catalog.agents.get(session.agent)
            deaf = is_deaf(session.transport, end.cause)
            self.settling.begin(agent, session.instance, session_id, deaf=deaf)

    async def _record_end(self, session_id: str, end: SessionEnd) -> Session | None:
        session = await self._store.end(session_id, end, self._now())
        if session is not None:
            self._ended(session)
        return session

    def _ended(self, session: Session) -> None:
        """Every end that this node has recorded comes here, once."""
        self._log.session_end(session)
        agent = self._rules.catalog.agents.get(session.agent)
        # The bot may be given to another session after that time.
        self._traffic.session_ended(session.id, agent.settle_time if agent else 0.0)

    # Stopping.

    async def stop(self, session_id: str) -> SessionState | None:
        """Ask for a live session's end; the state it was in, or None if it is not live.

        A reserved session ends here. A waiting one is called off. An active one is the
        pump's: the caller tells it.
        """
        session = await self._store.request_stop(session_id)
        if session is None:
            return None
        if session.state is SessionState.RESERVED:
            await self.end(session_id, SessionEnd("stopped"))
        elif (caller := self._callers.get(session_id)) is not None:
            caller.stopped = True
            caller.scope.cancel()
        return session.state

    # After a death.

    async def reconcile(self, live: set[str]) -> None:
        """Bring the store in line with the tunnels that are really there, after a restart.

        Sessions that an earlier control process was attaching go back to their callers;
        active ones without a tunnel have been lost; leases of neither are let go.
        """
        for session_id, instance in await self._store.leases():
            self._pool.taken(instance, session_id)
        known = live.union(self._callers, self.elsewhere)
        self._inherit(await self._store.recover(known, self._now()))
        self._pool.reconciled()

    async def take_over(
        self, dead: Neighbour, *, pumps: bool, ends: Mapping[str, SessionEnd]
    ) -> Estate | None:
        """Clear up after another node; see `Store.take_over`.

        Raises:
            StoreError: nothing was done.
        """
        foreign = [agent.name for agent in self._rules.catalog.agents.values() if agent.command]
        estate = await self._store.take_over(
            dead, self._now(), pumps=pumps, ends=ends, foreign=foreign
        )
        if estate is not None:
            for lease in estate.leases:
                self._pool.taken(lease.instance, lease.session)
            self._inherit(estate)
        return estate

    def _inherit(self, estate: Estate) -> None:
        for session in estate.ended:
            self._ended(session)
        for lease in estate.leases:
            agent = self._rules.catalog.agents.get(lease.agent)
            deaf = is_deaf(lease.transport, lease.cause)
            self.settling.begin(agent, lease.instance, lease.session, deaf=deaf)

    # Before the end, where the next process goes on.

    def hand_over(self, successor: Successor) -> set[str]:
        """Send callers who wait for a place to the next process; who is still in hand here."""
        self._successor = successor
        self.settling.hand_over(successor)
        for caller in self._callers.values():
            if caller.instance is None:
                caller.move()
        return set(self._callers)

    async def sweep(self) -> None:
        """End reservations that nobody claimed, forget what is old."""
        for session in await self._store.sweep(self._now()):
            self._ended(session)
