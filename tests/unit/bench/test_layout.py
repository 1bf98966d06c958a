"""Labels keep apart and in order; axes say what they show."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.layout import (
    BEYOND,
    apart,
    bytes_text,
    count_text,
    duration,
    nines,
    percent,
    percent_text,
    place_of,
)

GAP = 0.05
wanted = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(wanted)
def test_labels_do_not_overlap_and_stay_inside(places: list[float]) -> None:
    made = sorted(apart(places, GAP, 0, 1))
    assert all(high - low >= GAP - 1e-9 for low, high in pairwise(made))
    assert made[0] >= 0
    assert made[-1] <= 1 + 1e-9


@given(wanted)
def test_labels_keep_the_order_of_their_curves(places: list[float]) -> None:
    made = apart(places, GAP, 0, 1)
    assert all(
        made[left] < made[right]
        for left, below in enumerate(places)
        for right, above in enumerate(places)
        if below < above
    )


@given(st.lists(st.integers(0, 9), unique=True, max_size=9))
def test_labels_with_room_stay_where_they_are(places: list[int]) -> None:
    exact = [place / 10 for place in places]
    assert apart(exact, GAP, 0, 1) == pytest.approx(exact)


def test_labels_of_one_place_spread_evenly_around_it() -> None:
    assert apart([0.5, 0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.4, 0.5, 0.6])


@given(st.integers(0, 10**7))
def test_no_curve_tells_more_than_its_values_can(count: int) -> None:
    places = nines(count)
    assert places == sorted(set(places))
    if places:
        beyond = count * (1 - percent(places[-1]) / 100)
        assert beyond == pytest.approx(BEYOND, rel=1e-3)
    else:
        assert count <= BEYOND


@pytest.mark.parametrize("value", [50, 90, 99, 99.9, 99.999])
def test_places_and_percentiles_are_inverse(value: float) -> None:
    assert percent(place_of(value)) == pytest.approx(value)


@pytest.mark.parametrize(("us", "text"), [
    (0, "0"), (250, "250 µs"), (0.5, "0.5 µs"), (1_500, "1.5 ms"), (2_000_000, "2 s"),
])  # fmt: skip
def test_durations(us: float, text: str) -> None:
    assert duration(us) == text


@pytest.mark.parametrize(("size", "text"), [
    (320, "320 B"), (2287, "2287 B"), (1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (4 << 20, "4 MiB"),
])  # fmt: skip
def test_sizes(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_numbers_on_axes() -> None:
    assert count_text(50) == "50"
    assert count_text(12_000) == "12\N{THIN SPACE}000"
    assert percent_text(99.9) == "99.9 %"
    assert percent_text(90) == "90 %"
