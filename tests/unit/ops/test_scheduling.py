"""The control process asks the kernel for long turns, and changes nothing else of anybody's."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

from relay.ops.scheduling import SCHED_SETATTR, SLICE_NANOSECONDS

# Behind sched_setattr on x86-64, and on the architectures with the common numbers.
SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
TELL = """
import ctypes, os, sys
from relay.ops.scheduling import SCHED_ATTR, ask_for_long_turns
def tell():
    found = ctypes.create_string_buffer(SCHED_ATTR.size)
    ctypes.CDLL(None).syscall(int(sys.argv[1]), 0, found, SCHED_ATTR.size, 0)
    _size, policy, _flags, nice, _priority, runtime, *_ = SCHED_ATTR.unpack(found.raw)
    print(policy, nice, runtime, flush=True)
os.nice(3)
tell()
ask_for_long_turns()
tell()
if not os.fork():
    tell()
"""


def kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", platform.release())[:2]))


@pytest.mark.skipif(
    platform.machine() not in SCHED_SETATTR or kernel() < (6, 12),
    reason="the kernel has no slices of its own for each process",
)
def test_the_slice_is_set_and_nothing_else() -> None:
    command = [sys.executable, "-c", TELL, str(SCHED_GETATTR[platform.machine()])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    before, after, child = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    policy, nice, usual = before
    assert nice == 3
    assert usual != SLICE_NANOSECONDS
    assert after == (policy, nice, SLICE_NANOSECONDS)
    assert child == before  # a pump or a bot
