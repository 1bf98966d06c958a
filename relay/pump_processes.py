"""Starting pump processes and finding those that an earlier control process left behind.

Each pump holds a lock on a file as long as it lives. Who can take the lock starts a
new pump and lets it inherit the locked descriptor and a listening socket, so there is
no moment in which a pump has started and can't be reached.
"""

from __future__ import annotations

__all__ = ["PumpProcesses"]

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from relay.errors import ConfigError
from relay.pump.channel import MAX_MESSAGE, Finished
from relay.pump.process import read_spool, spool_path

# One control process at a time speaks to a pump; a second one waits here to replace it.
BACKLOG = 2


class PumpProcesses:
    """The pumps of one runtime directory.

    Args:
        runtime_dir: mode 0700; holds a socket, a lock and perhaps left-over reports per pump.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._dir = runtime_dir
        self._children: list[subprocess.Popen[bytes]] = []

    async def connect(self, index: int) -> socket.socket:
        """A channel to pump `index`, started if it is not running.

        Raises:
            ConfigError: the runtime directory can't be used.
        """
        try:
            lock = os.open(self._dir / f"pump-{index}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # it lives
            else:
                self._start(index, lock)
            finally:
                os.close(lock)
            return self._dial(index)
        except OSError as error:
            raise ConfigError(f"server.runtime_dir: {self._dir}: {error}") from None

    def spooled(self) -> Iterator[Finished]:
        """Reports that pumps left when they exited without a control process."""
        for path in sorted(self._dir.glob("pump-*.finished")):
            yield from read_spool(path)
            path.unlink()

    def _start(self, index: int, lock: int) -> None:
        self._children = [child for child in self._children if child.poll() is None]
        path = self._path(index)
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            os.chmod(path, 0o600)
            listener.listen(BACKLOG)
            fds = (listener.fileno(), lock)
            spool = spool_path(self._dir, index)
            child = subprocess.Popen(
                [sys.executable, "-m", "relay.pump", *map(str, fds), str(spool)],
                pass_fds=fds,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
            self._children.append(child)

    def _dial(self, index: int) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # Linux doubles the number; a whole message must fit (see pump.channel).
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
            channel.connect(str(self._path(index)))
            channel.setblocking(False)
        except BaseException:
            channel.close()
            raise
        return channel

    def _path(self, index: int) -> Path:
        return self._dir / f"pump-{index}.sock"
