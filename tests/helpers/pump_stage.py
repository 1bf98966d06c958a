"""A pump process driven by hand inside this process, with its control connections and calls."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from relay.pump import channel
from relay.pump.channel import MAX_MESSAGE, Adopt
from relay.pump.process import PumpProcess
from tests.helpers.pollers import ready
from tests.helpers.pump import MOST_TURNS, PAUSE, Call, Peer, tcp_pair


@dataclass
class Stage:
    """A pump process with its control connections and calls."""

    process: PumpProcess
    path: str
    spool: Path
    controls: list[socket.socket] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    closed: bool = False

    def settle(self) -> None:
        silent = 0
        for _ in range(MOST_TURNS):
            moved = sum(peer.poll() for call in self.calls for peer in (call.client, call.bot))
            found = ready(self.process.pump, PAUSE)
            silent = 0 if found or moved else silent + 1
            self.process.turn(0)
            if silent == 2:
                return
        raise AssertionError("the process finds events without end")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.process.close()

    def connect(self, buffer: int = 2 * MAX_MESSAGE) -> socket.socket:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        control.connect(self.path)
        control.setblocking(False)
        self.controls.append(control)
        self.settle()
        return control

    def tell(self, control: socket.socket, message: channel.ToPump, *fds: int) -> None:
        channel.send(control, message, fds)
        self.settle()

    def call(self, control: socket.socket, name: str) -> Call:
        """Hand over a pair as the control process does."""
        (client, downstream), (bot, upstream) = tcp_pair(), tcp_pair()
        with downstream, upstream:
            fds = (downstream.fileno(), upstream.fileno())
            self.tell(control, Adopt(name, f"session of {name}"), *fds)
        call = Call(name, Peer(client, masked=True), Peer(bot, masked=False))
        self.calls.append(call)
        return call

    def end(self, call: Call) -> None:
        call.client.reset()
        call.bot.reset()
        self.settle()

    def works(self, call: Call) -> bool:
        before = len(call.bot.payloads())
        call.client.say(b"hello")
        self.settle()
        return call.bot.payloads()[before:] == [b"hello"]

    def heard(self, control: socket.socket) -> list[channel.ToControl]:
        """Everything that the control process has been told since the last time."""
        got: list[channel.ToControl] = []
        while True:
            self.settle()
            try:
                got.append(channel.decode_to_control(channel.receive(control)[0]))
            except BlockingIOError:
                return got


def names(messages: list[channel.ToControl]) -> list[str]:
    """What was told of live and ended calls; every call was taken."""
    messages = [each for each in messages if not isinstance(each, channel.Taken)]
    return [f"{type(each).__name__} {getattr(each, 'tunnel', '')}".strip() for each in messages]
