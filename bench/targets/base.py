"""What a target is, and the real exchange that it must pass before it is measured."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.children import Child, ChildFailed
from bench.client import Door, Place
from bench.opening import http_base, open_calls
from bench.probe import Sample, sample, tree
from bench.shapes import MAX_TUNNELS

__all__ = [
    "Kind",
    "Start",
    "Target",
    "Variant",
    "descriptor_limit",
    "exchange",
    "find",
    "free_ports",
    "in_front",
    "served",
]

Kind = Literal["direct", "relay", "peer", "given"]

LISTEN_WAIT = 15.0  # seconds until a program listens; it should take less than one
POLL = 0.02
HTTP_TIMEOUT = 10.0
MAX_JSON = 64 << 10
# Debian keeps daemons where only root's PATH looks.
DAEMON_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
SPARE_DESCRIPTORS = 256  # listeners, logs, upstream pools, connections of other loads


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to measure.

    Args:
        name: for the tables.
        door: how calls and requests get in.
        kind: the origin itself, the relay, another program in its place, or what `--url` names.
        pid: the root of its process tree; None when the harness did not start it.
        mark: what its processes carry in their environment (bench/probe.py).
        idle: its tree after the first exchange, when it carries nothing; None without a pid.
        forwards: how often it passes a message on for one echo: a relay there and back.
        note: in what a comparison with it is not like for like.
    """

    name: str
    door: Door
    kind: Kind = "given"
    pid: int | None = None
    mark: str | None = None
    idle: Sample | None = None
    forwards: int = 2
    note: str = ""

    def sample(self) -> Sample | None:
        """What its processes have used so far; None when they are not ours."""
        return None if self.pid is None else sample(self.pid, self.mark)

    def processes(self) -> set[int]:
        """Its processes; none when they are not ours."""
        return set() if self.pid is None else tree(self.pid, self.mark)


# What starts a target when it is entered and ends it when it is left.
Start = AbstractContextManager[Target]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to configure a program.

    Args:
        settings: lines of its own in the configuration.
        note: see `Target`.
    """

    name: str
    settings: str
    note: str


def find(program: str) -> Path | None:
    """The path of an installed program; None when there is none."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *DAEMON_PLACES))
    found = shutil.which(program, path=path)
    return None if found is None else Path(found)


def descriptor_limit() -> int:
    """Descriptors that a target may be configured for: the largest scenario, if they are allowed.

    A tunnel takes two.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 2 * MAX_TUNNELS + SPARE_DESCRIPTORS
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


def free_ports(count: int) -> list[int]:
    """Ports that are free now; another process could take one before a target does."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def _wait_listening(child: Child, port: int) -> None:
    """Return when connections to the port are accepted.

    Raises:
        ChildFailed: the process ended, or does not listen after LISTEN_WAIT seconds.
    """
    deadline = time.monotonic() + LISTEN_WAIT
    while time.monotonic() < deadline:
        if not child.alive:
            raise ChildFailed(f"{child.name} ended before it listened{child.tail()}")
        try:
            socket.create_connection(("127.0.0.1", port), HTTP_TIMEOUT).close()
        except OSError:
            time.sleep(POLL)
        else:
            return
    raise ChildFailed(f"{child.name} did not listen within {LISTEN_WAIT:.0f} s{child.tail()}")


def served(child: Child, door: Door, note: str) -> Target:
    """The peer that a process is, when it has passed a real exchange on. Raises ChildFailed."""
    exchange(child, door)
    return Target(child.name, door, "peer", pid=child.pid, idle=sample(child.pid), note=note)


@contextmanager
def in_front(
    program: Path, variant: Variant, configure: Callable[[Path, int], Sequence[str]]
) -> Iterator[Target]:
    """Run a reverse proxy as a peer, its files in a directory that goes with it.

    Args:
        configure: writes a configuration into the directory, for this port of loopback; the
            arguments that make the program take it.

    Raises:
        ChildFailed: it did not listen, or passed nothing on.
    """
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        (port,) = free_ports(1)
        command = configure(Path(name), port)
        with Child(variant.name, command, program=program, output="file") as child:
            try:
                _wait_listening(child, port)
                base = f"127.0.0.1:{port}"
                door = Door(ws_url=f"ws://{base}/ws", http_url=f"http://{base}")
                yield served(child, door, variant.note)
            finally:
                child.end()
                _end_group(child.pid)


def _end_group(leader: int) -> None:
    """Kill what a process left behind that was killed itself; a worker would go on for ever.

    They are found by their process group: nginx writes its title over the environment, so no
    mark could be found in it (bench/probe.py).
    """
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def exchange(child: Child, door: Door) -> None:
    """One WebSocket echo through the door and, where it leads to HTTP paths, one GET.

    Raises:
        ChildFailed: one of them did not come back as it should.
    """
    try:
        with open_calls(door, 1):
            pass
        if door.http_url or door.start_url:
            with http_base(door) as base:
                _get_json(f"{base}/json", door.key)
    except ChildFailed as failed:
        raise ChildFailed(
            f"{child.name} failed its first exchange: {failed}{child.tail()}"
        ) from None
    if not child.alive:  # another process answers on its port
        raise ChildFailed(f"{child.name} ended early{child.tail()}")


def _get_json(url: str, key: str) -> None:
    """GET a JSON document; raises ChildFailed when that is not what comes."""
    place = Place.of(url)
    connection = http.client.HTTPConnection(*place.address, timeout=HTTP_TIMEOUT)
    fields = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        connection.request("GET", place.target, headers=fields)
        answer = connection.getresponse()
        body = answer.read(MAX_JSON)
        if answer.status != 200:
            raise ChildFailed(f"GET /json was answered with {answer.status}")
        json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ChildFailed(f"GET /json failed: {error or type(error).__name__}") from None
    finally:
        connection.close()
