"""HAProxy as a reverse proxy with one thread, configured for the run."""

from __future__ import annotations

from pathlib import Path

from bench.targets.base import (
    SPARE_DESCRIPTORS,
    Start,
    Variant,
    descriptor_limit,
    find,
    in_front,
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

    def configure(directory: Path, port: int) -> list[str]:
        path = directory / "haproxy.cfg"
        path.write_text(haproxy_config(variant, origin, port))
        return ["-db", "-f", str(path)]  # -db: in the foreground, one process without a master

    return MISSING if program is None else in_front(program, variant, configure)


def haproxy_config(variant: Variant, origin: str, port: int) -> str:
    """The text of a configuration."""
    return CONFIG.format(
        connections=(descriptor_limit() - SPARE_DESCRIPTORS) // 2,
        settings=variant.settings,
        port=port,
        origin=origin,
    )
