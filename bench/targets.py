"""What is measured: the origin alone, a daemon in front of it, or one that runs already."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.children import Child, ChildFailed
from bench.client import Door
from bench.probe import MARK, Sample, sample

__all__ = ["Target", "direct", "origin", "relay", "running"]

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


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to measure.

    Args:
        name: for the tables.
        door: how calls get in.
        flood: where a flood of POST /start goes, apart from the calls' places if possible.
        pid: the root of its process tree; None when the harness did not start it.
        mark: what its processes carry in their environment (bench/probe.py).
        idle: its tree before it carried anything; None without a pid.
        forwards: how often it passes a message on for one echo: a relay there and back.
    """

    name: str
    door: Door
    flood: Door | None = None
    pid: int | None = None
    mark: str | None = None
    idle: Sample | None = None
    forwards: int = 2

    def sample(self) -> Sample | None:
        """What its processes have used so far; None when they are not ours."""
        return None if self.pid is None else sample(self.pid, self.mark)


@contextmanager
def origin() -> Iterator[tuple[Child, list[str]]]:
    """Run the echo server: the process and its two http:// URLs. Raises ChildFailed."""
    command = ["-m", "bench.origin", "--port", "0", "--listeners", "2"]
    with Child("origin", command) as child:
        yield child, [child.read_line(START_WAIT).rpartition(" ")[2] for _ in range(2)]


def direct(child: Child, url: str) -> Target:
    """The origin without anything in front of it."""
    door = Door(ws_url=url.replace("http://", "ws://", 1) + "/ws")
    return Target("direct", door, pid=child.pid, idle=sample(child.pid), forwards=1)


@contextmanager
def relay(origin_urls: Sequence[str], mark: str) -> Iterator[Target]:
    """Start a daemon with a configuration, store and runtime directory of its own.

    Raises:
        ChildFailed: it did not become ready in START_WAIT seconds.
    """
    key = f"pk_bench_{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        directory = Path(name)
        port, admin_port = _free_ports(2)
        path = directory / "relay.toml"
        path.touch(mode=0o600)
        path.write_text(
            CONFIG.format(
                port=port,
                admin_port=admin_port,
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
        )
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
            yield Target(
                "relay",
                Door(start_url=f"{base}/bench/start", key=key),
                Door(start_url=f"{base}/flood/start", key=key),
                child.pid,
                mark,
                sample(child.pid, mark),
            )


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
    return Target(parts.netloc, door, door)


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


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; another process could take one before the daemon does."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
