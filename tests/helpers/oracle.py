"""Scripts of what two peers do, played through a pump and through the `frames` relay.

A script is made of steps; after each of them all comes to rest, so that what happens
first is the same in both plays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio
from trio.testing import MockClock

from relay.protocol.lifecycle import Event
from relay.pump.channel import Finished
from tests.helpers.frames_stage import frames_stage
from tests.helpers.pump import Call, Peer, Rig, close, rig, split

PREFACE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
CLOSE_TIMEOUT = 5.0
TIME_LIMIT = 3600.0
MAX_MESSAGE = 250_000
# Small, so that a stalled reader stalls its writer. Not for TCP: over small windows it
# waits for timers of the kernel's, and what has come to rest would be a guess.
BUFFERS = {"unix": 8192, "tcp": 0}
CONTINUATION, TEXT, BINARY, PING, PONG = 0x0, 0x1, 0x2, 0x9, 0xA
CLOSE = 0x8
MOST_SHOWN = 40


def shown(data: bytes) -> bytes:
    """As much of some bytes as a reader of a failure needs."""
    return data if len(data) <= MOST_SHOWN else data[:MOST_SHOWN] + b"..."


@dataclass(frozen=True)
class Send:
    """A side sends bytes, in chunks that arrive one by one."""

    side: str
    chunks: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Send({self.side!r}, {tuple(map(shown, self.chunks))})"


@dataclass(frozen=True)
class SayClose:
    side: str
    code: int | None
    reason: str


@dataclass(frozen=True)
class Leave:
    """A side shuts its write side, or vanishes with a reset; inside a frame behind `half`."""

    side: str
    how: str
    half: bytes = b""


@dataclass(frozen=True)
class Stall:
    """A side stops reading, or goes on."""

    side: str
    reading: bool


@dataclass(frozen=True)
class Order:
    event: Event


@dataclass(frozen=True)
class Wait:
    seconds: float


Step = Send | SayClose | Leave | Stall | Order | Wait


@dataclass(frozen=True)
class Script:
    """
    Attributes:
        early: what each side has sent before the relay has the call, by name.
        failed: what is said of the bot's process, when it is asked for.
    """

    steps: tuple[Step, ...]
    kind: str = "tcp"
    early: dict[str, bytes] = field(default_factory=dict)
    watched: bool = False
    failed: bool = False

    def __repr__(self) -> str:
        early = {side: shown(data) for side, data in self.early.items()}
        return f"Script({self.steps}, {self.kind!r}, {early}, {self.watched}, {self.failed})"

    @property
    def torn(self) -> set[str]:
        """Sides toward which a frame was left unfinished."""
        other = {"client": "bot", "bot": "client"}
        return {other[each.side] for each in self.steps if isinstance(each, Leave) and each.half}


@dataclass(frozen=True)
class Outcome:
    """What a side got: whole messages and control frames in order, and the Close frames."""

    heard: tuple[tuple[int, bytes], ...]
    closes: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Result:
    client: Outcome
    bot: Outcome
    cause: str
    code: int | None
    reason: str
    messages: tuple[int, int]


class Stage(Protocol):
    """One of the two ways to relay, with one call."""

    @property
    def call(self) -> Call: ...

    async def settle(self) -> None: ...

    async def advance(self, seconds: float) -> None: ...

    async def order(self, event: Event) -> None: ...

    async def report(self) -> Finished: ...


class PumpStage:
    """A pump, driven as the control process drives it."""

    def __init__(self, made: Rig, call: Call, failed: bool) -> None:
        self.call = call
        self._rig = made
        self._answer = Event.UPSTREAM_LOST if failed else Event.UPSTREAM_EOF

    async def settle(self) -> None:
        await trio.lowlevel.checkpoint()
        self._rig.settle()
        if self._rig.pump.take_questions():
            self._rig.pump.end("call", self._answer)
            self._rig.settle()

    async def advance(self, seconds: float) -> None:
        self._rig.advance(seconds)
        await self.settle()

    async def order(self, event: Event) -> None:
        self._rig.pump.end("call", event)
        await self.settle()

    async def report(self) -> Finished:
        await self.settle()
        return self._rig.report()


@asynccontextmanager
async def through_pump(script: Script, adopt: dict[str, Any]) -> AsyncIterator[Stage]:
    with rig() as made:
        call = made.call("call", script.kind, BUFFERS[script.kind], **adopt)
        yield PumpStage(made, call, script.failed)


@asynccontextmanager
async def through_frames(script: Script, adopt: dict[str, Any]) -> AsyncIterator[Stage]:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    buffer, failed = BUFFERS[script.kind], script.failed
    async with frames_stage(clock, script.kind, buffer, failed=failed, **adopt) as stage:
        yield stage


Way = Callable[[Script, dict[str, Any]], AbstractAsyncContextManager[Stage]]


def play(script: Script, way: Way) -> Result:
    """Play a script and end the call, if the script did not."""
    return trio.run(_play, script, way, clock=MockClock())


async def _play(script: Script, way: Way) -> Result:
    adopt = {
        "preface": PREFACE,
        "from_client": script.early.get("client", b""),
        "from_bot": script.early.get("bot", b""),
        "max_message": MAX_MESSAGE,
        "max_seconds": TIME_LIMIT,
        "close_timeout": CLOSE_TIMEOUT,
        "watched": script.watched,
    }
    async with way(script, adopt) as stage:
        peers = {"client": stage.call.client, "bot": stage.call.bot}
        await stage.settle()
        for step in script.steps:
            await _step(stage, peers, step)
        for peer in peers.values():
            peer.reading = True
        await stage.settle()
        for peer in peers.values():
            if peer.sock.fileno() >= 0:
                peer.shut()
            await stage.settle()
        await stage.advance(1.5)
        await stage.advance(CLOSE_TIMEOUT + 1.0)
        report = await stage.report()
        messages = (report.from_client.messages, report.from_bot.messages)
        client = _outcome(bytes(peers["client"].received).removeprefix(PREFACE))
        bot = _outcome(bytes(peers["bot"].received))
        return Result(client, bot, report.cause, report.code, report.reason, messages)


async def _step(stage: Stage, peers: dict[str, Peer], step: Step) -> None:
    if isinstance(step, Order):
        await stage.order(step.event)
        return
    if isinstance(step, Wait):
        await stage.advance(step.seconds)
        return
    peer = peers[step.side]
    if isinstance(step, Stall):
        peer.reading = step.reading
    elif peer.sock.fileno() < 0:
        return  # it has vanished
    elif isinstance(step, Send):
        for chunk in step.chunks:
            peer.send(chunk)
            await stage.settle()
    elif isinstance(step, SayClose):
        peer.send(close(step.code, step.reason, masked=peer.masked))
    else:
        peer.send(step.half)
        await stage.settle()
        getattr(peer, step.how)()
    await stage.settle()


def _outcome(received: bytes) -> Outcome:
    """Reframing is undone: a message counts when it is whole, however it came."""
    heard: list[tuple[int, bytes]] = []
    closes: list[tuple[int, str]] = []
    pending, opcode = b"", 0
    for each in split(received)[0]:
        assert not closes, "something after a Close"
        if each.opcode == CLOSE:
            closes.append((each.code, each.reason))
        elif each.opcode in (PING, PONG):
            heard.append((each.opcode, each.payload))
        else:
            opcode = each.opcode or opcode
            pending += each.payload
            if each.final:
                heard.append((opcode, pending))
                pending = b""
    return Outcome(tuple(heard), tuple(closes))
