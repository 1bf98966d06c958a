"""The targets by name."""

from __future__ import annotations

from collections.abc import Sequence

from bench.children import Child
from bench.targets.base import Start
from bench.targets.direct import direct
from bench.targets.haproxy import HAPROXY, haproxy
from bench.targets.nginx import NGINX, nginx
from bench.targets.peers import PEERS, peer
from bench.targets.relay import WAYS, relay

__all__ = ["NAMES", "available"]

NAMES = ("direct", *WAYS, *NGINX, *HAPROXY, *PEERS)


def available(names: Sequence[str], origin: Child, url: str, mark: str) -> list[Start | str]:
    """What starts each of these targets, or the sentence why it cannot and what would help.

    Entering one raises ChildFailed when the target does not start, or does not pass one
    WebSocket message and one request on.

    Args:
        names: some of NAMES.
        origin: the echo server.
        url: its http:// URL.
        mark: for the processes of the relay, which may leave their parent (bench/probe.py).
    """
    return [_one(name, origin, url, mark) for name in names]


def _one(name: str, origin: Child, url: str, mark: str) -> Start | str:
    address = url.removeprefix("http://")
    if name == "direct":
        return direct(origin, url)
    if name in WAYS:
        return relay(name, url, mark)
    if name in NGINX:
        return nginx(NGINX[name], address)
    if name in HAPROXY:
        return haproxy(HAPROXY[name], address)
    return peer(PEERS[name], address)
