"""How things stand, as values of metrics: a `NodeStatus` taken apart."""

from __future__ import annotations

__all__ = ["Sample", "samples_of"]

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from relay.policy.status import AgentStatus, DirectionStatus, InstanceStatus, NodeStatus, PumpStatus

# Bounds of a pump's classes of gaps and of turns, in seconds; each is twice the one before.
GAP_BOUNDS = tuple(0.032 * 2**index for index in range(1, 8))
TURN_BOUNDS = tuple(0.000064 * 2**index for index in range(10))


class Sample(NamedTuple):
    """One value of one metric; of a histogram `value` is the sum if known, and it has counts."""

    name: str
    labels: tuple[str, ...]
    value: float | None
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


def samples_of(status: NodeStatus) -> Iterator[Sample]:
    """Every gauge, and the counters that other processes keep."""
    yield Sample("relay_build_info", (status.version,), 1)
    yield Sample("relay_start_time_seconds", (), status.started_at)
    yield Sample("relay_ready", (), 0 if status.reasons else 1)
    yield Sample("relay_calls", (), status.calls_total)
    for agent in status.agents:
        yield from _agent(agent, node_drains=status.draining)
        of_agent = [each for each in status.instances if each.agent == agent.name]
        states = Counter(_state(each) for each in of_agent)
        for state in ("ready", "busy", "draining", "not_ready"):
            yield Sample("relay_instances", (agent.name, state), states[state])
    for pump in status.pumps:
        yield from _pump(pump)


def _agent(agent: AgentStatus, *, node_drains: bool) -> Iterator[Sample]:
    name = (agent.name,)
    yield Sample("relay_draining", name, int(agent.draining or node_drains))
    yield Sample("relay_sessions", (agent.name, "reserved"), agent.reserved)
    yield Sample("relay_sessions", (agent.name, "waiting"), agent.waiting)
    yield Sample("relay_sessions", (agent.name, "active"), agent.active)
    yield Sample("relay_queue_callers", name, agent.queue)
    yield Sample("relay_held_requests", name, agent.held)
    yield Sample("relay_instances_startable", name, agent.startable)


def _state(instance: InstanceStatus) -> str:
    if instance.draining:
        return "draining"
    if instance.sessions:
        return "busy"
    return "ready" if instance.state == "ready" else "not_ready"


def _pump(pump: PumpStatus) -> Iterator[Sample]:
    name = (str(pump.index),)
    yield Sample("relay_pump_up", name, int(pump.state == "ready"))
    yield Sample("relay_pump_tunnels", name, pump.tunnels)
    yield Sample("relay_pump_adopted_total", name, pump.adopted)
    yield Sample("relay_pump_turns_total", name, pump.turns)
    yield Sample("relay_pump_busy_seconds_total", name, pump.busy)
    yield Sample("relay_pump_longest_turn_seconds", name, pump.longest_turn)
    if pump.turn_classes:
        yield Sample("relay_call_delay_seconds", name, pump.busy, TURN_BOUNDS, pump.turn_classes)
    yield from _direction((*name, "client"), pump.client)
    yield from _direction((*name, "bot"), pump.bot)


def _direction(labels: tuple[str, ...], figures: DirectionStatus) -> Iterator[Sample]:
    yield Sample("relay_call_bytes_total", labels, figures.bytes)
    yield Sample("relay_call_messages_total", labels, figures.messages)
    yield Sample("relay_call_held_seconds_total", labels, figures.held_time)
    if figures.gaps:
        yield Sample("relay_call_gap_seconds", labels, None, GAP_BOUNDS, figures.gaps)
