"""When an instance is set aside, for how long, and when it is looked at again."""

from __future__ import annotations

import pytest

from relay.policy.health import (
    ASIDE_MOST,
    PROBE_READY,
    PROBE_UNREADY,
    PROBE_UNREADY_MOST,
    READY,
    REFUSALS,
    UNASKED,
    Failure,
    Health,
    chosen,
    described,
    expected,
    failed,
    is_silent,
    next_probe,
    probed,
    served,
)

GOOD = probed(Health(), READY, 0.0)


def after(*failures: Failure, health: Health = GOOD) -> list[float]:
    """The time aside after each of these failures, every one as soon as it is back."""
    waits = []
    now = 100.0
    for failure in failures:
        health = failed(health, failure, now, 0.0)
        waits.append(0.0 if health.aside is None else health.aside - now)
        now = max(now, health.aside or now)
        health = probed(health, READY, now)
    return waits


@pytest.mark.parametrize(
    ("failure", "waits"),
    [
        (Failure.UNREACHABLE, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        (Failure.BROKEN, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        (Failure.REFUSED, [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]),
        (Failure.SILENT, [5, 10, 20, 30, 30]),
    ],
)
def test_the_time_aside_grows(failure: Failure, waits: list[float]) -> None:
    assert after(*[failure] * len(waits)) == pytest.approx(waits)


def test_failures_of_all_kinds_count() -> None:
    kinds = (Failure.REFUSED, Failure.UNREACHABLE, Failure.REFUSED, Failure.SILENT)
    assert after(*kinds) == pytest.approx([0, 1, 0.5, 30])
    assert len(kinds) > REFUSALS


def test_a_call_that_is_taken_ends_the_series() -> None:
    health = failed(GOOD, Failure.REFUSED, 1.0, 0.0)
    health = failed(health, Failure.REFUSED, 2.0, 0.0)
    assert after(Failure.REFUSED, health=served(health)) == [0.0]
    aside = failed(GOOD, Failure.SILENT, 1.0, 0.0)
    assert served(aside) == GOOD


def test_calls_that_fail_together_count_once() -> None:
    health = failed(GOOD, Failure.SILENT, 1.0, 0.0)
    assert failed(health, Failure.SILENT, 1.5, 0.0) is health


@pytest.mark.parametrize(
    ("asked", "now", "silent"), [(100, 130, True), (115, 130, True), (116, 130, False)]
)
def test_a_bot_is_not_silent_that_was_asked_late(asked: float, now: float, silent: bool) -> None:
    assert is_silent(asked, now, 30.0) is silent


def test_back_with_the_first_good_probe_after_the_time() -> None:
    health = failed(GOOD, Failure.SILENT, 1.0, 0.0)
    assert probed(health, READY, 5.9).aside == 6.0
    late = probed(health, "answered 503", 6.0)
    assert late.aside == 6.0
    assert probed(late, READY, 6.3) == Health(READY, failures=1, why=Failure.SILENT)


@pytest.mark.parametrize(
    ("misses", "wanted", "wait"),
    [
        (0, False, PROBE_UNREADY),
        (1, False, PROBE_UNREADY),
        (2, False, PROBE_UNREADY * 2),
        (3, False, PROBE_UNREADY * 4),
        (4, False, PROBE_UNREADY_MOST),
        (10**6, False, PROBE_UNREADY_MOST),
        (10**6, True, PROBE_UNREADY),
    ],
)
def test_one_that_is_not_ready_is_asked_more_often_when_somebody_waits(
    misses: int, wanted: bool, wait: float
) -> None:
    health = Health("cannot connect", misses=misses)
    assert next_probe(health, 10.0, wanted=wanted, jitter=0.0) == 10.0 + wait
    assert next_probe(expected(health), 10.0, wanted=False, jitter=0.0) == 10.0 + PROBE_UNREADY


@pytest.mark.parametrize("wanted", [True, False])
def test_others_are_asked_when_it_is_of_use(wanted: bool) -> None:
    assert next_probe(GOOD, 10.0, wanted=wanted, jitter=0.0) == 10.0 + PROBE_READY
    aside = failed(GOOD, Failure.SILENT, 10.0, 0.0)
    assert next_probe(aside, 10.0, wanted=wanted, jitter=0.5) == aside.aside == 15.0
    assert next_probe(aside, 15.0, wanted=wanted, jitter=0.0) == 15.0 + PROBE_READY


def test_who_is_offered() -> None:
    refusing = failed(GOOD, Failure.REFUSED, 0.0, 0.0)
    for _ in range(REFUSALS):
        refusing = failed(refusing, Failure.REFUSED, 0.0, 0.0)
    silent = failed(GOOD, Failure.SILENT, 0.0, 0.0)
    busy = Health("answered 503")
    all_of_them = {"silent": silent, "busy": busy, "refusing": refusing, "new": Health()}
    assert chosen({**all_of_them, "good": GOOD}) == ["good"]
    # a caller is rather refused than told that there is no bot
    assert chosen(all_of_them) == ["refusing"]
    assert chosen({"silent": silent, "busy": busy}) == []
    gone = probed(refusing, "cannot connect", 1.0)
    assert chosen({"gone": gone}) == []


def test_what_is_shown() -> None:
    assert described(Health()) == UNASKED
    silent = failed(GOOD, Failure.SILENT, 0.0, 0.0)
    assert described(silent) == "set aside: does not answer calls"
    assert described(probed(silent, "answered 503", 1.0)).endswith("calls, answered 503")
    lost = failed(GOOD, Failure.UNREACHABLE, 0.0, 0.0)
    assert described(probed(lost, "cannot connect", 1.0)) == "set aside: cannot connect"
    assert ASIDE_MOST < 60  # or docs/operations.md is wrong
