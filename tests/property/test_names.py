"""Laws of what an answer means, whatever addresses it holds."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from relay.policy.names import MAX_ADDRESSES, MIN_INTERVAL, bounded, next_look, usable

ADDRESSES = st.lists(
    st.one_of(
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(str),
        st.ip_addresses(v=6, network="fe80::/10").map(lambda each: f"{each}%eth0"),
        st.ip_addresses(v=4).map(lambda each: f"::ffff:{each}"),
        st.sampled_from(["0.0.0.0", "::", "255.255.255.255", "169.254.169.254", "127.0.0.1"]),
    )
)


@given(ADDRESSES)
def test_usable_addresses(texts: list[str]) -> None:
    found = [ipaddress.ip_address(text) for text in usable(texts)]
    assert found == sorted(set(found), key=int)
    assert len({each.version for each in found}) <= 1
    for each in found:
        assert {each.is_unspecified, each.is_multicast, each.is_link_local} == {False}
    assert usable(texts[::-1] + texts) == usable(texts) == usable(usable(texts))


@given(st.lists(st.ip_addresses(v=4, network="10.0.0.0/8").map(str), min_size=1))
def test_nothing_usable_is_lost(texts: list[str]) -> None:
    assert set(usable(texts)) == set(texts)


@given(st.lists(st.integers(), max_size=MAX_ADDRESSES * 2))
def test_the_bound(items: list[int]) -> None:
    kept, left_out = bounded(items)
    assert kept + left_out == items
    assert len(kept) == min(len(items), MAX_ADDRESSES)


@given(st.floats(1, 3600), st.none() | st.floats(0, 1e9))
def test_a_name_is_looked_up_in_time(interval: float, ttl: float | None) -> None:
    wait = next_look(interval, ttl)
    assert MIN_INTERVAL <= wait <= interval
    if ttl:
        assert wait <= max(ttl, MIN_INTERVAL)
