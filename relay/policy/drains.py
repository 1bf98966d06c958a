"""What takes no new sessions because an operator says so (docs/operations.md, "Drains")."""

from __future__ import annotations

__all__ = ["MAX_DRAINED", "Drains", "Order", "kept", "ordered", "parse_order"]

from collections.abc import Callable, Collection

import msgspec

from relay.errors import Refusal
from relay.policy.catalog import Address

# Agents, or instances, that drain at a time: somebody named each of them, and the file that
# keeps them stays below 3 MB with the longest names.
MAX_DRAINED = 10_000


class Drains(msgspec.Struct, frozen=True):
    """What drains on this node: what is live there goes on, nothing new is begun.

    Attributes:
        agents: by name. instances: by base URL.
    """

    node: bool = False
    agents: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()

    def shown(self) -> dict[str, object]:
        """As a JSON object, for callers and for the file."""
        agents, instances = sorted(self.agents), sorted(self.instances)
        return {"node": self.node, "agents": agents, "instances": instances}


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish that one of the three drains from now on, or does no longer."""

    on: bool
    agent: str | None = None
    instance: str | None = None
    node: bool = False


def parse_order(raw: bytes) -> Order:
    """The order in a request body; an instance's URL in its usual spelling.

    Raises:
        Refusal: 400, it is none.
    """
    try:
        order = msgspec.json.decode(raw, type=Order)
        named = (order.agent is not None) + (order.instance is not None) + order.node
        if named != 1:
            raise ValueError("expected exactly one of agent, instance and node")
        if order.instance is not None:
            url = Address.of(order.instance).url
            order = msgspec.structs.replace(order, instance=url)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Refusal(
            400,
            f'expected {{"agent": NAME}}, {{"instance": URL}} or {{"node": true}} with "on": '
            f"true or false; {str(error)[:200]}",
            cause="bad_drain",
        ) from None
    return order


def ordered(drains: Drains, order: Order) -> Drains:
    """What drains after an order.

    Raises:
        Refusal: 409, more would drain than `MAX_DRAINED`.
    """
    if order.node:
        return msgspec.structs.replace(drains, node=order.on)
    if order.agent is not None:
        agents = _changed(drains.agents, order.agent, order.on)
        return msgspec.structs.replace(drains, agents=agents)
    assert order.instance is not None
    instances = _changed(drains.instances, order.instance, order.on)
    return msgspec.structs.replace(drains, instances=instances)


def _changed(names: frozenset[str], name: str, on: bool) -> frozenset[str]:
    changed = names | {name} if on else names - {name}
    if len(changed) > MAX_DRAINED:
        raise Refusal(
            409, f"{MAX_DRAINED} of these drain already; drain the node", cause="too_many_drains"
        )
    return changed


def kept(drains: Drains, agents: Collection[str], gone: Callable[[str], bool]) -> Drains:
    """What still drains when it is known what is configured.

    Args:
        agents: that are configured.
        gone: whether an instance is none any more, for certain.
    """
    return Drains(
        node=drains.node,
        agents=frozenset(name for name in drains.agents if name in agents),
        instances=frozenset(url for url in drains.instances if not gone(url)),
    )
