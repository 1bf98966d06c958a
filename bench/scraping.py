"""Fetches a target's metrics at a steady rate, as a monitoring system does."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass, field

from bench.client import Place

__all__ = ["Scraper"]

TIMEOUT = 10.0
MAX_ANSWER = 64 << 20


@dataclass(slots=True)
class Scraper:
    """Fetches when it is called, on one connection; a late answer delays what follows.

    Args:
        url: what to fetch.
        rate: how often a second.
        seconds: how long.
    """

    url: str
    rate: int
    seconds: float
    took: list[float] = field(default_factory=list)
    failure: str = ""

    def __call__(self) -> None:
        """Fetch for so long; seconds that each took go to `took`, why it ended to `failure`."""
        place, begun = Place.of(self.url), time.monotonic()
        connection = http.client.HTTPConnection(*place.address, timeout=TIMEOUT)
        try:
            for number in range(int(self.rate * self.seconds)):
                # From the middle of a period on: the first message is not due yet at its begin.
                due = begun + (number + 0.5) / self.rate
                time.sleep(max(0.0, due - time.monotonic()))
                if time.monotonic() > begun + self.seconds:
                    break
                self._fetch(connection, place.target)
        except (OSError, http.client.HTTPException) as error:
            self.failure = str(error) or type(error).__name__
        finally:
            connection.close()

    def _fetch(self, connection: http.client.HTTPConnection, target: str) -> None:
        asked = time.monotonic()
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read(MAX_ANSWER)
        if answer.status != 200:
            raise http.client.HTTPException(f"answered with {answer.status}")
        self.took.append(time.monotonic() - asked)
