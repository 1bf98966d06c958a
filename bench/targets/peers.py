"""Proxies in Python, as one would write them with well-known libraries (bench/peers)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from bench.children import Child
from bench.client import Door
from bench.targets.base import Start, Target, served

__all__ = ["PEERS", "Peer", "peer"]

START_WAIT = 15.0  # seconds; importing everything takes less than one


@dataclass(frozen=True, slots=True)
class Peer:
    """One program of bench/peers.

    Args:
        command: its module and options.
        packages: what it imports beside what the relay needs.
        http: whether it passes HTTP requests on.
        note: see `Target`.
    """

    name: str
    command: Sequence[str]
    packages: Sequence[str]
    http: bool
    note: str


LESS = "checks no key and no token, knows no sessions: less than the relay does"
MESSAGES = "takes whole messages apart and builds them again: more than passing bytes on"
PEERS = {
    each.name: each
    for each in (
        Peer("aiohttp", ("aiohttp_proxy",), ("aiohttp",), True, f"{LESS}; {MESSAGES}."),
        Peer(
            "aiohttp-uvloop",
            ("aiohttp_proxy", "--uvloop"),
            ("aiohttp", "uvloop"),
            True,
            f"{LESS}; {MESSAGES}.",
        ),
        Peer(
            "websockets",
            ("websockets_relay",),
            ("websockets",),
            False,
            f"{LESS}; {MESSAGES}; passes no HTTP requests on.",
        ),
        Peer(
            "trio-tasks",
            ("trio_tasks",),
            (),
            False,
            f"{LESS}; looks into no frame; passes no HTTP requests on.",
        ),
    )
}


def peer(one: Peer, origin: str) -> Start | str:
    """What starts a peer before the origin at host:port, or the sentence that it is missing."""
    missing = [name for name in one.packages if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        names = " and ".join(missing)
        return f"{one.name}: {names} {verb} not installed: pip install -e '.[bench]'"
    return _start(one, origin)


@contextmanager
def _start(one: Peer, origin: str) -> Iterator[Target]:
    module, *options = one.command
    command = ["-m", f"bench.peers.{module}", "--origin", origin, *options]
    with Child(one.name, command) as child:
        base = child.read_line(START_WAIT).rpartition(" ")[2]
        ws_url = base.replace("http://", "ws://", 1) + "/ws"
        yield served(child, Door(ws_url=ws_url, http_url=base if one.http else None), one.note)
