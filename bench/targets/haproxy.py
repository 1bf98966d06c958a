"""HAProxy as a reverse proxy with one thread, configured for the run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.children import Child
from bench.client import Door
from bench.targets.base import (
    SPARE_DESCRIPTORS,
    Start,
    Target,
    Variant,
    descriptor_limit,
    find,
    free_ports,
    served,
    wait_listening,
)

__all__ = ["HAPROXY", "haproxy", "haproxy_config"]

# Without a `log` line nothing is logged. Timeouts are beyond any run.
CONFIG = """\
global
    nbthread 1
    maxconn {connections}
{settings}
defaults
    mode http
    http-reuse always
    option http-no-delay
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h

frontend bench
    bind 127.0.0.1:{port}
    default_backend origin

backend origin
    server origin {origin}
"""
LARGE = "    tune.bufsize 131072\n"
LESS = (
    "checks no key and no token, knows no sessions, looks into no frame: less than the relay does"
)
HAPROXY = {
    variant.name: variant
    for variant in (
        Variant("haproxy", "", f"{LESS}; default buffers of 16 KiB."),
        Variant("haproxy-large", LARGE, f"{LESS}; buffers of 128 KiB, tuned for large messages."),
    )
}
MISSING = "haproxy is not installed: apt-get install haproxy"


def haproxy(variant: Variant, origin: str) -> Start | str:
    """What starts HAProxy before the origin at host:port, or the sentence that it is missing."""
    program = find("haproxy")
    return MISSING if program is None else _start(program, variant, origin)


def haproxy_config(variant: Variant, origin: str, port: int) -> str:
    """The text of a configuration."""
    return CONFIG.format(
        connections=(descriptor_limit() - SPARE_DESCRIPTORS) // 2,
        settings=variant.settings,
        port=port,
        origin=origin,
    )


@contextmanager
def _start(program: Path, variant: Variant, origin: str) -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        (port,) = free_ports(1)
        path = Path(name) / "haproxy.cfg"
        path.write_text(haproxy_config(variant, origin, port))
        # -db: stay in the foreground, one process without a master.
        command = ["-db", "-f", str(path)]
        with Child(variant.name, command, program=program, output="file") as child:
            wait_listening(child, port)
            base = f"127.0.0.1:{port}"
            yield served(
                child, Door(ws_url=f"ws://{base}/ws", http_url=f"http://{base}"), variant.note
            )
