"""Sessions, agents and shorthands for tests of the session store."""

from __future__ import annotations

from typing import Any

import msgspec

from relay.policy.catalog import Agent
from relay.policy.interfaces import Admission
from relay.policy.sessions import Beginning, Session, SessionState
from relay.store.sqlite import SQLiteStore

A, B = "http://127.0.0.1:1", "http://127.0.0.1:2"
AGENT = Agent("bot", "acme", (A, B))
LAUNCHED = Agent("launched", "acme", command=("bot",))
NOW = 1000.0
LONG = NOW + 300
BEGAN = Beginning(queued=0.5, took=1.5, cold=True, pumped=True)


def session(name: str, created: float = NOW, **fields: Any) -> Session:
    made = Session(
        id=name,
        agent="bot",
        organization="acme",
        state=SessionState.RESERVED,
        created=created,
        reserved_until=created + 30,
        expires=created + 300,
    )
    return msgspec.structs.replace(made, **fields)


def direct(name: str, **fields: Any) -> Session:
    """A session as an admission brings it: without a reservation."""
    return session(name, **{"reserved_until": 0.0, **fields})


async def state_of(store: SQLiteStore, name: str) -> SessionState | None:
    found = await store.get(name)
    return found.state if found else None


async def waiting(store: SQLiteStore, name: str, now: float = NOW) -> None:
    assert await store.admit(direct(name), f"n-{name}", LONG, now) is Admission.ADMITTED
