"""Large bodies: bound to a session, read with the last key only, gone at the session's end."""

from __future__ import annotations

import pytest

from relay.policy.interfaces import Places, Reservation
from relay.policy.sessions import SessionEnd
from relay.store import bodies
from relay.store.sqlite import SQLiteStore
from tests.helpers.store import AGENT, NOW, A, session, state_of, waiting

BODY = b'{"a":1}'
PLACES = Places((A,))


async def held(store: SQLiteStore, name: str, body: bytes = BODY) -> Reservation:
    return await store.reserve(session(name), AGENT, PLACES, NOW, 0, body)


async def test_only_the_last_key_reads_a_body(store: SQLiteStore, other: SQLiteStore) -> None:
    assert await held(store, "s") is Reservation.HELD
    for key in ("", "None", "k1"):
        assert await store.body("s", key) is None
    assert await store.open_body("s", "k1")
    assert await other.body("s", "k1") == BODY
    assert await other.body("s", "k1") == BODY
    assert await other.open_body("s", "k2")
    assert await store.body("s", "k1") is None
    assert await store.body("s", "k2") == BODY
    assert await store.body("other", "k2") is None


async def test_a_session_without_a_body(store: SQLiteStore) -> None:
    assert await held(store, "s", b"") is Reservation.HELD
    assert not await store.open_body("s", "k")
    assert await store.body("s", "k") is None


@pytest.mark.parametrize("how", ["end", "sweep"])
async def test_a_body_is_gone_with_its_session(store: SQLiteStore, how: str) -> None:
    await held(store, "s")
    await store.open_body("s", "k")
    await waiting(store, "s")
    await store.give_back("s", "n-s", NOW)
    assert await store.body("s", "k") == BODY
    if how == "end":
        await store.end("s", SessionEnd("stopped"), NOW)
    else:
        await store.sweep(NOW + 1000)
    assert await store.body("s", "k") is None
    assert not await store.open_body("s", "k")


async def test_nothing_is_held_without_room(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD", 2 * len(BODY) - 1)
    agent = AGENT.__class__("bot", "acme", (A,), sessions_per_instance=9)
    for name, answer in (("s1", Reservation.HELD), ("s2", Reservation.NO_ROOM)):
        found = await store.reserve(session(name), agent, PLACES, NOW, 0, BODY)
        assert found is answer
    assert await state_of(store, "s2") is None
    assert await store.reserve(session("s3"), agent, PLACES, NOW) is Reservation.HELD
    await store.end("s1", SessionEnd("stopped"), NOW)
    assert await store.reserve(session("s2"), agent, PLACES, NOW, 0, BODY) is Reservation.HELD
