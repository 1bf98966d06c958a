"""The console in headless Chromium: idle, with fifty calls of which one stalls, by keyboard."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.helpers.browser import NPM, ROOT, end
from tests.helpers.daemon import PATIENCE, Bot, Daemon, running_bot, running_daemon
from tests.helpers.wire import call, echoes, token_for

CALLS = 50
# Between two messages of a call, in seconds: well below what the console calls a stall.
PACE = 0.2
PICTURES = Path(os.environ.get("CONSOLE_PICTURES", "/nowhere"))
LIGHT = {"width": 1400, "height": 900, "scheme": "light"}
PHONE = {"width": 390, "height": 844, "scheme": "dark"}


class Console:
    """`console.mjs`, asked by lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = PICTURES if PICTURES.is_dir() else folder

    def ask(self, verb: str, **words: object) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"verb": verb, **words}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"console.mjs ended: {self.process.wait(PATIENCE)}"
        answer = json.loads(line)
        assert "error" not in answer, answer
        return answer["value"]

    def picture(self, name: str, view: dict[str, Any]) -> None:
        """Nothing is cut off at the side, whatever the window's width."""
        assert self.ask("picture", path=str(self.folder / f"{name}.png"), **view) <= 0

    def press_twice(self, at: str) -> None:
        """A button that asks once more, by keyboard."""
        self.ask("tabTo", at=at)
        self.ask("press", key="Enter")
        self.ask("wait", at=f"{at}.sure", text="?")
        self.ask("tabTo", at=at)
        self.ask("press", key="Enter")


@contextmanager
def console(daemon: Daemon, folder: Path) -> Iterator[Console]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("these tests need Chromium: apt-get install chromium", pytrace=False)
    url = f"http://127.0.0.1:{daemon.admin_port}/"
    process = subprocess.Popen(
        ["node", str(ROOT / "tests/clients/console.mjs"), chromium, url],
        env={**os.environ, "CLIENTS_NPM": str(NPM), "NO_COLOR": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        shown = Console(process, folder)
        assert shown.ask("open") == f"{url}console/"
        yield shown
        assert shown.ask("faults") == {"faults": [], "elsewhere": []}
    finally:
        end(process)


class Talkers:
    """Calls that send a message each `PACE` and take their echoes, but for those that are mute."""

    def __init__(self, daemon: Daemon, stack: ExitStack) -> None:
        self.calls = [
            stack.enter_context(call(daemon, "/ws/generic/bot.acme", token_for()))
            for _ in range(CALLS)
        ]
        assert all(echoes(each) for each in self.calls)
        self.mute: set[ClientConnection] = set()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._talk)
        stack.callback(self._end)
        self.thread.start()

    def session(self, number: int) -> str:
        response = self.calls[number].response
        assert response is not None
        return response.headers["x-daily-session-id"]

    def _talk(self) -> None:
        while not self.over.wait(PACE):
            for each in self.calls:
                if each not in self.mute:
                    try:
                        each.send(b"x" * 320)
                        each.recv(timeout=PATIENCE)
                    except ConnectionClosed:
                        self.mute.add(each)

    def _end(self) -> None:
        self.over.set()
        self.thread.join(PATIENCE)


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot"), sessions=CALLS) as bot:
        yield bot


def test_an_idle_daemon(bot: Bot, tmp_path: Path) -> None:
    with running_daemon(tmp_path, [bot.url]) as daemon, console(daemon, tmp_path) as shown:
        shown.ask("wait", at="#health", text="takes new calls", whole=True)
        assert shown.ask("text", at="#n-calls") == "0"
        assert shown.ask("text", at="#calls tbody") == "no calls"
        shown.ask("wait", at="#agents", text="ready")
        shown.picture("idle", LIGHT)
        agent = 'button[data-key="agent bot"]'
        shown.press_twice(agent)
        shown.ask("wait", at=agent, text="Take calls again", whole=True)
        assert daemon.start().status == 503
        shown.picture("drain", LIGHT)
        shown.press_twice(agent)
        shown.ask("wait", at=agent, text="Drain", whole=True)
        assert daemon.start().status == 200
        daemon.process.end(signal.SIGINT)
        shown.ask("wait", at="#health", text="no answer from the daemon")


def test_fifty_calls_of_which_one_stalls(bot: Bot, tmp_path: Path) -> None:
    agent = f"sessions_per_instance = {CALLS}"
    with (
        running_daemon(tmp_path, [bot.url], agent) as daemon,
        console(daemon, tmp_path) as shown,
        ExitStack() as stack,
    ):
        talkers = Talkers(daemon, stack)
        shown.ask("wait", at="#n-calls", text=str(CALLS), whole=True)
        shown.ask("wait", at="#n-stalled", text="0", whole=True)
        talkers.mute.add(talkers.calls[7])
        shown.ask("wait", at="#n-stalled", text="1", whole=True)
        assert shown.ask("title", at="#calls tbody tr.stalled code") == talkers.session(7)
        assert shown.ask("title", at="#calls tbody code") == talkers.session(7)
        assert "silent" in shown.ask("text", at="tr.stalled .flag")
        assert len(shown.ask("texts", at="#calls tbody tr")) == CALLS
        shown.picture("calls", LIGHT)
        shown.picture("calls-phone", PHONE)
        shown.press_twice(f'button[data-key="stop {talkers.session(7)}"]')
        shown.ask("wait", at="#ends tbody tr:first-child", text="stopped")
        shown.ask("wait", at="#n-stalled", text="0", whole=True)
        with pytest.raises(ConnectionClosed) as closed:
            talkers.calls[7].recv(timeout=PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


def test_a_daemon_that_asks_for_its_token(bot: Bot, tmp_path: Path) -> None:
    token = 'admin_token = "a-token-of-the-operator"'
    with (
        running_daemon(tmp_path, [bot.url], server=token) as daemon,
        console(daemon, tmp_path) as shown,
    ):
        shown.ask("wait", at="#access", text="administration token")
        assert shown.ask("visible", at="#access")
        assert not shown.ask("visible", at="#main")
        shown.ask("wait", at="#health", text="a token is needed", whole=True)
        shown.ask("fill", at="#token", value="a-token-of-somebody-else")
        shown.ask("wait", at="#health", text="the daemon does not take this token", whole=True)
        shown.ask("fill", at="#token", value="a-token-of-the-operator")
        shown.ask("wait", at="#health", text="takes new calls", whole=True)
        assert not shown.ask("visible", at="#access")
