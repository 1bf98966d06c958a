"""What drains: orders as they are sent, what they change, what is forgotten."""

from __future__ import annotations

import json
from itertools import product

import pytest

from relay.errors import Refusal
from relay.policy.drains import MAX_DRAINED, Drains, Order, kept, ordered, parse_order

URL = "http://10.0.0.1:7860"


@pytest.mark.parametrize(
    ("sent", "order"),
    [
        ({"agent": "bot", "on": True}, Order(True, agent="bot")),
        ({"instance": URL, "on": False}, Order(False, instance=URL)),
        ({"instance": f"{URL}/", "on": True}, Order(True, instance=URL)),
        ({"instance": "http://[::1]", "on": True}, Order(True, instance="http://[::1]:80")),
        ({"node": True, "on": True}, Order(True, node=True)),
        ({"agent": "bot", "node": False, "on": True}, Order(True, agent="bot")),
    ],
)
def test_orders(sent: object, order: Order) -> None:
    assert parse_order(json.dumps(sent).encode()) == order


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"on",
        b"[]",
        b"[" * 10_000,
        b"\xff",
        b'{"on": true}',
        b'{"node": true}',
        b'{"node": false, "on": true}',
        b'{"node": true, "on": 1}',
        b'{"node": true, "on": true, "of": 1}',
        b'{"agent": 3, "on": true}',
        b'{"agent": "a", "node": true, "on": true}',
        b'{"agent": "a", "instance": "http://a", "on": true}',
        b'{"instance": "10.0.0.1:7860", "on": true}',
        b'{"instance": "http://a/path", "on": true}',
    ],
)
def test_what_is_no_order(sent: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_order(sent)
    assert (refused.value.status, refused.value.cause) == (400, "bad_drain")


def test_an_order_changes_what_it_names_and_nothing_else() -> None:
    """Whatever drains before, and twice is like once."""
    orders = [
        {"agent": "a"},
        {"instance": URL},
        {"node": True},
    ]
    for before, names, on in product(
        (Drains(), Drains(True, frozenset({"a", "b"}), frozenset({URL, "http://b:1"}))),
        orders,
        (True, False),
    ):
        after = ordered(before, Order(on, **names))  # type: ignore[arg-type]
        assert after == ordered(after, Order(on, **names))  # type: ignore[arg-type]
        assert (after.node if "node" in names else before.node) == (
            on if "node" in names else after.node
        )
        assert after.agents == _with(before.agents, names.get("agent"), on=on)
        assert after.instances == _with(before.instances, names.get("instance"), on=on)


def _with(names: frozenset[str], name: object, *, on: bool) -> frozenset[object]:
    if name is None:
        return frozenset(names)
    return frozenset(names) | {name} if on else frozenset(names) - {name}


def test_there_is_a_bound() -> None:
    many = frozenset(map(str, range(MAX_DRAINED)))
    full = Drains(agents=many, instances=many)
    for order in (Order(True, agent="one more"), Order(True, instance=URL)):
        with pytest.raises(Refusal) as refused:
            ordered(full, order)
        assert (refused.value.status, refused.value.cause) == (409, "too_many_drains")
    assert ordered(full, Order(True, agent="0")) == full
    assert len(ordered(full, Order(False, agent="0")).agents) == MAX_DRAINED - 1


def test_what_is_not_configured_is_forgotten() -> None:
    drains = Drains(True, frozenset({"here", "gone"}), frozenset({URL, "http://gone:1"}))
    assert kept(drains, {"here", "other"}, "http://gone:1".__eq__) == Drains(
        True, frozenset({"here"}), frozenset({URL})
    )
