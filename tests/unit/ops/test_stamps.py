"""Time stamps of log lines."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from relay.ops.log import _stamp


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_a_stamp_is_the_moment_to_the_microsecond(nanoseconds: int) -> None:
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    shown = moment.isoformat(timespec="microseconds")
    assert _stamp(nanoseconds) == shown.removesuffix("+00:00") + "Z"
