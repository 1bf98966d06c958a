"""The real daemon and the example bot as processes, and small clients to talk to them."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PUBLIC_KEY = "pk_test_0123456789abcdef"
PRIVATE_KEY = "sk_test_0123456789abcdef"
TOKEN_SECRET = "a test secret of at least thirty-two bytes"
# An id that no session has; the same in every run, since test names may hold it.
NO_SESSION = "5e9e5a5e-0000-4000-8000-000000000000"

# Generous: shared machines stall; nothing waits so long when all is well.
PATIENCE = 15.0


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Poll for a condition of another process; its value, or an error that says what failed."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout} s: {what}")


@dataclass
class Process:
    """A child process whose output is collected in files."""

    popen: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def output(self) -> str:
        return self.out.read_text()

    def errors(self) -> str:
        return self.err.read_text()

    def end(self, signum: int = signal.SIGINT, timeout: float = PATIENCE) -> int:
        """Send a signal and wait; the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signum)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise


def spawn(arguments: list[str], folder: Path, name: str) -> Process:
    """Start `python -m …` with its output in files of `folder`, in a process session of its own."""
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        popen = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
    return Process(popen, out, err)


@dataclass
class Bot:
    """An example bot."""

    process: Process
    url: str

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=PATIENCE)
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


@contextmanager
def running_bot(folder: Path, name: str = "bot", sessions: int = 1) -> Iterator[Bot]:
    """An example bot that is ready."""
    arguments = ["relay_examples.echo_bot", "--port", "0", "--sessions", str(sessions)]
    process = spawn(arguments, folder, name)
    try:
        wait_until(lambda: "listening on" in process.output(), f"{name}: {process.errors()}")
        yield Bot(process, process.output().split("listening on ")[1].strip())
    finally:
        if process.popen.poll() is None:
            process.end(signal.SIGTERM)


@dataclass
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Daemon:
    """A running daemon: where it listens, and requests to it."""

    process: Process
    folder: Path
    port: int
    admin_port: int
    config: Path
    tls: ssl.SSLContext | None = None  # what its callers trust, where it speaks TLS
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: object = None, *, admin: bool = False, **headers: str
    ) -> Answer:
        """One request on a connection of its own; `_` in header names stands for `-`."""
        connection = self._connection(admin=admin)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, fields)
        response = connection.getresponse()
        answer = Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
        connection.close()
        return answer

    def _connection(self, *, admin: bool) -> http.client.HTTPConnection:
        port = self.admin_port if admin else self.port
        if self.tls is None or admin:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=self.tls)

    def start(self, agent: str = "bot", **fields: Any) -> Answer:
        """POST /start for a WebSocket session with the public key."""
        return self.request(
            "POST",
            f"/v1/public/{agent}/start",
            {"transport": "websocket", **fields},
            Authorization=f"Bearer {PUBLIC_KEY}",
        )

    def start_when_free(self, agent: str = "bot", **fields: Any) -> Any:
        """The same once a place is free; the answer's object."""

        def started() -> Any:
            answer = self.start(agent, **fields)
            return answer.json() if answer.status == 200 else None

        return wait_until(started, "a place is free")

    def session(self, session_id: str) -> Any:
        """The session's record from the administration."""
        return self.request("GET", f"/sessions/{session_id}", admin=True).json()

    def wait_ended(self, session_id: str) -> Any:
        """The record once the session has ended."""

        def ended() -> Any:
            record = self.session(session_id)
            return record if record.get("state") == "ended" else None

        return wait_until(ended, f"session {session_id} ends; {self.session(session_id)}")

    def logs(self) -> list[dict[str, Any]]:
        """The JSON log lines so far."""
        # Up to the last line end: a line may be seen while it is being written.
        lines = self.process.errors().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def pump_pids(self) -> list[int]:
        """Pids of this daemon's pumps, whoever started them."""
        return pids_with(f"{self.folder}/run/pump-")


def pids_with(text: str) -> list[int]:
    """Processes whose command line contains a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if text in line:
                found.append(int(entry.name))
    return found


def config_text(bots: list[str], agent: str = "", limits: str = "", server: str = "") -> str:
    """A configuration with one agent "bot" of organization "acme" on free ports."""
    instances = json.dumps(bots)
    return f"""
[server]
bind = "127.0.0.1:0"
admin_bind = "127.0.0.1:0"
runtime_dir = "run"
log_format = "json"
{server}
[store]
url = "sqlite:relay.db"
[limits]
{limits}
[organizations.acme]
public_keys = ["{PUBLIC_KEY}"]
private_keys = ["{PRIVATE_KEY}"]
token_keys = [{{ id = "k1", secret = "{TOKEN_SECRET}" }}]
[agents.bot]
organization = "acme"
instances = {instances}
settle_time = 0.05
{agent}
"""


def start_daemon(folder: Path, config: str, name: str = "relay") -> Daemon:
    """Write the configuration and start a daemon; returns when it listens."""
    tomllib.loads(config)
    path = folder / "relay.toml"
    path.write_text(config)
    process = spawn(["relay", "serve", "--config", str(path)], folder, name)

    def ports() -> tuple[int, int] | None:
        if process.popen.poll() is not None:
            raise AssertionError(f"the daemon ended: {process.errors()}")
        for line in process.output().splitlines():
            if line.startswith("relay listens on "):
                public, admin = line.removeprefix("relay listens on ").split(", administration on ")
                return int(public.rpartition(":")[2]), int(admin.rpartition(":")[2])
        return None

    port, admin_port = wait_until(ports, "the daemon listens")
    return Daemon(process, folder, port, admin_port, path)


@contextmanager
def running_daemon(
    folder: Path, bots: list[str], agent: str = "", limits: str = "", server: str = ""
) -> Iterator[Daemon]:
    """A daemon with free ports and JSON logs; ended, its pumps too, when the block ends."""
    daemon = start_daemon(folder, config_text(bots, agent, limits, server))
    try:
        yield daemon
    finally:
        end_all(daemon)


def end_all(daemon: Daemon, signum: int = signal.SIGINT) -> None:
    """End a daemon, if it still runs, and the pumps that were left alone."""
    if daemon.process.popen.poll() is None:
        daemon.process.end(signum)
    end_pumps(daemon)


def end_pumps(daemon: Daemon) -> None:
    """End pumps that were left alone, as a test of a killed daemon does."""
    for pid in daemon.pump_pids():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def is_free(address: str) -> bool:
    """Whether nobody listens there."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host, int(port))):
            return True
    except OSError:
        return False


def raw_exchange(port: int, data: bytes, timeout: float = PATIENCE) -> bytes:
    """Send bytes, shut the write side, read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock, timeout)


def read_all(sock: socket.socket, timeout: float = PATIENCE) -> bytes:
    """Everything until the peer closes or resets."""
    received = b""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        ready, _, _ = select.select([sock], [], [], end - time.monotonic())
        if not ready:
            break
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            return received
        if not data:
            return received
        received += data
    raise AssertionError(f"the peer did not close; received so far {received!r}")
