"""The relay: a daemon with a configuration, store and runtime directory made for the run."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.children import Child, ChildFailed
from bench.client import Door
from bench.probe import MARK, sample
from bench.targets.base import Target, exchange, free_ports

__all__ = ["WAYS", "relay"]

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
relay = "{way}"
instances = [{instance}]
sessions_per_instance = {places}
settle_time = 0
"""
# More places than the largest scenario has calls.
PLACES = 100_000
NOTE = (
    "checks keys and tokens, keeps sessions in a store and follows every frame, which no peer "
    "does; its limits are wide open."
)


# The targets, by the way in which the daemon carries their calls.
WAYS: Mapping[str, str] = {"relay": "tunnel", "relay-frames": "frames"}


@contextmanager
def relay(name: str, origin_url: str, mark: str) -> Iterator[Target]:
    """Start a daemon of its own.

    Args:
        name: one of WAYS.

    Raises:
        ChildFailed: it did not become ready in START_WAIT seconds, or passed nothing on.
    """
    key = f"pk_bench_{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        directory = Path(folder)
        port, admin_port = free_ports(2)
        path = directory / "relay.toml"
        path.touch(mode=0o600)
        path.write_text(_config(directory, (port, admin_port), key, origin_url, WAYS[name]))
        with Child(
            name,
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
                name,
                door,
                "relay",
                pid=child.pid,
                mark=mark,
                idle=sample(child.pid, mark),
                note=NOTE,
            )


def _config(directory: Path, ports: tuple[int, int], key: str, origin_url: str, way: str) -> str:
    return CONFIG.format(
        port=ports[0],
        admin_port=ports[1],
        # A JSON string is a TOML basic string as well.
        runtime=json.dumps(str(directory / "run")),
        store=json.dumps(f"sqlite:{directory / 'relay.db'}"),
        public_key=key,
        private_key=f"sk_bench_{secrets.token_hex(16)}",
        secret=secrets.token_hex(32),
        way=way,
        instance=json.dumps(origin_url),
        places=PLACES,
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
