"""A restart in place that fails, or is met by signals: one process is the node, none is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import relay
from tests.helpers.daemon import PATIENCE, Answer, Daemon, config_text, wait_until
from tests.helpers.ends import Ends, begin, close_seen, nothing_is_held, restart, wait_ready
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.upgrades import control_pid, controls, upgradable, upgrade, wait_alone
from tests.helpers.wire import echoes, live

FRAMES = """
sessions_per_instance = 3
[agents.frames]
organization = "acme"
relay = "frames"
instances = ["{url}"]
settle_time = 0.05
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with scripted_bot() as bot, scripted_bot() as other:
        bot.script = other.script = Ends()
        config = config_text([bot.url], FRAMES.format(url=other.url), "close_timeout = 1")
        with upgradable(tmp_path, config) as daemon:
            yield daemon
            nothing_is_held(daemon)


@dataclass
class Preparing:
    """A new process that reads its configuration, and who asked for it."""

    pid: int
    answer: Future[Answer]

    def failed(self) -> str:
        answer = self.answer.result(PATIENCE)
        assert (answer.status, answer.json()["phase"]) == (500, "relay"), answer
        return str(answer.json()["error"])


@contextmanager
def preparing(daemon: Daemon) -> Iterator[Preparing]:
    """A new process that gets no further, since its file is a pipe that nobody writes to."""
    text = daemon.config.read_text()
    daemon.config.unlink()
    os.mkfifo(daemon.config)
    old = control_pid(daemon)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(daemon.request, "POST", "/upgrade", admin=True)
        new = wait_until(lambda: set(controls(daemon)) - {old}, "a new process starts").pop()
        try:
            yield Preparing(new, asked)
        finally:
            wait_until(lambda: let_go(daemon, new, text), "the new process leaves")
            daemon.config.unlink()
            daemon.config.write_text(text)


def let_go(daemon: Daemon, new: int, text: str) -> bool:
    """Let a new process read its configuration; whether it has left."""
    try:
        pipe = os.open(daemon.config, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return new not in controls(daemon)  # nobody reads
    os.write(pipe, text.encode())
    os.close(pipe)
    return False


def goes_on(daemon: Daemon) -> None:
    """The same process serves, alone."""
    wait_alone(daemon)
    assert controls(daemon) == [control_pid(daemon)]
    with begin(daemon) as began:
        assert echoes(began.ws)


def refused(daemon: Daemon, change: str, to: str) -> str:
    """Why a process with a changed configuration does not take over."""
    text = daemon.config.read_text()
    assert change in text
    daemon.config.write_text(text.replace(change, to, 1))
    answer = daemon.request("POST", "/upgrade", admin=True)
    daemon.config.write_text(text)
    assert answer.status == 500, answer
    return str(answer.json()["error"])


def test_a_configuration_that_can_not_be_used(daemon: Daemon) -> None:
    pid = control_pid(daemon)
    with begin(daemon) as began:
        assert "agents.bot.instancse: unknown key" in refused(daemon, "instances", "instancse")
        assert "to change it, restart" in refused(daemon, '"run"', '"run2"')
        assert "store.url" in refused(daemon, "sqlite:relay.db", "sqlite:other.db")
        own = f'"127.0.0.1:{daemon.port}"'
        assert "in use by another process" in refused(daemon, '"127.0.0.1:0"', own)
        assert echoes(began.ws)
    goes_on(daemon)
    assert control_pid(daemon) == pid
    failed = [line for line in daemon.logs() if line["event"] == "upgrade_failed"]
    assert len(failed) == 4


def test_one_at_a_time(daemon: Daemon) -> None:
    """Another one is refused, and so is one of a daemon that is about to end."""
    with preparing(daemon) as new, begin(daemon) as began:
        answer = daemon.request("POST", "/upgrade", admin=True)
        assert answer.status == 409
        assert "another process is taking over already" in answer.json()["error"]
        os.kill(control_pid(daemon), signal.SIGUSR2)
        wait_until(
            lambda: [line["event"] for line in daemon.logs()].count("upgrade_refused") == 2,
            "the signal is refused",
        )
        os.kill(new.pid, signal.SIGKILL)
        assert new.failed() == "the new process ended with status -9"
        assert echoes(began.ws)
        os.kill(control_pid(daemon), signal.SIGTERM)
        wait_until(lambda: daemon.request("GET", "/readyz", admin=True).status == 503, "it drains")
        answer = daemon.request("POST", "/upgrade", admin=True)
        assert "about to end" in answer.json()["error"]
        began.ws.close()
        assert daemon.process.popen.wait(PATIENCE) == 0


def test_a_signal_to_the_new_process(daemon: Daemon) -> None:
    with preparing(daemon) as new:
        os.kill(new.pid, signal.SIGTERM)
        assert new.failed() == "the new process ended with status -15"
    goes_on(daemon)


def test_the_old_process_ends_meanwhile(daemon: Daemon) -> None:
    """The new one does not outlive it, as long as it is not the node."""
    with preparing(daemon) as new:
        daemon.process.popen.send_signal(signal.SIGINT)
        assert daemon.process.popen.wait(PATIENCE) == 0
        wait_until(lambda: new.pid not in controls(daemon), "the new one leaves")
        assert new.answer.exception(PATIENCE) is not None


def test_the_old_process_is_killed_meanwhile(daemon: Daemon) -> None:
    with begin(daemon) as began:
        with preparing(daemon) as new:
            os.kill(control_pid(daemon), signal.SIGKILL)
            assert daemon.process.popen.wait(PATIENCE) == -signal.SIGKILL
            assert new.answer.exception(PATIENCE) is not None
        assert controls(daemon) == []
        assert echoes(began.ws)
        with started_again(daemon) as again:
            assert [one["sessionId"] for one in live(again)] == [began.id]
            assert echoes(began.ws)


@contextmanager
def started_again(daemon: Daemon) -> Iterator[Daemon]:
    again = restart(daemon)
    wait_ready(again)
    yield again
    again.process.end()


def test_the_new_process_is_killed_at_once(daemon: Daemon) -> None:
    """The old one, which is not the node any more, ends too; calls in pumps go on."""
    with begin(daemon) as began, begin(daemon, "frames") as other:
        upgrade(daemon)
        os.kill(control_pid(daemon), signal.SIGKILL)
        assert close_seen(other.ws) == (1012, "service restart")
        assert daemon.process.popen.wait(PATIENCE) == 0
        assert echoes(began.ws)
        with started_again(daemon) as again:
            assert [one["sessionId"] for one in live(again)] == [began.id]
            assert again.session(other.id)["cause"] == "drain"


def test_the_old_process_is_killed_while_it_finishes(daemon: Daemon) -> None:
    """What only it had is lost; the node learns of it."""
    with begin(daemon) as began, begin(daemon, "frames") as other:
        upgrade(daemon)
        daemon.process.popen.kill()
        daemon.process.popen.wait()
        assert daemon.wait_ended(other.id)["cause"] == "lost"
        assert echoes(began.ws)
    wait_alone(daemon)


def test_signals_while_the_old_process_finishes(daemon: Daemon) -> None:
    """SIGTERM to the old one cuts short what it finishes; the node goes on."""
    with begin(daemon) as began, begin(daemon, "frames") as other:
        upgrade(daemon)
        daemon.process.popen.send_signal(signal.SIGTERM)
        assert close_seen(other.ws) == (1012, "service restart")
        assert daemon.process.popen.wait(PATIENCE) == 0
        assert echoes(began.ws)
    goes_on(daemon)


def test_newer_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pumps of another version: the old one keeps its call, another one takes new calls."""
    code = tmp_path / "code"
    shutil.copytree(Path(relay.__file__).parent, code / "relay")
    monkeypatch.setenv("PYTHONPATH", str(code))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # not the one in this directory
    with scripted_bot() as bot:
        bot.script = Ends()
        config = config_text([bot.url], "sessions_per_instance = 3", "close_timeout = 1")
        with upgradable(tmp_path, config) as daemon, begin(daemon) as began:
            change(code / "relay" / "__init__.py", '__version__ = ".*"', '__version__ = "99.0"')
            change(code / "relay" / "pump" / "channel.py", "(?m)^VERSION = .*", "VERSION = 1000")
            assert upgrade(daemon)["new"]["version"] == "99.0"
            with begin(daemon) as other:
                assert echoes(other.ws)
                assert echoes(began.ws)
                assert {one["sessionId"] for one in live(daemon)} == {began.id, other.id}
                assert len(daemon.pump_pids()) == 2
                began.ws.close()
                assert daemon.wait_ended(began.id)["cause"] == "client_closed"
                wait_until(lambda: len(daemon.pump_pids()) == 1, "the old pump has left")
                assert echoes(other.ws)


def change(path: Path, pattern: str, to: str) -> None:
    text, count = re.subn(pattern, to, path.read_text())
    assert count == 1
    path.write_text(text)
