"""The runtime directory: held by one control process, and the pump processes that live in it.

Each pump holds a lock on a file as long as it lives. Who can take the lock starts a
new pump and lets it inherit the locked descriptor and a listening socket, so there is
no moment in which a pump has started and can't be reached. The control process holds
a lock of the same kind, so that two of them never speak to one pump in turns.
"""

from __future__ import annotations

__all__ = [
    "PumpProcesses",
    "RuntimeDirectories",
    "check_socket_paths",
    "hold_directory",
    "node_name",
]

import fcntl
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from relay.errors import ConfigError
from relay.pump.channel import MAX_MESSAGE, Finished
from relay.pump.process import read_spool, spool_path

# One control process at a time speaks to a pump; a second one waits here to replace it.
BACKLOG = 2
# The longest path of a Unix socket on Linux: 108 bytes with the zero behind it (unix(7)).
MAX_SOCKET_PATH = 107
# A pump that is just exiting has closed its socket before it lets go of its lock, and one
# that was just started takes connections at once; longer than this is no passing moment.
DIAL_TIMEOUT = 2.0
DIAL_AGAIN = 0.02
# A pump whose channel has ended has only to leave; the kernel may need a moment for that.
REAP_TIMEOUT = 1.0

# Another node that looks whether somebody is here has the lock for a moment (microseconds).
LOOKED_AT = 0.02
LOOKS = 5

LOCK_NAME = re.compile(r"pump-([0-9]{1,4})\.lock")
SPOOL_NAME = re.compile(r"pump-([0-9]{1,4})\.finished")


@contextmanager
def hold_directory(path: Path, pumps: int, lock: int = -1) -> Iterator[int]:
    """Make the runtime directory (mode 0700) and keep other control processes out of it.

    Args:
        pumps: how many pumps will have their sockets there.
        lock: the locked file, where the process before this one has handed it over; as
            long as either of them has it open it is locked.

    Yields:
        The locked file.

    Raises:
        ConfigError: its path is too long, it can't be written, or another daemon holds it.
    """
    check_socket_paths(path, pumps)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if lock < 0:
            lock = os.open(path / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        for _ in range(LOOKS):
            if taken := _take(lock):
                break
            time.sleep(LOOKED_AT)
        if not taken:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"server.runtime_dir: {path} is in use by another relay daemon (pid {holder}); "
                "stop it or give this one a directory of its own"
            )
        # In this order: who reads it meanwhile finds a pid in the first line.
        os.ftruncate(lock, os.pwrite(lock, b"%d\n" % os.getpid(), 0))
        yield lock
    finally:
        os.close(lock)


def check_socket_paths(path: Path, pumps: int) -> None:
    """Raises ConfigError when so many pumps can't have their sockets in this directory."""
    longest = len(os.fsencode(_socket_path(path, pumps - 1)))
    if longest > MAX_SOCKET_PATH:
        raise ConfigError(
            f"server.runtime_dir: {path}: the path is too long, since a Unix socket in it may "
            f"have {MAX_SOCKET_PATH} bytes and would have {longest}; choose a shorter one"
        )


def node_name(path: Path) -> str:
    """This node's name in the store: made once, kept in the runtime directory.

    Raises:
        ConfigError: the directory can't be read or written.
    """
    file = path / "node"
    try:
        if name := file.read_text().strip() if file.exists() else "":
            return name
        name = uuid.uuid4().hex
        file.write_text(name)
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, error) from None
    return name


class PumpProcesses:
    """The pumps of one runtime directory, which the caller holds.

    Args:
        runtime_dir: holds a socket, a lock and perhaps left-over reports per pump.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._dir = runtime_dir
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def connect(self, index: int) -> socket.socket:
        """A channel to pump `index`, started if it is not running.

        Raises:
            ConfigError: the runtime directory can't be used, or the pump takes no connection.
        """
        reason: OSError | str = "no answer"
        with trio.move_on_after(DIAL_TIMEOUT):
            while True:
                try:
                    self._start_missing(index)
                except OSError as error:
                    raise _unusable(self._dir, error) from None
                try:
                    return _dial(_socket_path(self._dir, index))
                except OSError as error:
                    reason = error  # it may be about to exit
                await trio.sleep(DIAL_AGAIN)
        raise _unusable(self._dir, f"pump {index} runs but can't be reached: {reason}")

    def living(self) -> set[int]:
        """The indices of pumps that run, those of an earlier configuration too."""
        names = (LOCK_NAME.fullmatch(path.name) for path in self._dir.glob("pump-*.lock"))
        return {int(name[1]) for name in names if name and self._lives(int(name[1]))}

    def spooled(self) -> Iterator[Finished]:
        """Reports that pumps left when they exited without a control process."""
        for path in sorted(self._dir.glob("pump-*.finished")):
            name = SPOOL_NAME.fullmatch(path.name)
            if name is None or self._lives(int(name[1])):
                continue  # it may be about to write the file
            yield from read_spool(path)
            path.unlink(missing_ok=True)

    async def end(self) -> None:
        """See that no child is left, dead or alive; a pump that did not quit is killed."""
        for child in self._children.values():
            with trio.move_on_after(REAP_TIMEOUT):
                while child.poll() is None:
                    await trio.sleep(DIAL_AGAIN)
            child.kill()
            child.wait()
        self._children.clear()

    def leave(self) -> None:
        """Let them live on: another process is their control process now."""
        for child in self._children.values():
            child.returncode = 0  # nobody here waits for it, and Popen is not to warn of that
        self._children.clear()

    def _start_missing(self, index: int) -> None:
        lock = self._open_lock(index)
        try:
            if _take(lock):
                self._start(index, lock)
        finally:
            os.close(lock)

    def _lives(self, index: int) -> bool:
        try:
            lock = self._open_lock(index)
        except OSError:
            return False  # what is there is no lock that a pump could hold
        try:
            return not _take(lock)
        finally:
            os.close(lock)

    def _open_lock(self, index: int) -> int:
        return os.open(self._dir / f"pump-{index}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def _start(self, index: int, lock: int) -> None:
        if former := self._children.pop(index, None):
            former.wait()  # its lock is free, so it is in the midst of its exit
        path = _socket_path(self._dir, index)
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            os.chmod(path, 0o600)
            listener.listen(BACKLOG)
            fds = (listener.fileno(), lock)
            spool = spool_path(self._dir, index)
            self._children[index] = subprocess.Popen(
                [sys.executable, "-m", "relay.pump", *map(str, fds), str(spool)],
                pass_fds=fds,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # it says nothing there, and outlives who reads it
            )


class RuntimeDirectories:
    """`relay.server.nodes.Homes`: the directories of other nodes on this machine."""

    def control_lives(self, place: str) -> bool:
        return _is_held(Path(place) / "control.lock")

    def pumps_live(self, place: str) -> bool:
        return any(_is_held(path) for path in Path(place).glob("pump-*.lock"))

    def reports(self, place: str) -> list[Finished]:
        files = sorted(Path(place).glob("pump-*.finished"))
        return [report for path in files for report in read_spool(path)]


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock on a file. A file that is gone is nobody's; what may
    not be looked at is held, since a call that goes on must not be called lost."""
    try:
        lock = os.open(path, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        return not _take(lock)
    finally:
        os.close(lock)


def _dial(path: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.setblocking(False)  # a full backlog must not stop the control process
        # Linux doubles the number; a whole message must fit (see pump.channel).
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
        channel.connect(str(path))
    except BaseException:
        channel.close()
        raise
    return channel


def _socket_path(runtime_dir: Path, index: int) -> Path:
    return runtime_dir / f"pump-{index}.sock"


def _take(lock: int) -> bool:
    """Lock a file's descriptor; False when another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unusable(path: Path, error: Exception | str) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    if isinstance(error, FileExistsError):
        reason = "a file has this name; expected a directory"
    return ConfigError(f"server.runtime_dir: {path}: {reason}")
