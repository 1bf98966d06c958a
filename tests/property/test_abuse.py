"""Laws of the buckets: no more than burst and rate allow, no more names than there is room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.policy.abuse import Buckets, address_key

# Slow rates, small bursts and short pauses often enough that somebody has to wait.
RATES = st.floats(0.01, 1) | st.floats(0.01, 1000)
BURSTS = st.integers(1, 3) | st.integers(1, 50)
PAUSES = st.sampled_from((0.0, 0.1)) | st.floats(0, 10)
STEPS = st.lists(st.tuples(st.sampled_from("abc"), PAUSES), max_size=80)


@given(RATES, BURSTS, STEPS)
def test_never_more_than_burst_and_rate(
    rate: float, burst: int, steps: list[tuple[str, float]]
) -> None:
    buckets, now = Buckets(rate, burst), 1000.0
    granted: dict[str, list[float]] = {}
    for name, pause in steps:
        now += pause
        if buckets.take(name, now) == 0.0:
            granted.setdefault(name, []).append(now)
    for times in granted.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                allowed = burst + rate * (times[last] - times[first])
                assert last - first + 1 <= allowed * (1 + 1e-9) + 1e-6


@given(RATES, BURSTS, STEPS)
def test_who_waits_as_long_as_told_is_served(
    rate: float, burst: int, steps: list[tuple[str, float]]
) -> None:
    buckets, now = Buckets(rate, burst), 1000.0
    for name, pause in steps:
        now += pause
        wait = buckets.take(name, now)
        assert wait >= 0.0
        if wait:
            assert abs(buckets.wait(name, now) - wait) < 1e-6
            now += wait + 1e-6 / rate + 1e-9 * now
            assert buckets.take(name, now) == 0.0


@given(st.lists(st.text(max_size=3), max_size=60), st.integers(1, 5))
def test_the_table_is_bounded(names: list[str], most: int) -> None:
    buckets = Buckets(1.0, 1, most)
    for number, name in enumerate(names):
        buckets.take(name, float(number))
        assert len(buckets) <= most


@given(STEPS)
def test_one_name_costs_another_nothing(steps: list[tuple[str, float]]) -> None:
    together, alone, now = Buckets(1.0, 3), Buckets(1.0, 3), 1000.0
    for name, pause in steps:
        now += pause
        wait = together.take(name, now)
        if name == "a":
            assert alone.take("a", now) == wait


def test_a_clock_that_goes_back_grants_nothing_more() -> None:
    buckets = Buckets(1.0, 1)
    assert buckets.take("a", 100.0) == 0.0
    assert buckets.take("a", 50.0) > 0.0
    assert buckets.take("a", 50.5) > 0.0
    assert buckets.take("a", 100.9) > 0.0
    assert buckets.take("a", 101.0) == 0.0


def test_addresses_are_counted_by_their_network() -> None:
    assert address_key("192.0.2.1:4711") == address_key("192.0.2.1:4712") == "192.0.2.1"
    assert address_key("[2001:db8::1]:1") == address_key("[2001:db8::2]:2") == "2001:db8::/64"
    assert address_key("2001:db8::1:80") == "2001:db8::/64"
    assert address_key("[2001:db8:0:1::1]:1") != address_key("[2001:db8::1]:1")
    assert address_key("::ffff:192.0.2.1:80") == "192.0.2.1"
    assert address_key("unix") == "unix"
