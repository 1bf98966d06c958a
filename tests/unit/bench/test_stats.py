"""The histogram keeps its two laws, and the summaries do what their names say."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats import LARGEST, SUB, Histogram, median, ratio, spread

values = st.lists(st.integers(0, LARGEST) | st.integers(0, 5_000_000), min_size=1, max_size=60)


def filled(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.record(number)
    return histogram


@given(values, st.integers(1, 100))
def test_percentile_is_nearest_rank_within_the_resolution(numbers: list[int], percent: int) -> None:
    true = sorted(numbers)[math.ceil(len(numbers) * percent / 100) - 1]
    reported = filled(numbers).percentile(percent)
    assert true <= reported <= max(numbers)
    assert (reported - true) * SUB <= true


@given(values, values)
def test_merge_equals_the_histogram_of_all_values(left: list[int], right: list[int]) -> None:
    merged = filled(left)
    merged.merge(filled(right))
    assert merged.dump() == filled(left + right).dump()


@given(values)
def test_dump_survives_json(numbers: list[int]) -> None:
    histogram = filled(numbers)
    loaded = Histogram.load(json.loads(json.dumps(histogram.dump())))
    assert loaded.dump() == histogram.dump()
    assert loaded.percentile(100) == max(numbers)


@given(values)
def test_count_ends_and_mean_are_exact(numbers: list[int]) -> None:
    histogram = filled(numbers)
    assert (histogram.count, histogram.lowest, histogram.highest) == (
        len(numbers),
        min(numbers),
        max(numbers),
    )
    assert histogram.mean() == sum(numbers) / len(numbers)


@pytest.mark.parametrize("number", [0, 1, 2 * SUB - 1])
def test_small_values_are_exact(number: int) -> None:
    assert filled([number, number + 1_000_000]).percentile(50) == number


@pytest.mark.parametrize(("recorded", "counted"), [(-5, 0), (LARGEST + 5, LARGEST)])
def test_values_out_of_range_are_clamped(recorded: int, counted: int) -> None:
    assert filled([recorded]).percentile(100) == counted


def test_an_empty_histogram_reports_zero() -> None:
    assert Histogram().percentile(99) == 0
    assert Histogram().mean() == 0
    assert Histogram.load(Histogram().dump()).dump() == Histogram().dump()


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_percent_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="expected above 0"):
        Histogram().percentile(percent)


@pytest.mark.parametrize(
    "dumped",
    [
        {},
        {"sub_bits": 3, "counters": {}},
        {"sub_bits": 7, "counters": []},
        {"sub_bits": 7, "counters": {}, "count": "many"},
    ],
)
def test_what_is_no_dump_is_refused(dumped: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram.load(dumped)


def test_median_leaves_out_what_is_missing() -> None:
    assert median([3, None, 1, 2]) == 2
    assert median([None]) is None


def test_ratio_needs_both_and_a_base() -> None:
    assert ratio(3, 2) == 1.5
    assert ratio(None, 2) is None
    assert ratio(3, None) is None
    assert ratio(3, 0) is None


def test_spread_is_relative_to_the_median() -> None:
    assert spread([90, 100, 120]) == pytest.approx(0.3)
    assert spread([100]) is None
