"""Laws of health, whatever happens to an instance in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.policy.health import (
    ASIDE_MOST,
    PROBE_READY,
    PROBE_UNREADY,
    READY,
    SPREAD,
    Failure,
    Health,
    chosen,
    failed,
    next_probe,
    probed,
    served,
    spread,
)

JITTER = st.floats(0, 1, exclude_max=True)
EVENTS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(Failure),
            st.sampled_from([READY, "answered 503", "cannot connect"]),
            st.just("served"),
        ),
        st.floats(0, 60),
        JITTER,
    ),
    max_size=40,
)


def play(events: list[tuple[str, float, float]]) -> list[tuple[float, Health]]:
    """The health after each event, with its time."""
    health, now, seen = Health(), 0.0, []
    for event, later, jitter in events:
        now += later
        if isinstance(event, Failure):
            health = failed(health, event, now, jitter)
        elif event == "served":
            health = served(health)
        else:
            health = probed(health, event, now)
        seen.append((now, health))
    return seen


@given(EVENTS)
def test_nobody_is_set_aside_for_longer_than_the_bound(
    events: list[tuple[str, float, float]],
) -> None:
    before = Health()
    for (event, *_), (now, health) in zip(events, play(events), strict=True):
        if health.aside is not None and health.aside != before.aside:
            assert isinstance(event, Failure)
            assert 0 < health.aside - now <= ASIDE_MOST
        if before.aside is not None and health.aside is None:
            # back by a call that was taken, or a good probe after the time
            assert event == "served" or (event == READY and now >= before.aside)
        before = health


@given(EVENTS)
def test_good_probes_bring_everybody_back(events: list[tuple[str, float, float]]) -> None:
    """The probes that it asks for, all of them good, make it fit in bounded time."""
    seen = play(events)
    now, health = seen[-1] if seen else (0.0, Health())
    last, end = now, now + ASIDE_MOST + PROBE_READY
    while chosen({"it": health}) != ["it"] or health.aside is not None:
        last = next_probe(health, last, wanted=False, jitter=0.0)
        assert last <= end
        health = probed(health, READY, last)


@given(EVENTS, JITTER, st.booleans())
def test_probes_are_neither_put_off_nor_hurried(
    events: list[tuple[str, float, float]], jitter: float, wanted: bool
) -> None:
    for now, health in play(events):
        wait = next_probe(health, now, wanted=wanted, jitter=jitter) - now
        assert health.aside is not None or wait >= PROBE_UNREADY * (1 - SPREAD) - 1e-6
        assert 0 <= wait <= max(PROBE_READY, ASIDE_MOST) + 1e-6


@given(st.dictionaries(st.text(), EVENTS, max_size=8))
def test_only_ready_ones_are_offered_and_the_fit_ones_first(
    histories: dict[str, list[tuple[str, float, float]]],
) -> None:
    healths = {
        name: (play(events) or [(0.0, Health())])[-1][1] for name, events in histories.items()
    }
    offered = chosen(healths)
    fit = [name for name, each in healths.items() if each.says == READY and each.aside is None]
    assert offered == fit if fit else all(healths[name].says == READY for name in offered)
    assert len(offered) == len(set(offered))


@given(st.floats(0, 1000), JITTER)
def test_spreading_only_shortens(seconds: float, jitter: float) -> None:
    assert seconds * (1 - SPREAD) <= spread(seconds, jitter) <= seconds
