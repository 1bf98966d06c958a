"""The named workloads, as data: what is sent, how often, and for how long.

A scenario is a frozen value. The command line may change its numbers within
the limits stated here; nothing in it is code (bench/rounds.py measures it).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "SCENARIOS",
    "Calls",
    "Idle",
    "Requests",
    "Scenario",
    "Setup",
    "Slow",
    "Stream",
    "beside",
]

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
BESIDE_LONGER = 0.1  # seconds that a load beside calls lasts longer than they

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
        series: scenarios of one name are points of one curve; "" for a scenario alone.
        at: where on that curve's x axis this one is.
    """

    name: str
    about: str
    figures: tuple[str, ...]
    main: str
    shows_not: str
    cpu_per: str = "forwarded message"
    seconds: float = 5.0
    warmup: float = 0.5
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
    """

    calls: int = 50
    rate: int = 50
    size: int = 320
    kind: Literal["binary", "text"] = "binary"
    flood: int = 0
    bulk: int = 0

    def __post_init__(self) -> None:
        Scenario.__post_init__(self)
        _within("calls", self.calls, 1, MAX_CALLS)
        _within("rate", self.rate, 1, MAX_RATE)
        _within("size", self.size, MIN_SIZE, MAX_SIZE)
        _within("flood", self.flood, 0, MAX_WORKERS)
        _within("bulk", self.bulk, 0, MAX_WORKERS)
        messages = self.calls * self.rate * (self.seconds + self.warmup)
        _within("messages of a round", messages, 1, MAX_MESSAGES)


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
    """The same, but every client reads `read_rate` bytes a second only."""

    read_rate: int = 256 * KIB

    def __post_init__(self) -> None:
        Stream.__post_init__(self)
        _within("read_rate", self.read_rate, KIB, 1 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup(Scenario):
    """Calls set up one after another by each of `workers`: start, connect, first echo, close."""

    workers: int = 4
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


_LATENCY = ("p50", "p90", "p99", "p999", "max")
_FAULTS = ("lost", "reordered", "changed")
_ENDS = ("generator_cpu_us", "origin_cpu_us")
_CALLS = (
    *(*_LATENCY, "per_second", *_FAULTS, "cpu_us", "switches"),
    *("late_p50", "late_p99", *_ENDS),
)
_MIXED = (*_LATENCY, "per_second", *_FAULTS, "late_p50", "late_p99")
_STREAM = (*_LATENCY, "per_second", "mb_per_second", *_FAULTS, "cpu_us", "switches", *_ENDS)
_BULK = ("mb_per_second", "per_second", *_LATENCY, *_FAULTS, "cpu_us", "switches", *_ENDS)
_SLOW = ("pss_kib", "mb_per_second", *_FAULTS, "cpu_us", *_ENDS)
_SETUP = (
    *(*_LATENCY, "per_second", "failed", "start_p50", "connect_p50", "echo_p50"),
    *("cpu_us", "switches", *_ENDS),
)
_REQUESTS = (*_LATENCY, "per_second", "failed", "cpu_us", "switches", *_ENDS)
_CARRIED = (*_LATENCY, "per_second", "mb_per_second", "failed", "cpu_us", "switches", *_ENDS)
_IDLE = ("pss_kib", "cpu_us", "switches", "failed")

_ECHO = "Echo is no conversation, and loopback has no loss, no delay and a huge MTU."
_BESIDE = (
    "On few cores the load beside takes them from everything, generator and origin"
    " included; CPU per message is left out, because it is mostly the other load's."
)
_CLOSED = "A closed loop: a slower target is asked less often, and a crowd would queue."


def _calls(name: str, about: str, **numbers: object) -> Calls:
    fixed: dict[str, object] = {"figures": _CALLS, "main": "p50", "shows_not": _ECHO}
    return Calls(name=name, about=about, **{**fixed, **numbers})  # type: ignore[arg-type]


def _bulk(label: str, size: int, in_flight: int) -> Stream:
    return Stream(
        name=f"bulk-{label}",
        about=f"messages of {label.upper()} as fast as they go, {in_flight} in flight on each of 4",
        figures=_BULK,
        main="mb_per_second",
        shows_not="Loopback moves bytes by copying: no network card, no loss, MTU of 64 KiB.",
        cpu_per="forwarded MiB",
        connections=4,
        size=size,
        in_flight=in_flight,
        series="bulk",
        at=size,
    )


def _scale(calls: int) -> Calls:
    about = f"{calls} calls: what a call costs as their number grows"
    return _calls(f"scale-{calls}", about, calls=calls, series="scale", at=calls)


def _requests(
    kind: Literal["json", "up", "down", "events"], about: str, connections: int
) -> Requests:
    return Requests(
        name=f"requests-{kind}",
        about=about,
        figures=_CARRIED if kind in ("up", "down") else _REQUESTS,
        main="p50" if kind == "events" else "per_second",
        shows_not=_CLOSED,
        cpu_per="event" if kind == "events" else "request",
        kind=kind,
        connections=connections,
        size=MIB if kind in ("up", "down") else 0,
        interval_ms=20 if kind == "events" else 0,
        events=50 if kind == "events" else 0,
    )


def beside(calls: Calls) -> Requests | Stream | None:
    """The other load of a mixed scenario, for as long as the calls take; None without one."""
    seconds = min(calls.warmup + calls.seconds + BESIDE_LONGER, MAX_SECONDS)
    if calls.flood:
        load = _requests("json", "the HTTP flood", calls.flood)
        return replace(load, seconds=seconds, warmup=0)
    if calls.bulk:
        stream = _bulk("64k", 64 * KIB, 4)
        return replace(stream, connections=calls.bulk, seconds=seconds, warmup=0)
    return None


_ALL: tuple[Scenario, ...] = (
    # First, while the targets' memory is that of a fresh start.
    Idle(
        name="idle",
        about="2000 open tunnels in which nothing happens",
        figures=_IDLE,
        main="pss_kib",
        shows_not="The kernel's socket buffers are not in PSS; they are the same for every target.",
        cpu_per="second",
    ),
    _calls("calls", "20 ms audio both ways: round trip from the intended send time"),
    _calls("calls-pipecat", "the same in Pipecat's protobuf frames of 16 kHz audio", size=651),
    _calls("calls-twilio", "the same in Twilio's JSON", size=390, kind="text"),
    _calls("calls-exotel", "Exotel's JSON, ten times a second", size=2287, rate=10, kind="text"),
    Stream(
        name="pingpong",
        about="one WebSocket, one message in flight: the round trip without any waiting",
        figures=_STREAM,
        main="p50",
        shows_not="Nobody sleeps between messages, so waking up costs less than in a call.",
    ),
    *(
        _bulk(label, size, in_flight)
        for label, size, in_flight in (
            ("1k", KIB, 64),
            ("4k", 4 * KIB, 32),
            ("16k", 16 * KIB, 16),
            ("64k", 64 * KIB, 4),
            ("256k", 256 * KIB, 4),
            ("1m", MIB, 2),
            ("4m", 4 * MIB, 2),
        )
    ),
    Setup(
        name="setup",
        about="whole calls: start, WebSocket handshake with the token, first echo, close",
        figures=_SETUP,
        main="per_second",
        shows_not=f"{_CLOSED} Only the relay has a start with a token; the others only upgrade.",
        cpu_per="call",
    ),
    _requests("json", "small JSON answers through the Session API", 16),
    _requests("up", "POST of 1 MiB through the Session API", 4),
    _requests("down", "answers of 1 MiB through the Session API", 4),
    _requests("events", "server-sent events every 20 ms: from being sent to being read", 50),
    Slow(
        name="slow-reader",
        about="4 clients read 256 KiB/s each of 32 MiB that are under way: who holds the rest?",
        figures=_SLOW,
        main="pss_kib",
        shows_not="What the kernel's own socket buffers hold, some MiB each, is in no process.",
        cpu_per="forwarded MiB",
        connections=4,
        size=64 * KIB,
        in_flight=512,
    ),
    _calls(
        "mixed-http",
        "the calls, beside four connections that ask for small JSON without pause",
        figures=_MIXED,
        flood=4,
        shows_not=_BESIDE,
    ),
    _calls(
        "mixed-bulk",
        "the calls, beside two streams of 64 KiB messages",
        figures=_MIXED,
        bulk=2,
        shows_not=_BESIDE,
    ),
    *(_scale(calls) for calls in (10, 50, 100, 200, 500, 1000)),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
