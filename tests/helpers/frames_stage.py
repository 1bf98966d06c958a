"""A call of the `frames` relay between two scripted peers, on a clock that the test sets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.protocol.lifecycle import Event
from relay.pump.channel import Adopt, Finished
from relay.server.frames_relay import FramesCall
from tests.helpers.pump import PAIRS, PAUSE, Call, Peer, open_descriptors

# Rounds after which a relay that still moves bytes is said not to come to rest.
MOST_ROUNDS = 20_000
# Rounds without a move after which there is rest: the kernel may deliver a moment later.
SILENT_ROUNDS = 3


@dataclass
class FramesStage:
    """One call, its clock, and its report when it has ended.

    Attributes:
        failed: what is answered when a watched bot has gone; None for no answer.
        asked: how often that was asked.
    """

    call: Call
    clock: MockClock
    failed: bool | None = False
    asked: int = 0
    reports: list[Finished] = field(default_factory=list)
    relay: FramesCall = field(init=False)

    async def settle(self) -> None:
        """Let peers and relay go on until nothing moves any more."""
        silent = 0
        for _ in range(MOST_ROUNDS):
            moved = self.call.client.poll() | self.call.bot.poll()
            silent = 0 if moved else silent + 1
            if silent == SILENT_ROUNDS:
                return
            await wait_all_tasks_blocked(PAUSE)
        raise AssertionError("the relay does not come to rest")

    async def advance(self, seconds: float) -> None:
        self.clock.jump(seconds)
        await self.settle()

    async def talk(self) -> None:
        """One message each way, the first of a call, so that it is known to work."""
        self.call.client.say(b"hello")
        self.call.bot.say(b"there")
        await self.settle()
        assert self.call.bot.payloads() == [b"hello"]
        assert self.call.client.payloads() == [b"there"]

    async def order(self, event: Event) -> None:
        self.relay.end(event)
        await self.settle()

    async def report(self) -> Finished:
        """The only report; the call has ended."""
        await self.settle()
        (report,) = self.reports
        return report

    async def ended(self, cause: str, code: int | None, reason: str = "") -> None:
        report = await self.report()
        assert (report.cause, report.code, report.reason) == (cause, code, reason)

    async def bot_failed(self) -> bool:
        self.asked += 1
        if self.failed is None:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return bool(self.failed)

    async def run(self) -> None:
        await self.relay.run()
        self.reports.append(self.relay.report())


@asynccontextmanager
async def frames_stage(
    clock: MockClock,
    kind: str = "tcp",
    buffer: int = 0,
    *,
    failed: bool | None = False,
    **adopt: Any,
) -> AsyncIterator[FramesStage]:
    """A call that is relayed beside the block; afterwards every descriptor must be closed."""
    await wait_all_tasks_blocked()
    before = open_descriptors()
    (client, downstream), (bot, upstream) = PAIRS[kind](buffer), PAIRS[kind](buffer)
    call = Call("call", Peer(client, masked=True), Peer(bot, masked=False))
    stage = FramesStage(call, clock, failed)
    message = Adopt(tunnel="call", session="session of call", **adopt)
    stage.relay = FramesCall(message, _stream(downstream), _stream(upstream), stage.bot_failed)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.run)
            yield stage
            nursery.cancel_scope.cancel()
    finally:
        client.close()
        bot.close()
    assert open_descriptors() == before


def _stream(sock: socket.socket) -> trio.SocketStream:
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
