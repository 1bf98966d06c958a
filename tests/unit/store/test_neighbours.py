"""Nodes on one file: who lives, whose name is taken, and what becomes of what the dead held."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.policy.catalog import Agent
from relay.policy.interfaces import Places
from relay.policy.nodes import Neighbour
from relay.policy.sessions import Beginning, SessionEnd, SessionState
from relay.store.sqlite import SQLiteStore
from tests.helpers.store import (
    AGENT,
    BEGAN,
    LAUNCHED,
    LONG,
    NOW,
    A,
    B,
    direct,
    session,
    state_of,
    waiting,
)

RESERVED, WAITING, ACTIVE, ENDED = SessionState


def nobody(place: str) -> bool:
    return False


async def joined(*stores: SQLiteStore) -> None:
    for number, store in enumerate(stores):
        await store.join(f"/run/{number}", nobody)


async def seen(store: SQLiteStore) -> Neighbour:
    (neighbour,) = await store.beat() or []
    return neighbour


async def active(
    store: SQLiteStore, name: str, places: Places, agent: Agent = AGENT, *, pumped: bool = True
) -> None:
    await store.admit(direct(name, agent=agent.name), f"n-{name}", LONG, NOW)
    assert isinstance(await store.lease(name, agent, places, NOW, defer=False), str)
    began = Beginning(queued=0.0, took=0.0, cold=False, pumped=pumped)
    assert await store.activate(name, f"n-{name}", NOW, began)


async def test_nodes_see_each_other_beat(store: SQLiteStore, other: SQLiteStore) -> None:
    assert await store.beat() is None  # it has not joined
    await joined(store, other)
    first = await seen(store)
    assert (first.name, first.place) == ("node-2", "/run/1")
    assert await seen(store) == first
    await other.beat()
    assert (await seen(store)).beat > first.beat
    await other.join("/run/1", nobody)
    assert (await seen(store)).life != first.life


async def test_a_name_is_for_one_place(store: SQLiteStore, path: Path) -> None:
    """A copied runtime directory has the name of another node in it."""
    await store.join("/run/0", nobody)
    copy = SQLiteStore(path, "node-1")
    asked = []

    def held(place: str) -> bool:
        asked.append(place)
        return True

    with pytest.raises(ConfigError, match=r"server\.runtime_dir: /run/copy: .* /run/0; remove"):
        await copy.join("/run/copy", held)
    assert asked == ["/run/0"]
    assert await copy.beat() is None
    assert await store.beat() == []
    # Moved, or left by one that is dead: the name goes along.
    await copy.join("/run/moved", nobody)
    assert await copy.beat() == []
    assert await store.beat() is None
    # Its own place is never in the way.
    await copy.join("/run/moved", held)
    copy.close()


async def test_a_name_that_was_lost_is_found_by_its_place(path: Path, store: SQLiteStore) -> None:
    await store.join("/run/0", nobody)
    await active(store, "s", Places((A,)))
    renamed = SQLiteStore(path, "node-9")
    await renamed.join("/run/0", nobody)
    assert await renamed.leases() == [("s", A)]
    assert await store.leases() == []
    assert await store.beat() is None
    estate = await renamed.recover((), NOW)
    assert [(each.id, each.cause) for each in estate.ended] == [("s", "lost")]
    renamed.close()


async def test_what_a_dead_node_held(store: SQLiteStore, other: SQLiteStore) -> None:
    await joined(store, other)
    await active(other, "talks", Places((A,)))
    await waiting(other, "waits")
    await other.lease("waits", AGENT, Places((B,)), NOW)
    await other.admit(direct("walks in"), None, LONG, NOW)
    await other.reserve(session("reserved"), AGENT, Places((), 3), NOW)
    await waiting(store, "mine")
    dead = await seen(store)
    estate = await store.take_over(dead, NOW + 9, pumps=False, ends={}, foreign=())
    assert estate is not None
    assert {(each.id, each.cause) for each in estate.ended} == {
        ("talks", "lost"),
        ("walks in", "lost"),
    }
    assert {(each.session, each.instance) for each in estate.leases} == {("talks", A), ("waits", B)}
    assert {each.session: each.cause for each in estate.leases} == {
        "talks": "lost",
        "waits": "lost",
    }
    # The instances have to settle first: that is this node's matter now.
    assert sorted(await store.leases()) == [("talks", A), ("waits", B)]
    assert await other.leases() == []
    assert await state_of(store, "waits") is RESERVED
    assert await state_of(store, "reserved") is RESERVED
    assert await state_of(store, "mine") is WAITING
    await waiting(store, "waits")  # its token is good again
    assert await store.take_over(dead, NOW, pumps=False, ends={}, foreign=()) is None
    assert await store.beat() == []
    # It was not dead, and finds out.
    assert await other.beat() is None
    assert await other.activate("waits", "n-waits", NOW, BEGAN) is False


async def test_pumps_that_live_keep_their_calls(store: SQLiteStore, other: SQLiteStore) -> None:
    """What only the control process carried is gone with it."""
    await joined(store, other)
    places = Places((A, B, "http://c", "http://d"))
    await active(other, "pumped", places)
    await active(other, "frames", places, pumped=False)
    await waiting(other, "waits")
    await other.lease("waits", AGENT, places, NOW)
    await active(other, "settles", places)
    await other.end("settles", SessionEnd("bot_closed"), NOW)
    estate = await store.take_over(await seen(store), NOW, pumps=True, ends={}, foreign=())
    assert estate is not None
    assert [(each.id, each.cause) for each in estate.ended] == [("frames", "lost")]
    assert {each.session for each in estate.leases} == {"frames", "waits", "settles"}
    assert await state_of(store, "pumped") is ACTIVE
    assert await other.leases() == [("pumped", A)]
    # Again and again, until the pumps are gone too; the node is watched meanwhile.
    again = await store.take_over(await seen(store), NOW, pumps=True, ends={}, foreign=())
    assert again is not None
    assert (again.ended, again.leases) == ((), ())
    known = {"pumped": SessionEnd("client_closed", 1000, lasted=3.0), "frames": SessionEnd("idle")}
    last = await store.take_over(await seen(store), NOW + 9, pumps=False, ends=known, foreign=())
    assert last is not None
    assert [(each.id, each.cause, each.ended) for each in last.ended] == [
        ("pumped", "client_closed", NOW + 3)
    ]


async def test_who_is_heard_of_again_is_not_dead(store: SQLiteStore, other: SQLiteStore) -> None:
    await joined(store, other)
    await active(other, "s", Places((A,)))
    for sign in (other.beat(), other.join("/run/1", nobody)):
        before = await seen(store)
        await sign
        assert await store.take_over(before, NOW, pumps=False, ends={}, foreign=()) is None
    assert await state_of(store, "s") is ACTIVE


async def test_bots_of_a_dead_node_are_its_own(store: SQLiteStore, other: SQLiteStore) -> None:
    """Nobody else can tell whether they are free; the node that comes back ends them."""
    await joined(store, other)
    await active(other, "s", Places((A,)), LAUNCHED)
    estate = await store.take_over(
        await seen(store), NOW, pumps=False, ends={}, foreign=["launched"]
    )
    assert estate is not None
    assert [each.id for each in estate.ended] == ["s"]
    assert estate.leases == ()
    assert await other.leases() == [("s", A)]
    await other.join("/run/1", nobody)
    recovered = await other.recover((), NOW)
    assert [(each.session, each.cause) for each in recovered.leases] == [("s", "lost")]


async def test_a_session_that_is_to_be_stopped_is_stopped_in_the_end(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    await joined(store, other)
    await waiting(other, "s")
    await store.request_stop("s")
    await store.take_over(await seen(store), NOW, pumps=False, ends={}, foreign=())
    assert [(each.id, each.cause) for each in await store.sweep(NOW)] == [("s", "stopped")]
