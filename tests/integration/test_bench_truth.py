"""The bench against itself: known delays, lies and stalls must be in its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench import native
from bench.client import Door
from bench.figures import FIGURES
from bench.origin import start_origin
from bench.probe import sample
from bench.rounds import Round, measure
from bench.scenarios import SCENARIOS
from bench.shapes import Scenario
from bench.stats import Histogram
from bench.targets import Target
from tests.helpers.lying_relay import (
    STALL,
    LyingRelay,
    alter,
    double,
    drop,
    fragment,
    lengthen,
    stall,
    swap,
)

pytestmark = pytest.mark.skipif(
    native.compiler() is None, reason="no C compiler: apt-get install gcc"
)

OPENING = 4 + 320  # bench.opening.FIRST_SIZE with the header of a frame that long
CALLS, EVERY, LIES = 2, 25, 4  # of 70 messages on each call the 25th and the 50th
DELAY_US = 3000
NS_PER_US = 1000


def scenario(name: str, **numbers: object) -> Scenario:
    return replace(SCENARIOS[name], **numbers)  # type: ignore[arg-type]


def few_calls(**numbers: object) -> Scenario:
    return scenario("calls", calls=CALLS, seconds=1.2, warmup=0.2, **numbers)


def through(port: int, one: Scenario) -> Round:
    """A round over WebSockets to what listens on a port of loopback."""
    http = f"http://127.0.0.1:{port}"
    door = Door(ws_url=f"ws://127.0.0.1:{port}/ws", http_url=http)
    return measure(one, Target(name="test", door=door), 1)


def through_liar(
    one: Scenario, size: int, lie: Callable[[bytes, bytes], bytes], every: int
) -> tuple[Round, int]:
    """A round with a lying relay before the origin, and how many lies it told."""
    frame = size + (2 if size < 126 else 4)
    with (
        start_origin() as (_, urls),
        LyingRelay(
            int(urls[0].rpartition(":")[2]), opening=OPENING, frame=frame, lie=lie, every=every
        ) as relay,
    ):
        result = through(relay.port, one)
        return result, relay.lies


def faults(result: Round) -> tuple[float, float, float]:
    figures = result.figures
    return figures["lost"], figures["reordered"], figures["changed"]


def above(histogram: Histogram, ns: int) -> int:
    """How many values were above `ns`, by the counters alone."""
    counters = histogram.dump()["counters"]
    assert isinstance(counters, dict)
    edge = Histogram()
    edge.record(ns)
    limit = int(next(iter(edge.dump()["counters"])))  # type: ignore[call-overload]
    return sum(count for index, count in counters.items() if int(index) > limit)


def test_an_honest_origin_has_no_faults() -> None:
    with start_origin() as (child, urls):
        result = through(int(urls[0].rpartition(":")[2]), few_calls())
        assert child.alive
    assert faults(result) == (0, 0, 0)
    assert result.histograms["latency"].count == CALLS * 60


@pytest.mark.parametrize(
    ("lie", "kind", "expected"),
    [
        (drop, "binary", (LIES, 0, 0)),
        (double, "binary", (0, LIES, 0)),
        (swap, "text", (0, LIES, 0)),
        (alter, "text", (0, 0, LIES)),
        (fragment, "text", (0, 0, 0)),
        (fragment, "binary", (0, 0, 0)),
        (lengthen, "text", (0, 0, LIES)),
    ],
)
def test_each_lie_is_counted_in_its_column(
    lie: Callable[[bytes, bytes], bytes], kind: str, expected: tuple[int, int, int]
) -> None:
    result, told = through_liar(few_calls(kind=kind), 320, lie, EVERY)
    assert told == LIES
    assert faults(result) == expected


@pytest.mark.parametrize("lie", [drop, double, alter], ids=["drop", "double", "alter"])
def test_one_message_in_a_million_is_caught(lie: Callable[[bytes, bytes], bytes]) -> None:
    every, size = 1_000_000, 24
    one = scenario("bulk-1k", connections=1, size=size, in_flight=1024, seconds=2.0, warmup=0)
    result, told = through_liar(one, size, lie, every)
    assert told >= 1
    assert sum(faults(result)) == told


def test_an_added_delay_is_reported() -> None:
    one = scenario("pingpong", seconds=0.5, warmup=0.1)
    rounds = []
    for delay_us in (0, DELAY_US):
        with start_origin(delay_us=delay_us) as (_, urls):
            rounds.append(through(int(urls[0].rpartition(":")[2]), one))
    plain, delayed = rounds
    assert delayed.histograms["latency"].lowest >= DELAY_US * NS_PER_US
    # The quickest of all plain round trips: the median of a disturbed one proves nothing.
    added = delayed.figures["p50"] - plain.histograms["latency"].lowest / NS_PER_US
    assert added >= DELAY_US


def test_a_stall_is_in_the_percentiles_of_all_that_it_made_wait() -> None:
    one = scenario("calls", calls=1, rate=100, seconds=2.0, warmup=0)
    result, told = through_liar(one, 320, stall, 90)
    assert told == 2
    assert faults(result) == (0, 0, 0)
    # Each stall of 200 ms made those wait that were due in it: every 10 ms one, the first
    # ten of them for 100 ms and more. A generator that waits for echoes would see one.
    assert above(result.histograms["latency"], int(STALL * 1e9 / 2)) >= 2 * 9
    assert result.figures["max"] >= STALL * 1e6
    assert result.figures["p99"] >= STALL * 1e6 * 0.75


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("calls", {"calls": 2}),
        ("pingpong", {}),
        ("bulk-64k", {}),
        ("setup", {"workers": 2}),
        ("whole-calls", {"workers": 2}),
        ("requests-json", {}),
        ("requests-up", {}),
        ("requests-events", {"connections": 2, "events": 5}),
        ("idle", {"tunnels": 5}),
        ("slow-reader", {"in_flight": 64, "pushed": 4 << 20}),
        ("mixed-idle", {"calls": 2, "idle": 5, "scrapes": 20}),
        ("mixed-scrapes", {"calls": 2}),
        ("calls-halting", {"calls": 2}),
        ("mixed-http", {"calls": 2}),
        ("mixed-bulk", {"calls": 2}),
    ],
)
def test_a_round_has_every_figure_of_its_scenario(name: str, numbers: dict[str, int]) -> None:
    one = scenario(name, seconds=0.3, warmup=0.1, **numbers)
    with start_origin() as (child, urls):
        pid, url = child.pid, urls[0]
        ws_url = f"ws{url.removeprefix('http')}/ws"
        door = Door(ws_url=ws_url, http_url=url, metrics_url=f"{url}/json")
        target = Target(name="test", door=door, pid=pid, idle=sample(pid), forwards=1)
        result = measure(one, target, 1, pid)
    # A busy machine may make the generator late, which does not take any figure away.
    assert not result.invalid or result.invalid.startswith("saturated")
    assert set(result.figures) <= set(FIGURES)
    # The origin has no start and no pumps, and its memory of two calls is all noise.
    absent = set(one.figures) - set(result.figures)
    assert absent <= {"start_p50", *(name for name in FIGURES if name.startswith("pump_"))}
    assert all(result.figures.get(fault, 0) == 0 for fault in ("lost", "changed", "failed"))


@pytest.mark.parametrize("kind", ["json", "up", "down", "events"])
def test_requests_are_answered_and_verified(kind: str) -> None:
    one = scenario(f"requests-{kind}", connections=2, seconds=0.5, warmup=0, interval_ms=5)
    with start_origin() as (_, urls):
        result = through(int(urls[0].rpartition(":")[2]), one)
    assert result.figures["failed"] == 0
    assert result.histograms["latency"].count > 0


def test_an_altered_answer_is_a_failed_request() -> None:
    # The head and the first bytes of the body come through, then one bit is another.
    one = scenario("requests-down", connections=1, seconds=0.3, warmup=0)
    result, told = through_liar(one, 1000, alter, 2)
    assert told >= 1
    assert result.figures["failed"] >= 1
    assert "body is changed" in result.note


def test_an_altered_echo_is_a_failed_call() -> None:
    one = scenario("setup", workers=1, seconds=0.3, warmup=0)
    # The only echo of a call counts as two messages there, of which the first is altered.
    with (
        start_origin() as (_, urls),
        LyingRelay(
            int(urls[0].rpartition(":")[2]), opening=0, frame=OPENING // 2, lie=alter, every=1
        ) as relay,
    ):
        result = through(relay.port, one)
    assert relay.lies >= 1
    assert result.figures["failed"] >= 1
    assert "an echo was changed" in result.raw["load"]["failure"]  # type: ignore[index]


def test_a_fetch_that_fails_makes_an_invalid_round() -> None:
    one = scenario("mixed-scrapes", calls=1, seconds=0.3, warmup=0)
    with start_origin() as (_, urls):
        door = Door(ws_url=f"ws{urls[0].removeprefix('http')}/ws", metrics_url=f"{urls[0]}/none")
        result = measure(one, Target(name="test", door=door), 1)
    assert result.invalid == "fetching the metrics failed: answered with 404"


def test_a_target_that_is_not_there_makes_an_invalid_round() -> None:
    with start_origin() as (_, urls):
        port = int(urls[0].rpartition(":")[2])
    for name in ("calls", "pingpong", "requests-json", "setup", "idle", "mixed-http"):
        result = through(port, scenario(name, seconds=0.2, warmup=0))
        assert result.invalid, name
