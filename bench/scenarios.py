"""The named workloads, as data: what is sent, how often, and for how long.

A scenario is a frozen value. The command line may change its numbers within
the limits stated here; nothing in it is code.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SCENARIOS", "Calls", "Scenario", "Setup"]

# Two cores shared by generator, target and origin carry a few thousand calls at best;
# beyond that a run measures the generator.
MAX_CALLS = 5_000
MAX_RATE = 1_000
MAX_SECONDS = 600.0
# A message carries a 16-byte head (bench/ledger.py) and must fit into one frame
# that the origin accepts.
MIN_SIZE = 24
MAX_SIZE = 1 << 20
MAX_WORKERS = 256


def _within(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError with the limits when a number is outside of them."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value:g}; expected {low:g} to {high:g}")


@dataclass(frozen=True, slots=True)
class Calls:
    """Paced calls: each sends `rate` binary messages of `size` bytes a second, and all are echoed.

    Args:
        calls: WebSockets open at once.
        rate: messages per second and call, each way.
        size: bytes of payload per message.
        seconds: how long latencies are recorded.
        warmup: seconds of the same traffic before that, not recorded.
    """

    name: str
    about: str
    calls: int = 50
    rate: int = 50
    size: int = 320
    seconds: float = 5.0
    warmup: float = 0.5

    def __post_init__(self) -> None:
        _within("calls", self.calls, 1, MAX_CALLS)
        _within("rate", self.rate, 1, MAX_RATE)
        _within("size", self.size, MIN_SIZE, MAX_SIZE)
        _within("seconds", self.seconds, 0.2, MAX_SECONDS)
        _within("warmup", self.warmup, 0, 60)


@dataclass(frozen=True, slots=True)
class Setup:
    """Calls set up one after another by each of `workers`: start, connect, first echo, close."""

    name: str
    about: str
    workers: int = 4
    size: int = 320
    seconds: float = 5.0
    warmup: float = 0.5

    def __post_init__(self) -> None:
        _within("workers", self.workers, 1, MAX_WORKERS)
        _within("size", self.size, MIN_SIZE, MAX_SIZE)
        _within("seconds", self.seconds, 0.2, MAX_SECONDS)
        _within("warmup", self.warmup, 0, 60)


Scenario = Calls | Setup

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Calls("calls", "20 ms audio both ways: round trip from the intended send time"),
        Setup("setup", "POST /start, WebSocket handshake, first echo, close; closed loop"),
    )
}
