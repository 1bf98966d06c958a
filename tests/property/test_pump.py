"""Laws of the pump, over real sockets: whatever peers, orders and the clock do.

Conservation and order: what a sink got is a prefix of what its source sent, then
perhaps one Close of the pump's own; all of it while neither side has ended. Bounded
memory, no spin, exactly one report per tunnel, no descriptor left.
"""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from relay.protocol.lifecycle import Event
from relay.pump.scratch import READ_SIZE
from relay.pump.tunnel import BOUNDARY_TIMEOUT
from tests.helpers.daemon import wait_until
from tests.helpers.pump import CLOSE, Peer, close, frame, rig, split

CLOSE_SIZE = 6 + 125
CLOSE_TIMEOUT = 5.0
SIDES = st.sampled_from(["client", "bot"])
# Small, at the two longer length forms, and more than the sockets take.
SIZES = st.sampled_from([0, 1, 125, 126, 320, 5000, 65535, 65536, 150_000])
BUFFER = 8192


class Talker:
    """A peer with a stream of frames that it sends in whatever chunks it is told."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.stream = b""  # all frames it means to send
        self.given = 0  # how much of it was given to its socket
        self.messages: list[bytes] = []
        self.over = False  # it says no more: Close, FIN, reset

    @property
    def sent(self) -> bytes:
        return self.stream[: self.given - len(self.peer.unsent)]

    def add(self, payload: bytes, pieces: int) -> None:
        """One message, in `pieces` fragments."""
        self.messages.append(payload)
        step = -(-len(payload) // pieces) or 1
        parts = [payload[at : at + step] for at in range(0, len(payload), step)] or [b""]
        for index, part in enumerate(parts):
            self.stream += frame(
                part,
                masked=self.peer.masked,
                opcode=0 if index else 2,
                final=index == len(parts) - 1,
            )

    def give(self, size: int) -> None:
        chunk = self.stream[self.given : self.given + size]
        self.given += len(chunk)
        self.peer.send(chunk)


class Tunnel:
    def __init__(self, name: str, client: Peer, bot: Peer) -> None:
        self.name = name
        self.talkers = {"client": Talker(client), "bot": Talker(bot)}
        self.ordered = False

    def pairs(self) -> list[tuple[Talker, Talker]]:
        client, bot = self.talkers["client"], self.talkers["bot"]
        return [(client, bot), (bot, client)]

    @property
    def untouched(self) -> bool:
        """Neither side nor anybody else has ended it."""
        return not self.ordered and not any(each.over for each in self.talkers.values())


class PumpMachine(RuleBasedStateMachine):
    poller = "own"

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.r = self.stack.enter_context(rig(self.poller))
        self.tunnels: list[Tunnel] = []

    @initialize(kinds=st.lists(st.sampled_from(["tcp", "unix"]), min_size=1, max_size=4))
    def begin(self, kinds: list[str]) -> None:
        for index, kind in enumerate(kinds):
            name = f"call {index}"
            call = self.r.call(name, kind, BUFFER, close_timeout=CLOSE_TIMEOUT)
            self.tunnels.append(Tunnel(name, call.client, call.bot))

    def pick(self, data: st.DataObject) -> Tunnel:
        return data.draw(st.sampled_from(self.tunnels))

    # What peers do.

    @rule(data=st.data(), side=SIDES, size=SIZES, pieces=st.integers(1, 3))
    def say(self, data: st.DataObject, side: str, size: int, pieces: int) -> None:
        talker = self.pick(data).talkers[side]
        if not talker.over:
            fill = len(talker.messages) % 256
            talker.add(bytes([fill]) * size, pieces)
            talker.give(data.draw(st.integers(0, size + 20)))

    @rule(data=st.data(), side=SIDES, size=st.integers(1, 400_000))
    def go_on(self, data: st.DataObject, side: str, size: int) -> None:
        talker = self.pick(data).talkers[side]
        if not talker.over:
            talker.give(size)

    @rule(data=st.data(), side=SIDES)
    def stall(self, data: st.DataObject, side: str) -> None:
        peer = self.pick(data).talkers[side].peer
        peer.reading = not peer.reading

    @rule(data=st.data(), side=SIDES, code=st.sampled_from([None, 1000, 4001]))
    def say_close(self, data: st.DataObject, side: str, code: int | None) -> None:
        talker = self.pick(data).talkers[side]
        if not talker.over:
            talker.stream += close(code, masked=talker.peer.masked)
            talker.give(len(talker.stream))
            talker.over = True

    @rule(data=st.data(), side=SIDES, how=st.sampled_from(["shut", "reset"]))
    def leave(self, data: st.DataObject, side: str, how: str) -> None:
        talker = self.pick(data).talkers[side]
        if talker.peer.sock.fileno() >= 0 and not talker.peer.unsent:
            talker.over = True
            getattr(talker.peer, how)()

    # What others do.

    @rule(data=st.data(), event=st.sampled_from([Event.STOP, Event.DRAIN, Event.IDLE]))
    def order(self, data: st.DataObject, event: Event) -> None:
        tunnel = self.pick(data)
        tunnel.ordered = True
        self.r.pump.end(tunnel.name, event)

    @rule(seconds=st.sampled_from([0.01, 0.3, BOUNDARY_TIMEOUT, CLOSE_TIMEOUT]))
    def wait(self, seconds: float) -> None:
        self.r.now += seconds

    @rule()
    def turn(self) -> None:
        self.r.turn()

    @rule()
    def settle(self) -> None:
        self.r.settle()

    @precondition(lambda self: any(each.untouched for each in self.tunnels))
    @rule()
    def everything_arrives(self) -> None:
        for tunnel in self.tunnels:
            for talker in tunnel.talkers.values():
                talker.peer.reading = True
        # Small buffers make TCP wait for delayed ACKs, so once may not be enough.
        wait_until(self.all_is_there, "everything")

    def all_is_there(self) -> bool:
        self.r.settle()
        return all(
            not source.peer.unsent and sink.peer.received == source.sent
            for tunnel in self.tunnels
            if tunnel.untouched
            for source, sink in tunnel.pairs()
        )

    # Laws.

    @invariant()
    def memory_is_bounded(self) -> None:
        for tunnel in self.r.pump.tunnels.values():
            for transfer in (tunnel.from_client, tunnel.from_bot):
                assert len(transfer.held) <= READ_SIZE + CLOSE_SIZE

    @invariant()
    def the_order_is_kept(self) -> None:
        self.r.poll()
        for tunnel in self.tunnels:
            for source, sink in tunnel.pairs():
                check_prefix(bytes(sink.peer.received), source)

    def teardown(self) -> None:
        with self.stack:
            for tunnel in self.tunnels:
                self.r.pump.end(tunnel.name, Event.STOP)
            self.r.settle()
            self.r.advance(BOUNDARY_TIMEOUT + 0.25)
            self.r.advance(CLOSE_TIMEOUT + 0.25)
            assert self.r.pump.tunnels == self.r.pump.closing == {}
            names = sorted(each.tunnel for each in self.r.reports)
            assert names == sorted(each.name for each in self.tunnels)
            self.the_order_is_kept()
            for tunnel in self.tunnels:
                check_messages(tunnel)


def check_prefix(received: bytes, source: Talker) -> None:
    """What came was sent in this order; then at most one Close and nothing after it."""
    frames, rest = split(received)
    closes = [each.start for each in frames if each.opcode == CLOSE]
    if not closes:
        tail = len(received) - len(rest)
        if not source.stream.startswith(received):  # a reset cut our own Close
            assert source.stream.startswith(received[:tail])
            assert rest[0] == 0x88
        return
    assert closes == [frames[-1].start]
    assert not rest
    assert source.stream.startswith(received[: closes[0]])


def check_messages(tunnel: Tunnel) -> None:
    """A WebSocket library reads the same messages from what came."""
    for source, sink in tunnel.pairs():
        kind = ConnectionType.CLIENT if sink.peer.masked else ConnectionType.SERVER
        parser = Connection(kind)
        parser.receive_data(bytes(sink.peer.received))
        messages, pending = [], b""
        for event in parser.events():
            if isinstance(event, BytesMessage):
                pending += event.data
                if event.message_finished:
                    messages.append(pending)
                    pending = b""
        assert messages == source.messages[: len(messages)]


class SelectorsMachine(PumpMachine):
    poller = "selectors"


PumpMachine.TestCase.settings = settings(stateful_step_count=30)
SelectorsMachine.TestCase.settings = settings(stateful_step_count=30)
TestPump = PumpMachine.TestCase
TestPumpOverSelectors = SelectorsMachine.TestCase
