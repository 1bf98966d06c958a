"""A pump as a process of its own, with what a control process does with it."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from relay.pump import channel
from relay.pump.channel import Adopt, Taken
from relay.pump_processes import PumpProcesses
from tests.helpers.daemon import PATIENCE, pids_with, wait_until
from tests.helpers.pump import Call, Peer, frame, tcp_pair


@dataclass
class Node:
    """What a control process does with its pumps, without a daemon around it."""

    folder: Path
    pumps: PumpProcesses
    opened: list[socket.socket] = field(default_factory=list)

    def connect(self, pumps: PumpProcesses | None = None) -> socket.socket:
        control = trio.run((pumps or self.pumps).connect, 0)
        self.opened.append(control)
        return control

    def pid(self) -> int:
        wait_until(self.pids, "the pump runs")
        (pid,) = self.pids()
        return pid

    def pids(self) -> list[int]:
        return pids_with(f"{self.folder}/pump-")

    def call(self, control: socket.socket, name: str = "one") -> Call:
        """A call that the pump has taken."""
        call = self.offer(control, name)
        assert hear(control) == Taken(name, "session")
        return call

    def offer(self, control: socket.socket, name: str) -> Call:
        (client, downstream), (bot, upstream) = tcp_pair(), tcp_pair()
        with downstream, upstream:
            channel.send(control, Adopt(name, "session"), (downstream.fileno(), upstream.fileno()))
        self.opened += [client, bot]
        return Call(name, Peer(client, masked=True), Peer(bot, masked=False))


@contextmanager
def pump_node(folder: Path) -> Iterator[Node]:
    """A node without a pump yet; afterwards none of its pumps is left."""
    node = Node(folder, PumpProcesses(folder))
    yield node
    for sock in node.opened:
        sock.close()
    for pid in node.pids():
        os.kill(pid, signal.SIGKILL)
    trio.run(node.pumps.end)


def hear(control: socket.socket) -> channel.ToControl:
    """The next message from the pump."""
    assert select.select([control], [], [], PATIENCE)[0], "the pump says nothing"
    payload, _fds = channel.receive(control)
    return channel.decode_to_control(payload)


def arrives(peer: Peer, data: bytes) -> None:
    """Exactly these bytes come next."""
    before = len(peer.received)
    wait_until(lambda: peer.poll() is not None and len(peer.received) - before >= len(data), "data")
    assert peer.received[before:] == data


def ends(peer: Peer) -> str:
    wait_until(lambda: peer.poll() is not None and peer.end, "the end of a connection")
    return peer.end


def works(call: Call) -> None:
    call.client.say(b"up")
    call.bot.say(b"down")
    arrives(call.bot, frame(b"up", masked=True))
    arrives(call.client, frame(b"down"))
