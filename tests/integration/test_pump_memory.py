"""What a pump process keeps in memory while one side pushes and the other one is slow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.helpers.daemon import wait_until
from tests.helpers.pump import Call, Peer, frame
from tests.helpers.pump_node import Node, pump_node, works

MIB = 1024 * 1024
MOST_GROWTH = MIB
# By hand: 1 GiB shows the same (docs/performance.md).
PUSHED = 64 * MIB
READ = 100_000
SIZES = (320, 5000, 65_535, 65_536, 700_000)
SAMPLED_EVERY = 2 * MIB


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Iterator[Node]:
    with pump_node(tmp_path) as node:
        yield node


def anonymous(pid: int) -> int:
    """Bytes of a process's own memory, without files that it shares with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such line")


class Pusher:
    """Sends frames as long as its socket takes them."""

    def __init__(self, peer: Peer, frames: list[bytes], total: int) -> None:
        self._peer = peer
        self._frames = cycle(frames)
        self._rest = memoryview(b"")
        self._left = total
        self.hash = hashlib.blake2b()
        self.sent = 0

    @property
    def done(self) -> bool:
        return self._left <= 0 and not self._rest

    def push(self) -> bool:
        """Send until nothing more is taken; whether anything was."""
        before = self.sent
        try:
            while not self.done:
                if not self._rest:
                    self._rest = memoryview(next(self._frames))
                    self._left -= len(self._rest)
                size = self._peer.sock.send(self._rest)
                self.hash.update(self._rest[:size])
                self.sent += size
                self._rest = self._rest[size:]
        except BlockingIOError:
            pass
        return self.sent > before


def pushed_through(
    node: Node, call: Call, source: str, total: int, sizes: tuple[int, ...] = SIZES
) -> int:
    """Push `total` bytes to a reader that takes some only when nothing more fits; the growth."""
    pusher, reader = (call.client, call.bot) if source == "client" else (call.bot, call.client)
    push = Pusher(pusher, [frame(bytes([n % 251]) * n, masked=pusher.masked) for n in sizes], total)
    pid = node.pid()
    before = most = anonymous(pid)
    read, seen, sampled = 0, hashlib.blake2b(), 0
    while not push.done or read < push.sent:
        if push.push():
            continue
        try:
            data = reader.sock.recv(READ)
        except BlockingIOError:
            continue
        seen.update(data)
        read += len(data)
        if read - sampled >= SAMPLED_EVERY:
            sampled = read
            most = max(most, anonymous(pid))
    assert read >= total
    assert seen.digest() == push.hash.digest()
    return most - before


@pytest.mark.parametrize("source", ["client", "bot"])
def test_a_slow_reader_costs_no_memory(node: Node, source: str) -> None:
    control = node.connect()
    call = node.call(control)
    works(call)
    assert pushed_through(node, call, source, PUSHED) <= MOST_GROWTH
    works(call)


def test_a_message_of_64_mib(node: Node) -> None:
    call = node.call(node.connect())
    works(call)
    assert pushed_through(node, call, "bot", 1, sizes=(PUSHED,)) <= MOST_GROWTH
    works(call)


def test_a_reader_that_never_reads_stops_the_other_side(node: Node) -> None:
    control = node.connect()
    call, other = node.call(control), node.call(control, "other")
    works(call)
    pid = node.pid()
    before = anonymous(pid)
    push = Pusher(call.client, [frame(b"x" * 65_536, masked=True)], 16 * PUSHED)
    wait_until(lambda: not push.push() and not push.push(), "nothing more is taken")
    works(other)
    assert not push.done
    assert anonymous(pid) - before <= MOST_GROWTH
