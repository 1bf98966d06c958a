"""Floods from one address beside live calls: `python -m tests.live.flood`, a minute and a half.

50 calls from 127.0.0.1 send a message every 20 ms and new calls are set up beside them; an
attacker at 127.0.0.2 floods in every second period. What is compared is a period with the
flood and the one before it without, so that a loaded machine tells something too. Loopback
only; every count, rate and time is bounded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import selectors
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.daemon import Daemon, running_daemon
from tests.helpers.scripted_bot import accept, scripted_bot
from tests.helpers.wire import Wire, token_for, upgrade

ATTACKER = "127.0.0.2"
CALLS = 50
INTERVAL = 0.02
SECONDS = 3.0
ROUNDS = 5
NEW_CALLS_PER_SECOND = 5
# Of the attacker: connections it holds at most, and new ones or requests per second.
HELD = 1000
RATE = 500.0
PAYLOAD = 100
# A mask of zeros leaves the payload as it is (RFC 6455 section 5.3).
FRAME = bytes((0x82, 0x80 | PAYLOAD)) + bytes(4)
LIMITS = """
max_connections_per_address = 200
address_refusals_per_minute = 60
"""
BAD = upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token_for(secret='x' * 32)}")


@dataclass
class Period:
    """What was seen in one period."""

    trips: list[float] = field(default_factory=list)
    setups: list[float] = field(default_factory=list)
    failed: int = 0
    control: float = 0.0


# The attacker, in a process of its own.


def connect_only(port: int, rate: float, stop: Callable[[], bool]) -> None:
    """Connections that say nothing."""
    hold(port, rate, stop, b"")


def slow_heads(port: int, rate: float, stop: Callable[[], bool]) -> None:
    """Connections that send a head a byte at a time."""
    hold(port, rate, stop, b"GET / HTTP/1.1\r\nX-Slow: ")


def hold(port: int, rate: float, stop: Callable[[], bool], first: bytes) -> None:
    held: list[socket.socket] = []
    for _ in paced(rate, stop):
        held.append(opened(port))
        if len(held) >= HELD:
            held.pop(0).close()
        for sock, data in ((held[-1], first), (held[len(held) // 2], first[-1:])):
            try:
                sock.send(data)
            except OSError:
                pass  # it was refused, or is not connected yet
    for sock in held:
        sock.close()


def bad_tokens(port: int, rate: float, stop: Callable[[], bool]) -> None:
    """Upgrades with a wrong signature, one after the other on a few connections."""
    wires = [Wire(port, ATTACKER) for _ in range(8)]
    for number in paced(rate, stop):
        wires[number % 8].ask(BAD)


def paced(rate: float, stop: Callable[[], bool]) -> Iterator[int]:
    begun = time.monotonic()
    number = 0
    while not stop():
        while number < (time.monotonic() - begun) * rate:
            yield number
            number += 1
        time.sleep(0.001)


def opened(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((ATTACKER, 0))
    sock.connect_ex(("127.0.0.1", port))
    return sock


FLOODS = {"connections": connect_only, "slow heads": slow_heads, "bad tokens": bad_tokens}


@contextmanager
def flood(kind: str, port: int, rate: float) -> Iterator[None]:
    stopped = multiprocessing.Event()
    process = multiprocessing.Process(target=FLOODS[kind], args=(port, rate, stopped.is_set))
    process.start()
    try:
        yield
    finally:
        stopped.set()
        process.join(10)
        process.kill()


# The others.


class Callers:
    """Live calls that send at their interval, in one loop; and new ones beside them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._wires = [self._begin() for _ in range(CALLS)]

    def _begin(self) -> Wire:
        wire = Wire(self._daemon.port)
        answer = wire.ask(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token_for()}"))
        assert answer.status == 101, answer
        return wire

    def hang_up(self) -> None:
        for wire in self._wires:
            wire.close()

    def watch(self, seconds: float) -> Period:
        """Talk for a while; what was seen."""
        found, over = Period(), threading.Event()
        used = cpu_seconds(self._daemon.process.popen.pid)
        newcomers = threading.Thread(target=self._set_up, args=(found, over))
        newcomers.start()
        with selectors.DefaultSelector() as waiting:
            for number, wire in enumerate(self._wires):
                waiting.register(wire.sock, selectors.EVENT_READ, number)
            self._talk(waiting, found, seconds)
        over.set()
        newcomers.join()
        found.control = cpu_seconds(self._daemon.process.popen.pid) - used
        return found

    def _talk(self, waiting: selectors.BaseSelector, found: Period, seconds: float) -> None:
        begun = time.monotonic()
        due = [begun + INTERVAL * number / CALLS for number in range(CALLS)]
        sent = [0.0] * CALLS
        missing = [0] * CALLS
        while (now := time.monotonic()) < begun + seconds:
            for number, wire in enumerate(self._wires):
                if due[number] <= now and not missing[number]:
                    due[number] += INTERVAL
                    sent[number], missing[number] = time.monotonic(), PAYLOAD + 2
                    wire.sock.send(FRAME + bytes(PAYLOAD))
            for key, _ in waiting.select(max(0.0, min(due) - time.monotonic()) and 0.001):
                missing[key.data] -= len(key.fileobj.recv(4096))  # type: ignore[union-attr]
                if not missing[key.data]:
                    found.trips.append(time.monotonic() - sent[key.data])
        for number, wire in enumerate(self._wires):
            while missing[number]:
                missing[number] -= len(wire.sock.recv(missing[number]))

    def _set_up(self, found: Period, over: threading.Event) -> None:
        while not over.wait(1 / NEW_CALLS_PER_SECOND):
            begun = time.monotonic()
            try:
                started = self._daemon.start()
                token = started.json()["token"]
                with Wire(self._daemon.port) as wire:
                    asked = upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}")
                    assert wire.ask(asked).status == 101
            except (OSError, AssertionError, KeyError, ValueError):
                found.failed += 1
            else:
                found.setups.append(time.monotonic() - begun)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, user and system (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Flood:
    """What was seen of a kind of flood: periods with it, each behind one without."""

    kind: str
    quiet: list[Period] = field(default_factory=list)
    flooded: list[Period] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """By how much longer a message took, at the median, in each pair of periods."""
        pairs = zip(self.quiet, self.flooded, strict=True)
        return [
            statistics.median(during.trips) / statistics.median(before.trips)
            for before, during in pairs
        ]

    def failed(self) -> int:
        """New calls that were not served, with the flood or without."""
        return sum(period.failed for period in (*self.quiet, *self.flooded))

    def report(self) -> str:
        each = " ".join(f"{ratio:.2f}" for ratio in self.ratios())
        lines = [
            f"{self.kind}: p50 with / without {statistics.median(self.ratios()):.2f}, "
            f"by round {each}"
        ]
        for name, periods in (("without", self.quiet), ("with", self.flooded)):
            trips = sorted(each for period in periods for each in period.trips)
            setups = sorted(each for period in periods for each in period.setups)
            lines.append(
                f"  {name:8} p50 {trips[len(trips) // 2] * 1e3:6.2f} ms,"
                f" p99 {trips[len(trips) * 99 // 100] * 1e3:7.2f} ms, {len(trips)} messages;"
                f" new calls {len(setups)} served, {sum(p.failed for p in periods)} not,"
                f" p50 {statistics.median(setups) * 1e3:.1f} ms, longest {setups[-1] * 1e3:.1f} ms;"
                f" control process {sum(p.control for p in periods) / SECONDS / len(periods):.0%}"
                " of a core"
            )
        return "\n".join(lines)


def endure(kind: str, daemon: Daemon, callers: Callers, rate: float = RATE) -> Flood:
    """All periods of one kind of flood."""
    seen = Flood(kind)
    for _ in range(ROUNDS):
        seen.quiet.append(callers.watch(SECONDS))
        with flood(kind, daemon.port, rate):
            seen.flooded.append(callers.watch(SECONDS))
    return seen


def causes(daemon: Daemon) -> dict[str, float]:
    """How often was refused for which cause."""
    text = daemon.request("GET", "/metrics", admin=True).body.decode()
    found = re.findall(r'^relay_refusals_total\{cause="(\w+)",phase="\w+"\} (\S+)$', text, re.M)
    sums: Counter[str] = Counter()
    for cause, count in found:
        sums[cause] += float(count)  # type: ignore[assignment]
    return dict(sums)


@contextmanager
def attacked(folder: Path, limits: str = LIMITS) -> Iterator[tuple[Daemon, Callers]]:
    """A daemon with live calls."""
    with scripted_bot() as bot:
        bot.script = accept()
        agent = "sessions_per_instance = 1000"
        with running_daemon(folder, [bot.url], agent, limits) as daemon:
            callers = Callers(daemon)
            yield daemon, callers
            callers.hang_up()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help="of the attacker, per second")
    parser.add_argument("--no-limits", action="store_true", help="without limits per address")
    options = parser.parse_args()
    limits = "max_connections_per_address = 0" if options.no_limits else LIMITS
    with tempfile.TemporaryDirectory() as folder, attacked(Path(folder), limits) as stage:
        for kind in FLOODS:
            print(endure(kind, *stage, options.rate).report(), flush=True)
        print(causes(stage[0]))


if __name__ == "__main__":
    main()
