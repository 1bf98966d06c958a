"""Floods beside live calls: who calls is served, what floods is counted, and nothing is left of it.

How much longer messages take is printed, for a quiet machine to tell (docs/threat-model.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.daemon import Daemon, wait_until
from tests.live.flood import CALLS, FLOODS, attacked, causes, endure

REFUSED = {
    "connections": "too_many_from_address",
    "slow heads": "too_many_from_address",
    "bad tokens": "too_many_refused",
}


def held(daemon: Daemon) -> tuple[int, int]:
    """Tasks and descriptors of the control process."""
    ready = daemon.request("GET", "/readyz", admin=True).json()
    assert ready["calls"] == CALLS
    return ready["tasks"], len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def no_more(now: tuple[int, int], before: tuple[int, int]) -> bool:
    return all(one <= other for one, other in zip(now, before, strict=True))


def test_floods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with attacked(tmp_path) as (daemon, callers):
        before = held(daemon)
        for kind in FLOODS:
            counted = causes(daemon).get(REFUSED[kind], 0)
            seen = endure(kind, daemon, callers)
            with capsys.disabled():
                print(f"\n{seen.report()}")
            assert seen.failed() == 0
            assert causes(daemon)[REFUSED[kind]] > counted
            wait_until(lambda: no_more(held(daemon), before), f"{before}; {held(daemon)}")
