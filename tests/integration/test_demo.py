"""`relay serve --demo`: what it prints works as it stands, and its end leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.demo import BIND
from tests.helpers.daemon import PATIENCE, Process, pids_with, spawn, wait_until

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the demonstration makes a folder of its own in it, and sockets in that."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


@contextmanager
def running_demo(folder: Path) -> Iterator[Process]:
    """The demonstration, run where a reader runs it: in the repository, temporary files apart."""
    before = os.environ.get("TMPDIR"), Path.cwd()
    os.environ["TMPDIR"] = str(folder)
    os.chdir(ROOT)
    try:
        process = spawn(["relay", "serve", "--demo"], folder, "demo")
    finally:
        os.chdir(before[1])
        if before[0] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[0]
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.end()


def wait_banner(process: Process) -> str:
    def whole() -> str:
        assert process.popen.poll() is None, process.errors()
        text = process.output()
        return text if "Ctrl-C" in text else ""

    return str(wait_until(whole, "the commands are printed"))


def url_of(banner: str) -> str:
    """Where it listens, which may be on another port than usual."""
    return re.findall(r"relay listens on (http://[^,]+),", banner)[0]


def commands(banner: str) -> list[str]:
    """The indented paragraphs: what a reader pastes into a shell."""
    return re.findall(r"(?m)(?:^ {2,}.+\n)+", banner)


def shell(command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", "-e", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def finish(running: subprocess.Popen[str]) -> str:
    """What a command wrote; it must have succeeded."""
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, (running.args, out, err)
    assert "Traceback" not in err
    return out


def paste(command: str) -> str:
    return finish(shell(command))


def ends_clean(process: Process, folder: Path, pids: list[int]) -> None:
    """Exit code 0, bots and pump gone, no temporary file left, nothing ugly said."""
    assert process.popen.wait(5) == 0, process.errors()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert pids_with(str(folder)) == []
    assert list(folder.glob("relay-demo-*")) == []
    for line in process.errors().splitlines():
        assert line.startswith('{"'), process.errors()


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def test_every_printed_command_works_twice(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the commands need curl")
    with running_demo(tmp_path) as process:
        banner = wait_banner(process)
        started = json.loads(process.errors().splitlines()[0])
        assert started["event"] == "listening"
        start, talk, sessions, stop = commands(banner)
        talks = [shell(talk), shell(talk)]  # five seconds each; meanwhile the others
        for number in (1, 2):
            answer = json.loads(paste(start))
            assert uuid.UUID(answer["sessionId"])
            assert answer["wsUrl"] == f"{url_of(banner).replace('http', 'ws')}/ws/generic/echo.demo"
            assert answer["sessionId"] in paste(sessions)
            stopped = json.loads(paste(stop))
            assert stopped["status"] == "terminated"
            assert paste(sessions).count("stopped") == number, "ended sessions are shown too"
        for talking in talks:
            assert re.search(r"\d", finish(talking))
        pids = children(process.pid)
        process.popen.send_signal(signal.SIGINT)
        ends_clean(process, tmp_path, pids)


def test_the_end_with_a_call_that_goes_on(tmp_path: Path) -> None:
    with running_demo(tmp_path) as process:
        banner = wait_banner(process)
        (client,) = re.findall(r"(\S+client\.py)", banner)
        (key,) = set(re.findall(r"pk_demo_\w+", banner))
        url = f"{url_of(banner)}/v1/public/echo/start"
        with subprocess.Popen(
            [sys.executable, client, url, "--key", key, "--seconds", "60"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as talking:
            wait_until(lambda: '"status":101' in process.errors(), "the call is there")
            pids = children(process.pid)
            assert set(pids) & set(pids_with("relay_examples.echo_bot"))
            process.popen.send_signal(signal.SIGINT)
            ends_clean(process, tmp_path, pids)
            talking.wait(PATIENCE)  # the Close ended it


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_it_listens(tmp_path: Path, signum: int) -> None:
    """The folder is there already, the daemon not yet: nothing may be left."""
    with running_demo(tmp_path) as process:
        wait_until(lambda: list(tmp_path.glob("relay-demo-*")), "the folder is made")
        process.popen.send_signal(signum)
        ends_clean(process, tmp_path, [])


def test_a_port_in_use(tmp_path: Path) -> None:
    """Another one is taken, and the printed commands name it."""
    with socket.socket() as taken:
        host, _, port = BIND.rpartition(":")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, int(port)))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which does as well
        with running_demo(tmp_path) as process:
            banner = wait_banner(process)
            assert url_of(banner) != f"http://{BIND}"
            assert f"-X POST {url_of(banner)}/v1/public/echo/start" in banner
            process.popen.send_signal(signal.SIGINT)
            ends_clean(process, tmp_path, [])
