"""The echo server that stands behind every target: a compiled program (bench/native/origin.c)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.children import Child, ChildFailed
from bench.native import program

__all__ = ["start_origin"]

LISTENING = "listening on "
START_WAIT = 15.0  # seconds; it takes a few milliseconds
LIFETIME = 12 * 3600  # seconds; no run takes longer, and a forgotten origin ends itself


@contextmanager
def start_origin(listeners: int = 1, delay_us: int = 0) -> Iterator[tuple[Child, list[str]]]:
    """Run it: the process and its http:// URLs.

    Args:
        listeners: ports, as many as bots are wanted.
        delay_us: how much later than it could every echo is sent.

    Raises:
        ChildFailed: it could not be built or did not start.
    """
    command = ["--port", "0", "--listeners", str(listeners), "--lifetime", str(LIFETIME)]
    command += ["--delay-us", str(delay_us)]
    with Child("origin", command, program=program("origin")) as child:
        urls = []
        for _ in range(listeners):
            line = child.read_line(START_WAIT)
            if not line.startswith(LISTENING):
                raise ChildFailed(f"the origin did not start: {line}")
            urls.append(line.removeprefix(LISTENING))
        yield child, urls
