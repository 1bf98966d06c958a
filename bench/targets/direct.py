"""The origin alone, and what runs already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from bench.children import Child
from bench.client import Door
from bench.origin import start_origin
from bench.probe import sample
from bench.targets.base import Target, exchange

__all__ = ["direct", "origin", "running"]


@contextmanager
def origin() -> Iterator[tuple[Child, str]]:
    """Run the echo server: the process and its http:// URL. Raises ChildFailed."""
    with start_origin() as (child, urls):
        yield child, urls[0]


@contextmanager
def direct(child: Child, url: str) -> Iterator[Target]:
    """The origin without anything in front of it. Raises ChildFailed."""
    door = Door(ws_url=url.replace("http://", "ws://", 1) + "/ws", http_url=url)
    exchange(child, door)
    yield Target("direct", door, "direct", pid=child.pid, idle=sample(child.pid), forwards=1)


def running(url: str, agent: str, key: str) -> Target:
    """Something that runs already: ws://… as it is, http://… a daemon with this agent and key.

    Raises:
        ValueError: another scheme, or no host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "ws") or not parts.hostname:
        raise ValueError(f"--url is {url!r}; expected http://host:port or ws://host:port/path")
    if parts.scheme == "ws":
        return Target(parts.netloc, Door(ws_url=url))
    door = Door(start_url=f"{url.rstrip('/')}/v1/public/{agent}/start", key=key)
    return Target(parts.netloc, door, "relay")
