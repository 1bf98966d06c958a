"""The relay: a daemon with a configuration, store and runtime directory made for the run."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.children import Child, ChildFailed
from bench.client import Door
from bench.probe import MARK, sample
from bench.targets.base import Target, exchange, free_ports

__all__ = ["relay"]

START_WAIT = 15.0  # seconds until a daemon is ready; it should take less than one
POLL = 0.05
PROBE_TIMEOUT = 1.0
STOP_WAIT = 8.0  # after SIGINT everything ends at once; this is for a slow machine

# Limits wide open: the bench looks for the machine's limits, not for the daemon's.
CONFIG = """\
[server]
bind = "127.0.0.1:{port}"
admin_bind = "127.0.0.1:{admin_port}"
public_url = "http://127.0.0.1:{port}"
runtime_dir = {runtime}

[store]
url = {store}

[organizations.bench]
public_keys = ["{public_key}"]
private_keys = ["{private_key}"]
token_keys = [{{ id = "k1", secret = "{secret}" }}]

[agents.bench]
organization = "bench"
websocket_auth = "token"
instances = [{instance}]
sessions_per_instance = {places}
settle_time = 0

[agents.flood]
organization = "bench"
websocket_auth = "token"
instances = [{flood_instance}]
sessions_per_instance = {flood_places}
settle_time = 0
"""
# More places than the largest scenario has calls; and as many as a large installation
# has for the flood, whose starts each hold one for 30 s: when they are taken the flood
# goes on, answered with 429.
PLACES = 100_000
FLOOD_PLACES = 2000
NOTE = (
    "checks keys and tokens, keeps sessions in a store and follows every frame, which no peer "
    "does; its limits are wide open."
)


@contextmanager
def relay(origin_urls: Sequence[str], mark: str) -> Iterator[Target]:
    """Start a daemon of its own.

    Raises:
        ChildFailed: it did not become ready in START_WAIT seconds, or passed nothing on.
    """
    key = f"pk_bench_{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        directory = Path(name)
        port, admin_port = free_ports(2)
        path = directory / "relay.toml"
        path.touch(mode=0o600)
        path.write_text(_config(directory, (port, admin_port), key, origin_urls))
        with Child(
            "relay",
            ["-m", "relay", "serve", "--config", str(path)],
            environment={MARK: mark},
            output="file",
            stop_signal=signal.SIGINT,
            stop_wait=STOP_WAIT,
        ) as child:
            _wait_ready(child, admin_port)
            base = f"http://127.0.0.1:{port}/v1/public"
            door = Door(start_url=f"{base}/bench/start", key=key)
            exchange(child, door)
            yield Target(
                "relay",
                door,
                "relay",
                flood=Door(start_url=f"{base}/flood/start", key=key),
                pid=child.pid,
                mark=mark,
                idle=sample(child.pid, mark),
                note=NOTE,
            )


def _config(directory: Path, ports: tuple[int, int], key: str, origin_urls: Sequence[str]) -> str:
    return CONFIG.format(
        port=ports[0],
        admin_port=ports[1],
        # A JSON string is a TOML basic string as well.
        runtime=json.dumps(str(directory / "run")),
        store=json.dumps(f"sqlite:{directory / 'relay.db'}"),
        public_key=key,
        private_key=f"sk_bench_{secrets.token_hex(16)}",
        secret=secrets.token_hex(32),
        instance=json.dumps(origin_urls[0]),
        places=PLACES,
        flood_instance=json.dumps(origin_urls[1]),
        flood_places=FLOOD_PLACES,
    )


def _wait_ready(child: Child, admin_port: int) -> None:
    deadline = time.monotonic() + START_WAIT
    while time.monotonic() < deadline:
        if not child.alive:
            raise ChildFailed(f"relay ended before it was ready{child.tail()}")
        if _is_ready(admin_port):
            return
        time.sleep(POLL)
    raise ChildFailed(f"relay was not ready within {START_WAIT:.0f} s{child.tail()}")


def _is_ready(admin_port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=PROBE_TIMEOUT)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
