"""What a supervisor such as systemd hands to the daemon and is told by it.

The protocols are small and public: sockets as inherited descriptors from 3 on, counted
in LISTEN_FDS (sd_listen_fds(3)); states as datagrams of lines to NOTIFY_SOCKET
(sd_notify(3)); signs of life at half of WATCHDOG_USEC (sd_watchdog_enabled(3)). All of
it is named in variables that are for this process alone.
"""

from __future__ import annotations

__all__ = ["FOR_ONE_PROCESS", "NOBODY", "VARIABLES", "Supervisor"]

import os
import socket
import time
from collections.abc import Mapping

import trio

from relay.errors import ConfigError

# Not for the children: they would speak for the daemon.
VARIABLES = (
    "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
    "RELAY_TAKEOVER",
)  # fmt: skip
# Not for the process either that takes this one's place; the others hold for it too.
FOR_ONE_PROCESS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID")
# The first descriptor that is handed over: SD_LISTEN_FDS_START.
FIRST_DESCRIPTOR = 3
# More sockets than anybody binds; a count beyond it is no count of sockets.
MAX_SOCKETS = 64


class Supervisor:
    """Who started the daemon, if that is anybody who wants to know.

    Args:
        environ: the process's environment.
        pid: of this process: what is meant for another one is not taken.

    Raises:
        ConfigError: what it hands over is not what it says.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._interval = _interval(environ, pid)
        self.sockets = _sockets(environ, pid)

    def tell(self, *lines: str) -> None:
        """Tell the supervisor, if there is one, of states such as `READY=1`.

        One that does not listen is no reason to stop.
        """
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto("\n".join(lines).encode(), address)
            except OSError:
                pass

    def tell_reloading(self) -> None:
        """The configuration is read again; `READY=1` ends that (sd_notify(3), RELOADING=1)."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    async def keep_alive(self) -> None:
        """Give signs of life as often as is asked for; returns at once if they are not."""
        if self._interval is None:
            return
        while True:
            self.tell("WATCHDOG=1")
            await trio.sleep(self._interval / 2)


def _interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds after which this process counts as hung; None when nobody watches it."""
    text = environ.get("WATCHDOG_USEC", "")
    if not text.isdecimal() or int(text) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(text) / 1e6


def _sockets(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """The listening sockets that were handed over; they are not inherited further."""
    if environ.get("LISTEN_PID") != str(pid):
        return []
    count = environ.get("LISTEN_FDS", "")
    if not count.isdecimal() or int(count) > MAX_SOCKETS:
        raise ConfigError(f"LISTEN_FDS is no number up to {MAX_SOCKETS}")
    sockets = []
    for fd in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
        try:
            sock = socket.socket(fileno=fd)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            listens = False
        if not listens or sock.type != socket.SOCK_STREAM:
            raise ConfigError(f"descriptor {fd}, which was handed over, is no listening socket")
        os.set_inheritable(fd, False)
        sockets.append(sock)
    return sockets


NOBODY = Supervisor({}, 0)
