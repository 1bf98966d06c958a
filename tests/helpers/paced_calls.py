"""Calls that carry numbered messages at a steady pace, each echo verified and timed.

The work is done by the bench's compiled programs (bench/README.md), so that it is neither
late itself nor blind to a message that is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.children import Child
from bench.client import Channel, Door
from bench.native import program
from bench.opening import open_calls
from bench.outcome import histogram
from tests.helpers.daemon import PUBLIC_KEY, Daemon

READY_WAIT = 20.0
# Beyond the planned seconds: the program's own bounds end before.
GRACE = 30.0
SIZE = 320


@dataclass
class Paced:
    """What came of the messages; complete when the block has ended."""

    result: dict[str, Any] = field(default_factory=dict)

    def check(self, messages: int) -> None:
        """Every message was sent, and came back once, in order and unchanged, on a live call."""
        result = self.result
        assert result["planned"] == messages
        faults = {
            name: result[name]
            for name in ("lost", "reordered", "duplicated", "changed", "broken")
            if result[name]
        }
        assert faults == {}, (faults, result["causes"])

    def milliseconds(self, percent: float) -> float:
        """A percentile of the delay between a message's due time and its echo; 100 is the worst."""
        return round(histogram(self.result, "latency").percentile(percent) / 1e6, 3)


@contextmanager
def open_paced(daemon: Daemon, count: int) -> Iterator[Sequence[Channel]]:
    """Calls of the agent "bot", whose bot is the bench's origin; each has carried a message."""
    door = Door(start_url=f"{daemon.url}/v1/public/bot/start", key=PUBLIC_KEY)
    with open_calls(door, count) as calls:
        yield calls


@contextmanager
def pacing(calls: Sequence[Channel], rate: int, seconds: float) -> Iterator[Paced]:
    """Send `rate` messages a second on each call, for so long; the block runs meanwhile."""
    descriptors = [call.sock.fileno() for call in calls]
    command = ["--rate", str(rate), "--size", str(SIZE), "--text", "--unrecorded", "0"]
    command += ["--messages", str(round(rate * seconds))]
    command += ["--descriptors", ",".join(map(str, descriptors)), "--held"]
    paced = Paced()
    with Child("calls", command, program=program("calls"), descriptors=descriptors) as load:
        load.hear("ready", READY_WAIT)
        load.go_on()
        yield paced
        load.hear("done", seconds + GRACE)
        load.go_on()
        paced.result = load.hear("result", GRACE)


def busy_cores() -> str:
    """How loaded the machine is, for a report of figures."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
