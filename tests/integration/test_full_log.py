"""A disk that is full for logs, and readers of them that are gone: the daemon goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.daemon import (
    PATIENCE,
    Daemon,
    Process,
    config_text,
    spawn,
    wait_until,
)
from tests.helpers.ends import Ends, begin
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.wire import echoes


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_everything_works_without_room_for_a_line(tmp_path: Path, signum: int) -> None:
    """Neither log nor ready line can be written, from the start to the end."""
    admin = tmp_path / "admin.sock"
    with scripted_bot() as bot, open("/dev/full", "wb", buffering=0) as full:
        bot.script = Ends()
        text = config_text([bot.url]).replace('"127.0.0.1:0"\nruntime', f'"unix:{admin}"\nruntime')
        (tmp_path / "relay.toml").write_text(text)
        popen = subprocess.Popen(
            [sys.executable, "-m", "relay", "serve", "--config", str(tmp_path / "relay.toml")],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            start_new_session=True,
        )
        try:
            wait_until(lambda: popen.poll() is not None or admin.exists(), "it listens")
            port = wait_until(lambda: _port_of(popen.pid), "the public listener")
            process = Process(popen, tmp_path / "none", tmp_path / "none")
            daemon = Daemon(process, tmp_path, port, 0, tmp_path / "relay.toml")
            with begin(daemon) as began:
                assert daemon.request("GET", "/nothing").status == 404
                assert echoes(began.ws, "the call goes on")
                popen.send_signal(signal.SIGHUP)
                began.ws.close()
            popen.send_signal(signum)
            assert popen.wait(PATIENCE) == 0
        finally:
            popen.kill()
            popen.wait()


def _port_of(pid: int) -> int:
    """The TCP port on which a process listens, 0 while there is none."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(fd).removeprefix("socket:[").rstrip("]"))
        except OSError:
            continue
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            return int(fields[1].rpartition(":")[2], 16)
    return 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_while_it_starts(tmp_path: Path, signum: int) -> None:
    """Whenever it comes, nothing is left behind: no pump, no lock, no socket that is held."""
    (tmp_path / "relay.toml").write_text(config_text(["http://127.0.0.1:9"]))
    for moment in range(4):
        arguments = ["relay", "serve", "--config", str(tmp_path / "relay.toml")]
        process = spawn(arguments, tmp_path, f"relay-{moment}")
        watched = ("", "run", "run/pump-0.lock", "relay.db")[moment]
        wait_until(lambda path=watched: (tmp_path / path).exists(), "a step of its start")
        process.popen.send_signal(signum)
        if signum == signal.SIGHUP and moment:
            wait_until(process.output, "it serves all the same")
            process.popen.send_signal(signal.SIGTERM)
        status = process.popen.wait(PATIENCE)
        # Before it takes signals it has nothing, and may die of one, as the interpreter likes.
        assert not moment or (status, process.errors().count("Traceback")) == (0, 0)
        for name in ("run", "relay.db", "relay.db-wal", "relay.db-shm"):
            _remove(tmp_path / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        for each in path.iterdir():
            _remove(each)
        path.rmdir()
    elif path.exists():
        path.unlink()
