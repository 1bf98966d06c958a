"""nginx and HAProxy in front of a bot, each with a master process, reloaded by a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.targets.base import find, free_ports
from tests.helpers.daemon import wait_until

NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
{user} {bound}
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


@dataclass(frozen=True)
class Kind:
    """A program: how it is started, told to reload, and kept from waiting for old calls."""

    words: tuple[str, ...]
    config: str
    signum: int
    bound: str


KINDS = {
    "nginx": Kind(
        ("-p", "{folder}", "-c", "{file}"), NGINX, signal.SIGHUP, "worker_shutdown_timeout {}s;"
    ),
    "haproxy": Kind(("-W", "-db", "-f", "{file}"), HAPROXY, signal.SIGUSR2, "hard-stop-after {}s"),
}


@dataclass(frozen=True)
class Peer:
    """One that runs.

    Attributes:
        reload: give it a configuration with another number, and tell it.
        processes: how many there are of it.
    """

    port: int
    reload: Callable[[int], None]
    processes: Callable[[], int]


@contextmanager
def reloaded_peer(name: str, folder: Path, bot: str, bound: int | None) -> Iterator[Peer]:
    """nginx or HAProxy before a bot at host:port.

    Args:
        bound: seconds that its old processes have for their calls; None for no limit.
    """
    kind, (port,), file = KINDS[name], free_ports(1), folder / "config"
    values = {
        "bound": "" if bound is None else kind.bound.format(bound),
        "paths": " ".join(f"{each}_temp_path {folder}/{each};" for each in PATHS),
        # Root's nginx would give its workers to a user who cannot enter the folder.
        "user": "user root;" if os.geteuid() == 0 else "",
    }

    def write(number: int) -> None:
        file.write_text(
            kind.config.format(folder=folder, port=port, bot=bot, number=number, **values)
        )

    def reload(number: int) -> None:
        write(number)
        master.send_signal(kind.signum)

    write(0)
    words = [word.format(folder=folder, file=file) for word in kind.words]
    with (folder / "output").open("wb") as output:
        master = subprocess.Popen(
            [str(find(name)), *words], stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: _listens(port), f"{name} listens")
        yield Peer(port, reload, lambda: len(_session(master.pid)))
    finally:
        for pid in _session(master.pid):
            os.kill(pid, signal.SIGKILL)
        master.wait()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _session(leader: int) -> list[int]:
    """The processes of a process session."""
    found = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(pid)
    return found
