"""Medians and ratios come from valid rounds only; the best peer has earned it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.report.results import Part
from bench.report.tally import Tally
from bench.rounds import Round
from tests.helpers.bench_results import part, spoilt, subjects

NAMES = ("direct", "relay", "nginx", "haproxy")


def with_figures(target: str, number: int, **figures: float) -> Round:
    return Round("calls", target, number, figures=figures)


def tally(*rounds: Round, names: tuple[str, ...] = NAMES) -> Tally:
    return Tally(replace(part("calls", names, 1, 10), rounds=rounds), subjects(names))


def spoilt_tally(target: str, number: int) -> tuple[Part, Tally]:
    whole = part("calls", NAMES, 3, 10)
    return whole, Tally(spoilt(whole, target, number, "saturated"), subjects(NAMES))


def test_targets_are_in_the_order_of_the_run() -> None:
    made = Tally(part("calls", NAMES, 2, 10), subjects(NAMES))
    assert made.names == list(NAMES)
    assert (made.direct, made.relays, made.peers) == ("direct", ["relay"], ["nginx", "haproxy"])


def test_an_invalid_round_is_in_no_figure() -> None:
    whole, made = spoilt_tally("relay", 2)
    left = [one.figures["p50"] for one in whole.rounds if one.target == "relay" and one.number != 2]
    band = made.band("relay", "p50")
    assert band is not None
    assert (band.low, band.high, band.count) == (min(left), max(left), 2)
    assert [(one.target, one.number) for one in made.invalid] == [("relay", 2)]
    assert (len(made.rounds("relay")), made.tried("relay")) == (2, 3)


@pytest.mark.parametrize("spoilt_target", ["relay", "direct"])
def test_a_ratio_leaves_out_rounds_in_which_one_side_is_invalid(spoilt_target: str) -> None:
    _, made = spoilt_tally(spoilt_target, 1)
    ratio = made.ratio("relay", "direct", "p50")
    assert ratio is not None
    assert ratio.count == 2


def test_a_ratio_is_of_rounds_and_not_of_medians() -> None:
    made = tally(
        *(with_figures("direct", n, p50=base) for n, base in ((1, 10), (2, 20), (3, 90))),
        *(with_figures("relay", n, p50=value) for n, value in ((1, 30), (2, 40), (3, 90))),
    )
    ratio = made.ratio("relay", "direct", "p50")
    assert ratio is not None
    assert (ratio.low, ratio.middle, ratio.high) == (1, 2, 3)


def test_no_ratio_to_nobody() -> None:
    made = tally(with_figures("relay", 1, p50=1), names=("relay",))
    assert made.direct is None
    assert made.ratio("relay", made.direct, "p50") is None
    assert made.best_peer("p50") is None


def test_the_best_peer_is_a_peer() -> None:
    made = tally(
        with_figures("direct", 1, p50=1, per_second=9),
        with_figures("relay", 1, p50=2, per_second=8),
        with_figures("nginx", 1, p50=3, per_second=4),
        with_figures("haproxy", 1, p50=4, per_second=5),
    )
    assert made.best_peer("p50") == "nginx"
    assert made.best_peer("per_second") == "haproxy"


@pytest.mark.parametrize("fault", ["lost", "reordered", "changed"])
def test_a_peer_that_spoils_one_message_is_not_the_best(fault: str) -> None:
    made = tally(
        with_figures("nginx", 1, **{"p50": 3, fault: 0}),
        with_figures("nginx", 2, **{"p50": 3, fault: 1}),
        with_figures("haproxy", 1, **{"p50": 4, fault: 0}),
    )
    assert made.best_peer("p50") == "haproxy"
    assert made.faults("nginx") == 1


def test_a_figure_that_compares_nothing_has_no_best() -> None:
    assert tally(with_figures("nginx", 1, late_p50=3)).best_peer("late_p50") is None


def test_what_was_not_measured_is_not_compared() -> None:
    assert tally(with_figures("nginx", 1, p50=3)).compared == ["p50"]


def test_what_is_0_is_no_base_for_ratios() -> None:
    made = tally(with_figures("nginx", 1, cpu_us=0), with_figures("haproxy", 1, cpu_us=2))
    assert not made.is_base("nginx", "cpu_us")
    assert made.is_base("haproxy", "cpu_us")
    assert not made.is_base("relay", "cpu_us")
