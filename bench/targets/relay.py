"""The relay: a daemon with a configuration, store and runtime directory made for the run."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.children import Child, ChildFailed
from bench.client import Door
from bench.probe import MARK, sample
from bench.targets.base import Target, exchange, free_ports
from bench.targets.compiled import compiled_relay
from relay.policy.catalog import TokenKey
from relay.policy.tokens import TOKEN_TTL, Claims, mint

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
SERVICE_HOST = "bench.bench"
NOTE = (
    "checks keys and tokens, keeps sessions in a store and follows every frame, which no peer "
    "does; its limits are wide open."
)


@dataclass(frozen=True, slots=True)
class Way:
    """A target by the way in which the daemon carries its calls; `compiled`: with such a pump."""

    relay: str
    compiled: bool = False


WAYS: Mapping[str, Way] = {
    "relay": Way("tunnel"),
    "relay-compiled": Way("tunnel", compiled=True),
    "relay-frames": Way("frames"),
}


@contextmanager
def relay(name: str, origin_url: str, mark: str) -> Iterator[Target]:
    """Start a daemon of its own.

    Args:
        name: one of WAYS.

    Raises:
        ChildFailed: it could not be built, did not become ready in START_WAIT seconds, or
            passed nothing on.
    """
    key, secret = f"pk_bench_{secrets.token_hex(16)}", secrets.token_hex(32)
    # Of its own: beside it there may be another relay, whose processes are not this one's.
    mark = f"{name}@{mark}"
    environment = {MARK: mark}
    if WAYS[name].compiled:
        # Ahead of the source tree, also in the processes that the daemon starts.
        environment |= {"PYTHONPATH": str(compiled_relay()), "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        directory = Path(folder)
        port, admin_port = free_ports(2)
        path = directory / "relay.toml"
        path.touch(mode=0o600)
        path.write_text(
            _config(directory, (port, admin_port), (key, secret), origin_url, WAYS[name].relay)
        )
        with Child(
            name,
            ["-m", "relay", "serve", "--config", str(path)],
            environment=environment,
            output="file",
            stop_signal=signal.SIGINT,
            stop_wait=STOP_WAIT,
        ) as child:
            _wait_ready(child, admin_port)
            door = _door((port, admin_port), key, TokenKey("k1", secret.encode()))
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


def _door(ports: tuple[int, int], key: str, token_key: TokenKey) -> Door:
    """Calls come with a token minted here, as a service of the organization would do it."""

    def token() -> str:
        session, expires = str(uuid.uuid4()), int(time.time()) + TOKEN_TTL
        claims = Claims(SERVICE_HOST, session, expires, secrets.token_urlsafe(12), token_key.id)
        return mint(claims, token_key)

    base = f"127.0.0.1:{ports[0]}"
    return Door(
        ws_url=f"ws://{base}/ws/generic/{SERVICE_HOST}",
        start_url=f"http://{base}/v1/public/bench/start",
        key=key,
        token=token,
        metrics_url=f"http://127.0.0.1:{ports[1]}/metrics",
    )


def _config(
    directory: Path, ports: tuple[int, int], keys: tuple[str, str], origin_url: str, way: str
) -> str:
    return CONFIG.format(
        port=ports[0],
        admin_port=ports[1],
        # A JSON string is a TOML basic string as well.
        runtime=json.dumps(str(directory / "run")),
        store=json.dumps(f"sqlite:{directory / 'relay.db'}"),
        public_key=keys[0],
        private_key=f"sk_bench_{secrets.token_hex(16)}",
        secret=keys[1],
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
