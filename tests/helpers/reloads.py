"""Orders to a running daemon's administration: reload, drain."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.helpers.daemon import Answer, Daemon, wait_until
from tests.helpers.ends import signal_daemon

JSON = {"Content_Type": "application/json"}


def post(daemon: Daemon, path: str, body: object = b"{}", **headers: str) -> Answer:
    """An order as the command line sends it."""
    return daemon.request("POST", path, body, admin=True, **(JSON | headers))


def reload(daemon: Daemon, text: str, **headers: str) -> Answer:
    """Write the file and have it followed."""
    daemon.config.write_text(text)
    return post(daemon, "/reload", **headers)


def reloaded(daemon: Daemon, text: str) -> list[str]:
    """The same, which must go well; what has changed."""
    answer = reload(daemon, text)
    assert answer.status == 200, answer.body
    changed: list[str] = answer.json()["changed"]
    return changed


def hang_up(daemon: Daemon, event: str = "reloaded") -> dict[str, Any]:
    """SIGHUP; the next line in the log of how it went."""
    seen = len(said(daemon, event))
    signal_daemon(daemon, signal.SIGHUP)
    wait_until(lambda: len(said(daemon, event)) > seen, event)
    return said(daemon, event)[seen]


def said(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    """The log lines of one kind so far."""
    return [line for line in daemon.logs() if line["event"] == event]


def drain(daemon: Daemon, *, on: bool = True, **what: object) -> Any:
    """Let something drain, or no longer; what drains then."""
    answer = post(daemon, "/drain", {**what, "on": on})
    assert answer.status == 200, answer.body
    return answer.json()


@contextmanager
def as_before(daemon: Daemon) -> Iterator[None]:
    """The configuration that it has before the block, and no drains, are what it has behind it."""
    text = daemon.config.read_text()
    try:
        yield
    finally:
        reloaded(daemon, text)
        drains = daemon.request("GET", "/drain", admin=True).json()
        for agent in drains["agents"]:
            drain(daemon, on=False, agent=agent)
        for instance in drains["instances"]:
            drain(daemon, on=False, instance=instance)
        drain(daemon, on=False, node=True)
