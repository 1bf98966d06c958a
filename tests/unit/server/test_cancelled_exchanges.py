"""A request of the Session API, cancelled at each place where it can be: nothing of it is left.

The exchange goes through the real phases, over real sockets, with a real store. It is
cancelled at its n-th checkpoint for every n until it gets through, and after each time the
process holds the descriptors, tasks, pool slots and turns that it held before.
"""

from __future__ import annotations

import gc
import math
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from relay.daemon import PUBLIC_ROUTES
from relay.policy.catalog import Agent, Catalog, Limits, Organization
from relay.policy.interfaces import Places
from relay.policy.sessions import Session, SessionState
from relay.server.bot_pool import BotPool
from relay.server.connection import Connection
from relay.server.exchange import Front
from relay.server.rules import Rules
from relay.server.traffic import Traffic
from relay.store.sqlite import SQLiteStore
from tests.helpers.desk import Log
from tests.helpers.store import BEGAN

KEY = "pk_test_0123456789abcdef"
BIG = 300_000  # does not fit into the buffers of a socket pair that nobody reads
# More than any of these exchanges has.
MOST_CHECKPOINTS = 400


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the n-th place where one of its tasks waits."""

    def __init__(self, scope: trio.CancelScope, at: int) -> None:
        self._scope = scope
        self._left = at
        self.tasks: set[trio.lowlevel.Task] = set()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        parent = task.parent_nursery
        if parent is not None and parent.parent_task in self.tasks:
            self.tasks.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self.tasks:
            self._left -= 1
            if self._left == 0:
                self._scope.deadline = -math.inf  # where it waits next


@dataclass
class Stage:
    """What every try shares: the front, and the bot with what it says."""

    front: Front
    url: str
    session: str
    answer: bytes
    pauses: bool

    def request(self, method: str, *fields: str) -> bytes:
        lines = [
            f"{method} /v1/public/bot/sessions/{self.session}/x HTTP/1.1",
            "Host: relay",
            f"Authorization: Bearer {KEY}",
            *fields,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    async def try_once(self, pieces: list[bytes], at: int) -> bool:
        """One connection with one request, cancelled at its `at`-th step; whether it was."""
        ours, theirs = trio.socket.socketpair()
        scope = trio.CancelScope()
        instrument = CancelAt(scope, at)
        connection = Connection(trio.SocketStream(ours), "127.0.0.1:9", self.front, PUBLIC_ROUTES)

        async def serve() -> None:
            instrument.tasks.add(trio.lowlevel.current_task())
            with scope:
                await connection.serve()

        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.SocketStream(theirs) as client, trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                nursery.start_soon(self._talk, client, pieces)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        return scope.cancelled_caught

    async def _talk(self, client: trio.SocketStream, pieces: list[bytes]) -> None:
        try:
            for piece in pieces:
                await client.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            while await client.receive_some(65536):
                await trio.testing.wait_all_tasks_blocked()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def serve_bot(self, bot: trio.SocketStream) -> None:
        """Answer each request whose whole body has come."""
        data = b""
        try:
            while received := await bot.receive_some(65536):
                data += received
                if not _is_whole(data):
                    continue
                data = b""
                half = len(self.answer) // 2
                await bot.send_all(self.answer[:half])
                if self.pauses:
                    await trio.testing.wait_all_tasks_blocked()
                await bot.send_all(self.answer[half:])
        except trio.BrokenResourceError:
            pass
        await bot.aclose()


def _is_whole(data: bytes) -> bool:
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    if b"content-length: " not in head:
        return True
    return len(body) == int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])


@asynccontextmanager
async def staged(path: Path, answer: bytes, *, pauses: bool) -> AsyncIterator[Stage]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    agent = Agent("bot", "acme", instances=(url,))
    session, store = str(uuid.uuid4()), SQLiteStore(path, "node")
    places = Places((url,))
    waiting = Session(
        id=session, agent="bot", organization="acme", state=SessionState.WAITING, created=0.0
    )
    await store.admit(waiting, None, 100.0, 0.0)
    assert await store.lease(session, agent, places, 0.0) == url
    assert await store.activate(session, None, 0.0, BEGAN)
    catalog = Catalog({"acme": Organization("acme", (KEY,), (), ())}, {"bot": agent})
    async with trio.open_nursery() as nursery:
        parts: dict[str, Any] = dict.fromkeys(Front.__slots__, cast(Any, None))
        rules = Rules(catalog, Limits(session_requests=4))
        parts |= {"rules": rules, "store": store, "log": Log()}
        parts |= {"bots": BotPool(), "traffic": Traffic(rules), "background": nursery}
        parts |= {"now": lambda: 0.0, "clock": trio.current_time}
        parts |= {"new_id": lambda: str(uuid.uuid4()), "ending": False}
        stage = Stage(Front(**parts), url, session, answer, pauses)
        nursery.start_soon(trio.serve_listeners, stage.serve_bot, [listener])
        yield stage
        stage.front.bots.drop(url)
        nursery.cancel_scope.cancel()
    store.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX: y\r\n\r\n"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (BIG, bytes(BIG))
HINTED = b"HTTP/1.1 103 Early\r\n\r\n" + CHUNKED % (BIG, bytes(BIG))


def get(stage: Stage) -> list[bytes]:
    return [stage.request("GET", "Connection: close")]


def two(stage: Stage) -> list[bytes]:
    return [stage.request("GET") + stage.request("GET", "Connection: close")]


def post(stage: Stage) -> list[bytes]:
    head = stage.request("POST", f"Content-Length: {BIG}", "Connection: close")
    return [head, bytes(BIG // 2), bytes(BIG - BIG // 2)]


def chunks(stage: Stage) -> list[bytes]:
    head = stage.request("POST", "Transfer-Encoding: chunked", "Connection: close")
    return [head, b"5\r\nhel", b"lo\r\n", b"0\r\nX: y\r\n", b"\r\n"]


@pytest.mark.parametrize("pauses", [False, True], ids=["at once", "pauses"])
@pytest.mark.parametrize("answer", [SMALL, LARGE, HINTED], ids=["small", "large", "hinted"])
@pytest.mark.parametrize("sent", [get, two, post, chunks])
async def test_cancelled_anywhere_it_leaves_nothing(
    sent: Callable[[Stage], list[bytes]],
    answer: bytes,
    pauses: bool,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(tmp_path / "relay.db", answer, pauses=pauses) as stage:
        assert not await stage.try_once(sent(stage), 0)  # warm: modules, one idle connection
        gc.collect()  # descriptors that earlier tests have left to it are none of this one's
        held = await _held(stage)
        at = 1
        while await stage.try_once(sent(stage), at):
            assert await _held(stage) == held, f"cancelled at step {at}"
            at += 1
            assert at < MOST_CHECKPOINTS
        assert at > 3


async def _held(stage: Stage) -> tuple[int, int, int]:
    """Descriptors but for idle connections, tasks, requests under way."""
    stage.front.bots.drop(stage.url)
    await trio.testing.wait_all_tasks_blocked()
    tasks = trio.lowlevel.current_statistics().tasks_living
    return len(os.listdir("/proc/self/fd")), tasks, stage.front.traffic.count()
