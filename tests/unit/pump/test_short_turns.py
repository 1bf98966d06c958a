"""The pump asks the kernel for short turns, and changes nothing else of how it is scheduled."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

from relay.pump.__main__ import SCHED_SETATTR, SLICE_NANOSECONDS

# Behind sched_setattr on x86-64, and on the architectures with the common numbers.
SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
ASK = """
import ctypes, os, sys
from relay.pump.__main__ import SCHED_ATTR, ask_for_short_turns
before = os.nice(3)
ask_for_short_turns()
found = ctypes.create_string_buffer(SCHED_ATTR.size)
ctypes.CDLL(None).syscall(int(sys.argv[1]), 0, found, SCHED_ATTR.size, 0)
print(*SCHED_ATTR.unpack(found.raw), before)
"""


def kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", platform.release())[:2]))


@pytest.mark.skipif(
    platform.machine() not in SCHED_SETATTR or kernel() < (6, 12),
    reason="the kernel has no slices of its own for each process",
)
def test_the_slice_is_set_and_nothing_else() -> None:
    command = [sys.executable, "-c", ASK, str(SCHED_GETATTR[platform.machine()])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    _size, policy, _flags, nice, _priority, slice_, _deadline, _period, before = map(
        int, done.stdout.split()
    )
    assert (policy, nice, slice_) == (0, before, SLICE_NANOSECONDS)
