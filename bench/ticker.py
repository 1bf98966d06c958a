"""A periodic timer as a file descriptor: wake-ups that are exact to microseconds.

Why not epoll's own timeout: it counts in whole milliseconds, and a sleep is late
by the process's timer slack (50 us), both more than what is to be measured.
A timerfd has neither. CPython offers it from 3.13 on only, hence ctypes.
"""

from __future__ import annotations

import ctypes
import os
import time

__all__ = ["Ticker"]

TFD_TIMER_ABSTIME = 1
NANOSECONDS = 1_000_000_000
EXPIRATIONS_SIZE = 8  # a read gives the number of expirations as a u64

_libc = ctypes.CDLL(None, use_errno=True)


class Ticker:
    """Readable at `begin` and then every `interval`, both in ns, on the monotonic clock."""

    def __init__(self, begin: int, interval: int) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, flags)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        # struct itimerspec: the interval, then the first expiry, each as seconds and ns.
        times = (*divmod(interval, NANOSECONDS), *divmod(begin, NANOSECONDS))
        spec = (ctypes.c_long * 4)(*times)
        if _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            os.close(self.fd)
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Make it unreadable until the next expiry."""
        try:
            os.read(self.fd, EXPIRATIONS_SIZE)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
