"""Cases of tokens and of the session store."""

from __future__ import annotations

import random
import tempfile
import uuid
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from bench.micro import samples
from bench.micro.case import Case, Loop, Repeated
from relay.policy.interfaces import Admission, Places, Reservation
from relay.policy.sessions import Beginning, Session, SessionEnd, SessionState
from relay.policy.tokens import TOKEN_TTL, mint, verify
from relay.store.sqlite import SQLiteStore

__all__ = ["POLICY", "Lives"]

READY = Places((samples.INSTANCE,))
BEGINNING = Beginning(queued=0.001, took=0.003, cold=False, pumped=True)


def token_mint(_: ExitStack) -> Loop:
    return Repeated(partial(mint, samples.CLAIMS, samples.KEYS[1]))


def token_check(_: ExitStack) -> Loop:
    token = mint(samples.CLAIMS, samples.KEYS[1])
    host = samples.AGENT.service_host
    return Repeated(partial(verify, token, samples.KEYS, host, samples.NOW))


class Lives:
    """A loop of whole lives of sessions, one after the other, in one run of trio.

    Ids look random, as those of sessions do, but are the same in every run.
    """

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self._random = random.Random(0)
        self._now = samples.NOW

    def __call__(self, count: int) -> int:
        trio.run(self._live, count)
        return count

    async def _live(self, count: int) -> None:
        for _ in range(count):
            await self._one_life()

    async def _one_life(self) -> None:
        store, agent = self.store, samples.AGENT
        self._now = now = self._now + 1
        session_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        nonce = session_id[:22]
        session = Session(
            id=session_id,
            agent=agent.name,
            organization=agent.organization,
            state=SessionState.RESERVED,
            created=now,
            reserved_until=now + 30,
            expires=now + TOKEN_TTL,
            max_duration=agent.max_session_duration,
        )
        reserved = await store.reserve(session, agent, READY, now)
        admitted = await store.admit(session, nonce, now + 40, now)
        instance = await store.lease(session_id, agent, READY, now)
        active = await store.activate(session_id, nonce, now, BEGINNING)
        ended = await store.end(session_id, SessionEnd("client_closed", 1000), now)
        if not (
            reserved is Reservation.HELD
            and admitted is Admission.ADMITTED
            and isinstance(instance, str)
            and active
            and ended is not None
        ):
            raise RuntimeError("the store refused a step of a session's life")
        await store.free(session_id, instance)


def store_life(stack: ExitStack) -> Loop:
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-"))
    store = SQLiteStore(Path(directory, "relay.db"), "node-1")
    stack.callback(store.close)
    return Lives(store)


POLICY = (
    Case("token-mint", "token", "mint", token_mint),
    Case("token-check", "token", "verify: form, signature, expiry, scope", token_check),
    Case(
        "store-life",
        "session",
        "SQLiteStore on a file: reserve, admit, lease, activate, end, free; checkpoints included",
        store_life,
    ),
)
