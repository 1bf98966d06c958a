"""Under a supervisor: sockets that it hands over, and what it is told, as systemd does both."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.ops.supervisor import Supervisor
from tests.helpers.daemon import PATIENCE, config_text, raw_exchange, wait_until
from tests.helpers.wire import request


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """Where the daemon's messages arrive."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def listening(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0))


def address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"


def handed_over(
    folder: Path, config: str, told: socket.socket, *sockets: socket.socket
) -> subprocess.Popen[bytes]:
    """A daemon that is started as a supervisor starts it: descriptors from 3 on, its own pid."""
    (folder / "relay.toml").write_text(config)
    copies = [os.dup(sock.fileno()) for sock in sockets]
    redirections = " ".join(f"{3 + number}<&{fd}" for number, fd in enumerate(copies))
    command = shlex.join([sys.executable, "-m", "relay", "serve", "--config", "relay.toml"])
    script = f"exec {redirections}; LISTEN_PID=$$ exec {command}"
    try:
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env={
                **os.environ,
                "LISTEN_FDS": str(len(sockets)),
                "NOTIFY_SOCKET": str(told.getsockname()),
                "WATCHDOG_USEC": "200000",
                "PYTHONWARNINGS": "error",
            },
            pass_fds=copies,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    finally:
        for fd in copies:
            os.close(fd)


def test_sockets_and_messages(tmp_path: Path, told: socket.socket) -> None:
    with listening() as public, listening() as admin:
        config = config_text([]).replace("instances = []", f'command = ["{sys.executable}"]')
        config = config.replace('\nbind = "127.0.0.1:0"', f'\nbind = "{address(public)}"')
        config = config.replace('admin_bind = "127.0.0.1:0"', f'admin_bind = "{address(admin)}"')
        daemon = handed_over(tmp_path, config, told, public, admin)
        # Who connects before the daemon is up waits in the socket's own queue.
        answer = raw_exchange(public.getsockname()[1], request("GET", "/", "Connection: close"))
        assert answer.startswith(b"HTTP/1.1 404 ")
        lines = told.recv(4096).decode().splitlines()
        assert lines[0] == "READY=1"
        assert address(public) in lines[1]
        assert told.recv(4096) == b"WATCHDOG=1"
        assert told.recv(4096) == b"WATCHDOG=1"
        daemon.send_signal(signal.SIGTERM)
        wait_until(lambda: told.recv(4096) == b"STOPPING=1", "the message of its end")
        _, errors = daemon.communicate(timeout=PATIENCE)
        assert daemon.returncode == 0, errors


def main_pid(message: bytes) -> int | None:
    return int(message.removeprefix(b"MAINPID=")) if message.startswith(b"MAINPID=") else None


def test_another_process_takes_over(tmp_path: Path, told: socket.socket) -> None:
    """The supervisor hears of it in time, and from then on of the other one's life."""
    with listening() as public, listening() as admin:
        config = config_text([]).replace("instances = []", f'command = ["{sys.executable}"]')
        config = config.replace('\nbind = "127.0.0.1:0"', f'\nbind = "{address(public)}"')
        config = config.replace('admin_bind = "127.0.0.1:0"', f'admin_bind = "{address(admin)}"')
        daemon = handed_over(tmp_path, config, told, public, admin)
        wait_until(lambda: told.recv(4096).startswith(b"READY=1"), "it serves")
        daemon.send_signal(signal.SIGUSR2)
        pid = wait_until(lambda: main_pid(told.recv(4096)), "another process is the main one")
        assert pid != daemon.pid
        wait_until(lambda: told.recv(4096).startswith(b"READY=1"), "the other one serves")
        wait_until(lambda: told.recv(4096) == b"WATCHDOG=1", "it gives signs of life")
        assert daemon.wait(PATIENCE) == 0
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: told.recv(4096) == b"STOPPING=1", "the message of its end")
        daemon.communicate(timeout=PATIENCE)  # the other one had its output too, and has ended


def test_a_socket_that_nobody_binds(tmp_path: Path, told: socket.socket) -> None:
    with listening() as stray:
        daemon = handed_over(tmp_path, config_text(["http://127.0.0.1:9"]), told, stray)
        _, errors = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 2
    assert b"was handed over; expected one that bind or admin_bind names" in errors


def test_a_descriptor_that_is_no_listening_socket(tmp_path: Path, told: socket.socket) -> None:
    daemon = handed_over(tmp_path, config_text(["http://127.0.0.1:9"]), told, told)
    _, errors = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 2
    assert b"descriptor 3, which was handed over, is no listening socket" in errors


@pytest.mark.parametrize("count", ["x", "-1", "65", "99999999999999999999"])
def test_a_wrong_count(count: str) -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS is no number up to 64"):
        Supervisor({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)


def test_what_is_meant_for_another_process() -> None:
    given = {"LISTEN_PID": "8", "LISTEN_FDS": "1", "WATCHDOG_PID": "8", "WATCHDOG_USEC": "5"}
    supervisor = Supervisor(given, 7)
    assert supervisor.sockets == []
    assert supervisor._interval is None


def test_nobody_listens_to_messages(tmp_path: Path) -> None:
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "none")}, 1).tell("READY=1")
    Supervisor({"NOTIFY_SOCKET": "@relay-nobody-listens"}, 1).tell("READY=1")
