"""The scenarios as data: their figures exist, their numbers are bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.figures import FIGURES
from bench.scenarios import SCENARIOS, beside
from bench.shapes import Calls, Requests, Scenario, Stream


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_its_figures_are_known_and_it_says_what_it_does_not_show(scenario: Scenario) -> None:
    assert scenario.main in scenario.figures
    assert len(set(scenario.figures)) == len(scenario.figures)
    assert set(scenario.figures) <= set(FIGURES)
    assert scenario.about
    assert scenario.shows_not.endswith(".")


def test_the_points_of_a_series_rise() -> None:
    every = {one.series for one in SCENARIOS.values() if one.series}
    assert every
    for series in every:
        points = [one.at for one in SCENARIOS.values() if one.series == series]
        assert points == sorted(set(points))
        assert len(points) > 2


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("calls", {"calls": 0}),
        ("calls", {"calls": 5_001}),
        ("calls", {"size": 23}),
        ("calls", {"calls": 5_000, "rate": 1_000, "seconds": 600.0}),
        ("calls", {"seconds": 0.1}),
        ("bulk-4m", {"in_flight": 9}),
        ("slow-reader", {"pushed": 1 << 10}),
        ("slow-reader", {"seconds": 0.2, "warmup": 0, "connections": 1, "pushed": 16 << 30}),
        ("mixed-idle", {"idle": 10_001}),
        ("setup", {"workers": 257}),
        ("requests-up", {"size": 5 << 20}),
        ("idle", {"tunnels": 10_001}),
    ],
)
def test_numbers_out_of_their_limits_are_refused(name: str, numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(SCENARIOS[name], **numbers)  # type: ignore[arg-type]


def test_a_load_beside_lasts_longer_than_the_calls() -> None:
    flooded, crowded, alone = (SCENARIOS[n] for n in ("mixed-http", "mixed-bulk", "calls"))
    assert isinstance(flooded, Calls)
    assert isinstance(crowded, Calls)
    assert isinstance(alone, Calls)
    flood, bulk = beside(flooded), beside(crowded)
    assert isinstance(flood, Requests)
    assert isinstance(bulk, Stream)
    assert flood.seconds > flooded.warmup + flooded.seconds
    assert bulk.seconds > crowded.warmup + crowded.seconds
    assert (flood.connections, bulk.connections) == (flooded.flood, crowded.bulk)
    assert beside(alone) is None
