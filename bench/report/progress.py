"""How far a run is: a bar with the time left on a terminal, a line per scenario elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

__all__ = ["Progress", "left", "minutes"]

BAR = 24
CLEAR = "\r\x1b[K"


class Progress:
    """Counts work done, in seconds as planned; real time per planned second makes the forecast.

    Args:
        planned: seconds of the whole run as its scenarios state them.
        stream: where it is shown.
    """

    def __init__(self, planned: float, stream: TextIO) -> None:
        self._planned, self._stream = planned, stream
        self._done = 0.0
        self._began = time.monotonic()
        self._bar = stream.isatty()

    def begin(self, text: str) -> None:
        """A scenario begins."""
        if not self._bar:
            self._say(f"bench: {text}, {self._left()}\n")

    def step(self, text: str) -> None:
        """A round begins."""
        if self._bar:
            share = min(1.0, self._done / self._planned)
            filled = "#" * int(share * BAR)
            self._say(f"{CLEAR}[{filled:.<{BAR}}] {share:4.0%} {text}, {self._left()}")

    def done(self, planned: float) -> None:
        """A round of so many planned seconds is over."""
        self._done += planned

    def clear(self) -> None:
        """Make room for other output."""
        if self._bar:
            self._say(CLEAR)

    def _left(self) -> str:
        return left(self._planned, self._done, time.monotonic() - self._began)

    def _say(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def left(planned: float, done: float, elapsed: float) -> str:
    """The time left in words; before anything is done the plan itself is the forecast."""
    pace = elapsed / done if done else 1.0
    return f"about {minutes(max(0.0, (planned - done) * pace))} left"


def minutes(seconds: float) -> str:
    """A time in words: 40 s, 12 min, 2 h 5 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 120 else f"{whole // 60} h {whole % 60} min"
