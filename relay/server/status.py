"""How this node stands: gathered from store, pool, callers and pumps when somebody asks."""

from __future__ import annotations

__all__ = ["MAX_CALLS", "node_status"]

from collections import Counter

from relay.policy.catalog import Agent
from relay.policy.sessions import SessionState
from relay.policy.status import (
    AgentStatus,
    CallStatus,
    DirectionStatus,
    InstanceStatus,
    NodeStatus,
    PumpStatus,
    QueueEntry,
)
from relay.pump.channel import Figures, Live, Totals
from relay.server.exchange import Front

# Live calls that one answer shows, those first that have been quiet for longest: more
# than anybody reads, and a page of them is 200 KiB.
MAX_CALLS = 500


def why_not(front: Front) -> tuple[str, ...]:
    """Why this node takes no new sessions; nothing when it does."""
    reasons = []
    if front.draining:
        reasons.append("draining")
    if not front.pumps.ready():
        reasons.append("no pump")
    return tuple(reasons)


async def node_status(front: Front, most_calls: int = 0) -> NodeStatus:
    """Everything but what the store keeps of the past.

    Args:
        most_calls: how many live calls to show; 0 asks the pumps for totals only.

    Raises:
        StoreError: the store fails.
    """
    live = await front.store.count_live()
    held = Counter(instance for _session, instance in await front.store.leases())
    pumps, calls = await front.calls.look(most_calls)
    agents = front.catalog.agents.values()
    drained = front.drains.state.instances
    return NodeStatus(
        name=front.name,
        version=front.version,
        public_url=front.catalog.public_url,
        started_at=front.started_at,
        now=front.now(),
        draining=front.draining,
        reasons=why_not(front),
        calls_total=len(front.calls.sessions()),
        agents=tuple(_agent(front, agent, live) for agent in agents),
        instances=tuple(
            InstanceStatus(
                url=url,
                agent=agent,
                state=str(known["state"]),
                sessions=held[url],
                draining=url in drained,
            )
            for agent, entries in front.pool.details().items()
            for url, known in entries.items()
            if "failing" not in known  # a name, which stands for instances
        ),
        pumps=tuple(_pump(index, state, seen.totals) for index, state, seen in pumps),
        queue=tuple(
            QueueEntry(
                session_id=caller.session.id, agent=caller.agent.name, since=caller.session.created
            )
            for caller in front.sessions.queue()
        ),
        calls=tuple(await _calls(front, calls)),
        ends=front.figures.recent_ends(),
        refusals=front.figures.refusals(),
    )


def _agent(front: Front, agent: Agent, live: dict[tuple[str, SessionState], int]) -> AgentStatus:
    places = front.pool.places(agent)
    return AgentStatus(
        name=agent.name,
        organization=agent.organization,
        draining=agent.name in front.drains.state.agents,
        reserved=live.get((agent.name, SessionState.RESERVED), 0),
        waiting=live.get((agent.name, SessionState.WAITING), 0),
        active=live.get((agent.name, SessionState.ACTIVE), 0),
        queue=front.sessions.waiting(agent.name),
        held=front.held[agent.name],
        ready=len(places.ready),
        startable=places.startable,
    )


def _pump(index: int, state: str, totals: Totals | None) -> PumpStatus:
    if totals is None:
        return PumpStatus(index=index, state=state)
    return PumpStatus(
        index=index,
        state=state,
        tunnels=totals.tunnels,
        closing=totals.closing,
        adopted=totals.adopted,
        turns=totals.turns,
        busy=totals.busy,
        longest_turn=totals.longest_turn,
        turn_classes=totals.turn_classes,
        client=_direction(totals.from_client),
        bot=_direction(totals.from_bot),
    )


def _direction(figures: Figures) -> DirectionStatus:
    return DirectionStatus(
        bytes=figures.bytes,
        messages=figures.messages,
        largest_gap=figures.largest_gap,
        held_time=figures.held_time,
        longest_hold=figures.longest_hold,
        gaps=figures.gaps,
        quiet=figures.quiet,
    )


async def _calls(front: Front, calls: list[Live]) -> list[CallStatus]:
    shown = []
    for call in calls:
        session = await front.store.get(call.session)
        if session is None or session.state is SessionState.ENDED:
            continue  # over since its pump was asked
        shown.append(
            CallStatus(
                session_id=call.session,
                agent=session.agent,
                instance=session.instance or "",
                seconds=call.seconds,
                client=_direction(call.from_client),
                bot=_direction(call.from_bot),
            )
        )
    return shown
