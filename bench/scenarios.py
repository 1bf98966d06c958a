"""The named workloads, as data (bench/shapes.py has their kinds)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from bench.report.layout import bytes_text
from bench.shapes import KIB, MAX_SECONDS, MIB, Calls, Idle, Requests, Scenario, Setup, Slow, Stream

__all__ = ["SCENARIOS", "beside"]

# Of scenarios whose tails are judged, which need more messages than a median.
TAIL_SECONDS, SCRAPED_SECONDS = 1.0, 2.0
# Whoever has to take 1 GiB in a second is no slow reader.
SLOW_SECONDS = 3.0
BESIDE_LONGER = 0.1  # seconds that a load beside calls lasts longer than they

_LATENCY = ("p50", "p90", "p99", "p999", "max")
_FAULTS = ("lost", "reordered", "changed")
_ENDS = ("generator_cpu_us", "origin_cpu_us")
_CALLS = (
    *(*_LATENCY, "per_second", *_FAULTS, "cpu_us", "switches"),
    *("late_p50", "late_p99", *_ENDS),
)
_GROWN = ("p50_grown", "p99_grown")
_SCRAPED = ("p50_scraped", "p99_scraped", "pump_scraped", "scrape_ms")
_MIXED = (*_LATENCY, *_GROWN, "per_second", *_FAULTS, "late_p50", "late_p99")
_CROWD = (
    *(*_LATENCY, *_GROWN, "cpu_us", "cpu_grown", "pump_cpu_us", "pss_kib", "pump_kib"),
    *(*_SCRAPED, "per_second", *_FAULTS, "switches", "late_p50", "late_p99", *_ENDS),
)
_WATCHED = (
    *(*_LATENCY, *_SCRAPED, "cpu_us", "pump_cpu_us", "per_second", *_FAULTS, "switches"),
    *("late_p50", "late_p99", *_ENDS),
)
_STREAM = (*_LATENCY, "per_second", "mb_per_second", *_FAULTS, "cpu_us", "switches", *_ENDS)
_BULK = ("mb_per_second", "per_second", *_LATENCY, *_FAULTS, "cpu_us", "switches", *_ENDS)
_SLOW = ("grown_kib", "pump_grown_kib", "mb_per_second", *_FAULTS, "cpu_us", *_ENDS)
_SETUP = (
    *(*_LATENCY, "per_second", "failed", "start_p50", "connect_p50", "echo_p50"),
    *("cpu_us", "switches", *_ENDS),
)
_REQUESTS = (*_LATENCY, "per_second", "failed", "cpu_us", "switches", *_ENDS)
_CARRIED = (*_LATENCY, "per_second", "mb_per_second", "failed", "cpu_us", "switches", *_ENDS)
_IDLE = ("pss_kib", "pump_kib", "cpu_us", "switches", "failed")

_ECHO = "Echo is no conversation, and loopback has no loss, no delay and a huge MTU."
_AWAKE = (
    f"{_ECHO} Cores are kept awake between messages: what waking them up costs, which is more for"
    " the relay than for its peers, is in calls-halting."
)
_BESIDE = (
    "On few cores the load beside takes them from everything, generator and origin"
    " included; CPU per message is left out, because it is mostly the other load's."
)
_CLOSED = "A closed loop: a slower target is asked less often, and a crowd would queue."


def _calls(name: str, about: str, **numbers: object) -> Calls:
    fixed: dict[str, object] = {"figures": _CALLS, "main": "p50", "shows_not": _AWAKE}
    return Calls(name=name, about=about, **{**fixed, **numbers})  # type: ignore[arg-type]


def _beside(name: str, other: str, **numbers: object) -> Calls:
    about = f"50 calls beside {other}; just before, for what that changes, alone"
    fixed: dict[str, object] = {
        "figures": _MIXED, "shows_not": _BESIDE, "cores": "two", "seconds": TAIL_SECONDS,
    }  # fmt: skip
    return _calls(name, about, **{**fixed, **numbers})


def _stream(name: str, connections: int, size: int, in_flight: int) -> Stream:
    return Stream(
        name=name,
        about=f"messages of {bytes_text(size)} as fast as they go, {in_flight} in flight on each of"
        f" {connections}",
        figures=_BULK,
        main="mb_per_second",
        shows_not="Loopback moves bytes by copying: no network card, no loss, MTU of 64 KiB.",
        cpu_per="forwarded MiB",
        connections=connections,
        size=size,
        in_flight=in_flight,
    )


def _bulk(label: str, size: int, in_flight: int) -> Stream:
    stream = _stream(f"bulk-{label}", 4, size, in_flight)
    return replace(stream, series="bulk", at=size)


def _setup(name: str, about: str, shows_not: str, begins: Literal["token", "start"]) -> Setup:
    return Setup(
        name=name,
        about=about,
        figures=_SETUP,
        main="per_second",
        shows_not=f"{_CLOSED} {shows_not}",
        cpu_per="call",
        begins=begins,
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
    # These first, while the targets' memory is that of a fresh start.
    Idle(
        name="idle",
        about="2000 open tunnels in which nothing happens",
        figures=_IDLE,
        main="pss_kib",
        shows_not="The kernel's socket buffers are not in PSS; they are the same for every target.",
        cpu_per="second",
    ),
    _beside(
        "mixed-idle",
        "5000 open tunnels in which nothing happens",
        figures=_CROWD,
        idle=5_000,
        scrapes=1,
        seconds=SCRAPED_SECONDS,
        cores="one",
        shows_not="What it costs to open them all at once.",
    ),
    _calls("calls", "20 ms audio both ways: round trip from the intended send time"),
    _calls("calls-apart", "20 ms audio both ways, the target on a core of its own", cores="apart"),
    _calls(
        "calls-halting",
        "20 ms audio both ways, on a core that may halt between messages",
        halting=1,
        shows_not=_ECHO,
    ),
    _calls("calls-pipecat", "20 ms audio in Pipecat's protobuf frames of 16 kHz", size=651),
    _calls("calls-twilio", "20 ms audio in Twilio's JSON", size=390, kind="text"),
    _calls(
        "calls-exotel",
        "100 ms audio in Exotel's JSON, ten times a second",
        size=2287,
        rate=10,
        kind="text",
    ),
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
    _stream("bulk-2x1m", 2, MIB, 2),
    _setup(
        "setup",
        "calls set up: WebSocket handshake with a token, first echo, close",
        "Only the relay checks a token; the others pass an upgrade on.",
        "token",
    ),
    _setup(
        "whole-calls",
        "whole calls: start, WebSocket handshake with the token, first echo, close",
        "Only the relay has a start and a token; the others pass an upgrade on.",
        "start",
    ),
    _requests("json", "small JSON answers through the Session API", 16),
    _requests("up", "POST of 1 MiB through the Session API", 4),
    _requests("down", "answers of 1 MiB through the Session API", 4),
    _requests("events", "server-sent events every 20 ms: from being sent to being read", 50),
    Slow(
        name="slow-reader",
        about="1 GiB pushed to a client that reads it slowly: what does the target hold?",
        figures=_SLOW,
        main="grown_kib",
        shows_not="What the kernel's own socket buffers hold, some MiB each, is in no process.",
        cpu_per="forwarded MiB",
        connections=1,
        size=64 * KIB,
        in_flight=512,
        pushed=1 << 30,
        seconds=SLOW_SECONDS,
    ),
    _beside("mixed-http", "four connections that ask for small JSON without pause", flood=4),
    _beside(
        "mixed-sessions", "sixteen connections that ask for small JSON without pause", flood=16
    ),
    _beside("mixed-bulk", "a stream of 64 KiB messages", bulk=1),
    _calls(
        "mixed-scrapes",
        "50 calls while /metrics is fetched ten times a second; just before, alone",
        figures=_WATCHED,
        cores="two",
        scrapes=10,
        seconds=SCRAPED_SECONDS,
        shows_not="What the fetches themselves cost, which is in another process than the calls.",
    ),
    *(_scale(calls) for calls in (10, 50, 100, 200, 500, 1000)),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
