"""The histogram keeps its two laws, and the summaries do what their names say."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats import (
    LARGEST,
    SUB,
    Band,
    Histogram,
    Verdict,
    band,
    best,
    compare,
    median,
    paired,
)

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


@given(values, st.lists(st.floats(0.01, 100), max_size=9).map(sorted))
def test_several_percentiles_are_those_one_by_one(
    numbers: list[int], percents: list[float]
) -> None:
    histogram = filled(numbers)
    assert histogram.percentiles(percents) == [histogram.percentile(each) for each in percents]


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


figures = st.floats(1e-3, 1e6)
rounds = st.dictionaries(st.integers(1, 20), figures, max_size=8)


@given(st.lists(figures, min_size=1, max_size=9))
def test_a_band_holds_its_values_and_its_median(numbers: list[float]) -> None:
    made = band(numbers)
    assert made is not None
    assert all(made.low <= number <= made.high for number in numbers)
    assert {made.low, made.high} <= set(numbers)
    assert sum(number < made.middle for number in numbers) <= len(numbers) / 2
    assert sum(number > made.middle for number in numbers) <= len(numbers) / 2
    assert made.count == len(numbers)


def test_no_values_make_no_band() -> None:
    assert band([]) is None


@given(rounds, st.data())
def test_a_drift_of_the_machine_leaves_paired_ratios_alone(
    bases: dict[int, float], data: st.DataObject
) -> None:
    values = {number: data.draw(figures) for number in bases}
    drift = {number: data.draw(st.floats(0.5, 2)) for number in bases}
    drifted = paired(
        {number: value * drift[number] for number, value in values.items()},
        {number: base * drift[number] for number, base in bases.items()},
    )
    assert drifted == pytest.approx(paired(values, bases))


@given(rounds, rounds)
def test_ratios_are_of_rounds_that_both_have(
    values: dict[int, float], bases: dict[int, float]
) -> None:
    common = sorted(values.keys() & bases.keys())
    assert paired(values, bases) == [values[number] / bases[number] for number in common]


@given(rounds)
def test_what_is_compared_with_itself_has_the_ratio_one(values: dict[int, float]) -> None:
    assert paired(values, values) == [1.0] * len(values)


def test_a_base_of_zero_gives_no_ratio() -> None:
    assert paired({1: 3.0, 2: 3.0}, {1: 0.0, 2: 2.0}) == [1.5]


@given(st.dictionaries(st.sampled_from("abcdef"), figures, min_size=1))
def test_the_best_is_beaten_by_none(medians: dict[str, float]) -> None:
    bands = {name: Band(value, value, value, 1) for name, value in medians.items()}
    lowest, highest = best(bands, "lower"), best(bands, "higher")
    assert lowest is not None
    assert highest is not None
    assert medians[lowest] == min(medians.values())
    assert medians[highest] == max(medians.values())


def test_nobody_is_the_best_of_none() -> None:
    assert best({}, "lower") is None


@given(st.lists(figures, min_size=2, max_size=5), st.lists(figures, min_size=2, max_size=5))
def test_a_difference_is_noise_when_the_ranges_touch(left: list[float], right: list[float]) -> None:
    before, after = band(left), band(right)
    assert before is not None
    assert after is not None
    opposite: dict[Verdict, Verdict] = {"lower": "higher", "higher": "lower", "noise": "noise"}
    assert compare(after, before) == opposite[compare(before, after)]
    touches = max(min(left), min(right)) <= min(max(left), max(right))
    assert (compare(before, after) == "noise") == touches
    assert compare(before, before) == "noise"


@pytest.mark.parametrize("counts", [(1, 3), (3, 1), (1, 1)])
def test_one_round_says_nothing_about_noise(counts: tuple[int, int]) -> None:
    assert compare(Band(1, 1, 1, counts[0]), Band(9, 9, 9, counts[1])) == "unknown"


@pytest.mark.parametrize(("low", "verdict"), [(12, "higher"), (5, "lower"), (10, "noise")])
def test_direction_is_that_of_the_second(low: float, verdict: Verdict) -> None:
    assert compare(Band(10, 9, 11, 3), Band(low, low - 0.5, low + 0.5, 3)) == verdict
