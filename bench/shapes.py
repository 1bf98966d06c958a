"""The kinds of workloads and their limits: what is sent, how often, and for how long.

A scenario is a frozen value. The command line may change its numbers within
the limits stated here; nothing in it is code (bench/rounds.py measures it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.cores import Cores

__all__ = ["KIB", "MIB", "Calls", "Idle", "Requests", "Scenario", "Setup", "Slow", "Stream"]

# Two cores shared by generator, target and origin carry a few thousand calls at best;
# beyond that a run measures the generator.
MAX_CALLS = 5_000
MAX_RATE = 1_000
MAX_SECONDS = 600.0
# What all calls of a round send: bounds the generator's accounts (one bit each).
MAX_MESSAGES = 100_000_000
# A message carries a head of 8 bytes, or of 16 in text (bench/native/channel.h), and
# must fit into one frame that the origin accepts.
MIN_SIZE = 24
MAX_SIZE = 4 << 20
MAX_WORKERS = 256
MAX_IN_FLIGHT = 1_024
MAX_IN_FLIGHT_BYTES = 32 << 20  # per connection; most of it sits in the kernel
MAX_TUNNELS = 10_000
MAX_SCRAPES = 100  # a second
MAX_PUSHED = 16 << 30  # some minutes' worth

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What every scenario has.

    Args:
        about: one line.
        figures: the columns of its table, in order; names of bench/figures.py.
        main: the figure that a reader looks at first.
        shows_not: one sentence: what it does not show.
        cpu_per: what `cpu_us` and `switches` are divided by: "forwarded message", "call", …
        seconds: how long a round records.
        warmup: seconds of the same load before that, not recorded.
        cores: where its processes are (bench/cores.py).
        series: scenarios of one name are points of one curve; "" for a scenario alone.
        at: where on that curve's x axis this one is.
    """

    name: str
    about: str
    figures: tuple[str, ...]
    main: str
    shows_not: str
    cpu_per: str = "forwarded message"
    seconds: float = 0.6
    warmup: float = 0.3
    cores: Cores = "one"
    series: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        _within("seconds", self.seconds, 0.2, MAX_SECONDS)
        _within("warmup", self.warmup, 0, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls(Scenario):
    """Paced calls: each sends `rate` messages of `size` bytes a second, and all are echoed.

    Args:
        calls: WebSockets open at once.
        rate: messages per second and call, each way.
        size: bytes of payload per message.
        kind: of the messages.
        flood: HTTP connections that ask without pause beside the calls; 0 for none.
        bulk: WebSockets that stream 64 KiB messages through the same target beside the calls.
        idle: tunnels in which nothing happens beside the calls.
        halting: 1 where cores may fall asleep between two messages (bench/awake.py).
        scrapes: how often a second /metrics is fetched in a further part of the round; 0 for
            none, and none where the target has nothing to fetch.
    """

    calls: int = 50
    rate: int = 50
    size: int = 320
    kind: Literal["binary", "text"] = "binary"
    flood: int = 0
    bulk: int = 0
    idle: int = 0
    scrapes: int = 0
    halting: int = 0

    def __post_init__(self) -> None:
        Scenario.__post_init__(self)
        _within("calls", self.calls, 1, MAX_CALLS)
        _within("rate", self.rate, 1, MAX_RATE)
        _within("size", self.size, MIN_SIZE, MAX_SIZE)
        _within("flood", self.flood, 0, MAX_WORKERS)
        _within("bulk", self.bulk, 0, MAX_WORKERS)
        _within("idle", self.idle, 0, MAX_TUNNELS)
        _within("scrapes", self.scrapes, 0, MAX_SCRAPES)
        _within("halting", self.halting, 0, 1)
        messages = self.calls * self.rate * (self.seconds + self.warmup)
        _within("messages of a round", messages, 1, MAX_MESSAGES)

    @property
    def mixed(self) -> bool:
        """Whether there is another load beside the calls; they are measured alone as well."""
        return bool(self.flood or self.bulk or self.idle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Scenario):
    """As fast as it goes: `in_flight` messages under way on each of `connections`."""

    connections: int = 1
    size: int = 320
    in_flight: int = 1

    def __post_init__(self) -> None:
        Scenario.__post_init__(self)
        _within("connections", self.connections, 1, MAX_WORKERS)
        _within("size", self.size, MIN_SIZE, MAX_SIZE)
        _within("in_flight", self.in_flight, 1, MAX_IN_FLIGHT)
        _within("bytes in flight", self.in_flight * self.size, 1, MAX_IN_FLIGHT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Stream):
    """The same, but the clients together read only `pushed` bytes, spread over the round."""

    pushed: int = 1 << 30

    def __post_init__(self) -> None:
        Stream.__post_init__(self)
        _within("pushed", self.pushed, MIB, MAX_PUSHED)
        _within("read_rate", self.read_rate, KIB, 1 << 30)

    @property
    def read_rate(self) -> int:
        """Bytes a second that each client reads."""
        return int(self.pushed / self.connections / (self.warmup + self.seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup(Scenario):
    """Calls one after another by each of `workers`: start, connect, first echo, close.

    Args:
        begins: with POST /start, or with a token minted beforehand.
    """

    workers: int = 4
    begins: Literal["token", "start"] = "token"
    size: int = 320

    def __post_init__(self) -> None:
        Scenario.__post_init__(self)
        _within("workers", self.workers, 1, MAX_WORKERS)
        _within("size", self.size, MIN_SIZE, MAX_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests(Scenario):
    """HTTP requests, one after another on each of `connections` that stay open.

    Args:
        kind: a small JSON answer; `size` bytes up; `size` bytes down; a stream of events.
        interval_ms: between two events of a stream.
        events: of each stream; the next stream follows on the same connection.
    """

    kind: Literal["json", "up", "down", "events"] = "json"
    connections: int = 16
    size: int = 0
    interval_ms: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        Scenario.__post_init__(self)
        _within("connections", self.connections, 1, MAX_WORKERS)
        _within("size", self.size, int(self.kind in ("up", "down")), MAX_SIZE)
        _within("interval_ms", self.interval_ms, int(self.kind == "events"), 1_000)
        _within("events", self.events, int(self.kind == "events"), 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(Scenario):
    """`tunnels` open WebSockets that have carried one message each and then nothing."""

    tunnels: int = 2_000

    def __post_init__(self) -> None:
        Scenario.__post_init__(self)
        _within("tunnels", self.tunnels, 1, MAX_TUNNELS)


def _within(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError with the limits when a number is outside of them."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value:g}; expected {low:g} to {high:g}")
