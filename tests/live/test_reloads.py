"""Reloads under two hundred calls of fifty messages a second: this daemon, nginx and HAProxy.

The relay must cut no call and lose no message. The other two are reloaded in the same way and
what becomes of their calls is printed: as they come, and with the bound on old processes that
operators give them (`worker_shutdown_timeout`, `hard-stop-after`), without which each reload
leaves one more process behind for as long as its calls last. `LIVE_CALLS`, `LIVE_RATE` and
`LIVE_RELOADS` change the run.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.daemon import running_daemon, wait_until
from tests.helpers.reloads import reloaded
from tests.helpers.steady import steady_bot, steady_calls

CALLS = int(os.environ.get("LIVE_CALLS", "200"))
RATE = float(os.environ.get("LIVE_RATE", "50"))
RELOADS = int(os.environ.get("LIVE_RELOADS", "20"))
PAUSE = 0.5  # between two reloads
QUIET = 5.0  # the same calls without reloads, before
BOUND = 5  # seconds that the other two give old processes, where they are bounded

# Where calls go, how to reload, and how many processes are left of it.
Door = tuple[int, str, Callable[[int], None], Callable[[], int]]

AGENT = 'websocket_auth = "none"\nsessions_per_instance = 100000'
NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
user {user}; {bound}
events {{ worker_connections 4096; }}
http {{
  access_log off;
  {paths}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://{bot}; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
      proxy_read_timeout 3600s;
    }}
  }}
}}
# {number}
"""
PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
HAPROXY = """
global
    nbthread 1
    {bound}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server bot {bot}
# {number}
"""


@contextmanager
def relay(folder: Path, bot: str) -> Iterator[Door]:
    with running_daemon(folder, [f"http://{bot}"], AGENT) as daemon:
        text = daemon.config.read_text()

        def reload(number: int) -> None:
            keys = text.replace("[limits]", f"[limits]\nmax_waiting = {number + 1}")
            more = (
                f'\n[agents.a{number}]\norganization = "acme"\ninstances = ["http://127.0.0.1:9"]\n'
            )
            reloaded(daemon, keys + more)

        yield daemon.port, "/ws/generic/bot.acme", reload, lambda: 1 + len(daemon.pump_pids())


@contextmanager
def peer(
    folder: Path, bot: str, command: list[str], config: str, bound: str, signum: int
) -> Iterator[Door]:
    """nginx or HAProxy with a master process, reloaded by a signal."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "config"
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in PATHS)

    def write(number: int) -> None:
        values = {"port": port, "bot": bot, "bound": bound, "number": number, "paths": paths}
        file.write_text(config.format(folder=folder, user="root", **values))

    write(0)
    words = [word.format(config=file) for word in command]
    with (folder / "output").open("wb") as output:
        master = subprocess.Popen(words, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: _listens(port), "it listens")

        def reload(number: int) -> None:
            write(number)
            master.send_signal(signum)

        yield port, "/", reload, lambda: len(_group(master.pid))
    finally:
        for pid in _group(master.pid):
            os.kill(pid, signal.SIGKILL)
        master.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _group(leader: int) -> list[int]:
    """The processes of a process session."""
    found = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            state, _, _, session = (
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            )
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(pid)
    return found


def nginx(folder: Path, bot: str, bound: str = "") -> Any:
    command = ["nginx", "-p", str(folder), "-c", "{config}"]
    return peer(folder, bot, command, NGINX, bound, signal.SIGHUP)


def haproxy(folder: Path, bot: str, bound: str = "") -> Any:
    command = ["haproxy", "-W", "-db", "-f", "{config}"]
    return peer(folder, bot, command, HAPROXY, bound, signal.SIGUSR2)


DOORS: dict[str, Callable[[Path, str], Any]] = {
    "relay": relay,
    "nginx": nginx,
    f"nginx, {BOUND} s": lambda folder, bot: nginx(
        folder, bot, f"worker_shutdown_timeout {BOUND}s;"
    ),
    "haproxy": haproxy,
    f"haproxy, {BOUND} s": lambda folder, bot: haproxy(folder, bot, f"hard-stop-after {BOUND}s"),
}


@pytest.mark.parametrize("name", DOORS)
def test_reloads(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        steady_bot() as bot,
        DOORS[name](tmp_path, bot) as (port, path, reload, processes),
        steady_calls(port, path, CALLS, RATE) as calls,
    ):
        calls.phase("quiet")
        time.sleep(QUIET)
        calls.phase("reloads")
        for number in range(RELOADS):
            reload(number + 1)
            time.sleep(PAUSE)
        left = processes()
        if "," in name:
            time.sleep(BOUND)  # what the last reload began
        result = calls.end()
    quiet, during = (result["phases"].get(each, {}) for each in ("quiet", "reloads"))
    row = f"{name:12} {RELOADS} reloads: {result['cut']} of {CALLS} calls cut, {result['lost']} of "
    row += f"{result['messages']} messages lost; ms at p50, p99, worst: {_shown(quiet)} before, "
    row += f"{_shown(during)} during; {left} processes"
    with capsys.disabled():
        print(f"\n{row}", end="")
    assert result["wrong"] == []
    if name == "relay":
        assert (result["cut"], result["lost"]) == (0, 0)


def _shown(figures: dict[str, float]) -> str:
    return " ".join(f"{figures.get(each, float('nan')):.2f}" for each in ("p50", "p99", "worst"))
