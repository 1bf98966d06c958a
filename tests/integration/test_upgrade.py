"""Restart in place: another process becomes the node, and nobody outside notices."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import relay
from bench import native
from bench.origin import start_origin
from relay.cli import main
from tests.helpers.daemon import PRIVATE_KEY, PUBLIC_KEY, Daemon, config_text, wait_until
from tests.helpers.ends import Ends, begin, close_seen, nothing_is_held, rows
from tests.helpers.launched import (
    bots_of,
    events,
    launching_config,
    naughty,
    pid_of,
    records_of,
    start_http,
    wait_no_bots,
)
from tests.helpers.paced_calls import open_paced, pacing
from tests.helpers.scripted_bot import Conversation, ScriptedBot, scripted_bot
from tests.helpers.upgrades import (
    Prober,
    control_pid,
    controls,
    upgradable,
    upgrade,
    upgrade_by_signal,
    wait_alone,
)
from tests.helpers.wire import Wire, call, echoes, live, masked, request, stop, token_for
from tests.helpers.wire import upgrade as upgrade_request

BEARER = f"Authorization: Bearer {PUBLIC_KEY}"
AGENTS = """
[agents.open]
organization = "acme"
websocket_auth = "none"
instances = ["{open}"]
settle_time = 0.05
[agents.frames]
organization = "acme"
relay = "frames"
sessions_per_instance = 3
instances = ["{frames}"]
settle_time = 0.05
"""


class Stage:
    """One daemon for all tests of this file, three bots, and what was seen of them."""

    def __init__(self, daemon: Daemon, bots: dict[str, ScriptedBot]) -> None:
        self.daemon = daemon
        self.bots = bots
        self.gate = threading.Event()
        self.asked: queue.Queue[str] = queue.Queue()

    def script(self, agent: str, script: Callable[[Conversation], None]) -> None:
        self.bots[agent].script = script

    def gated(self, usual: Callable[[Conversation], None]) -> Callable[[Conversation], None]:
        """A bot that has the request, and answers when the gate opens."""

        def script(talk: Conversation) -> None:
            self.asked.put(talk.target)
            assert self.gate.wait(20)
            usual(talk)

        return script


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("upgrade")
    with scripted_bot() as bot, scripted_bot() as open_bot, scripted_bot() as frames_bot:
        agents = AGENTS.format(open=open_bot.url, frames=frames_bot.url)
        with upgradable(folder, config_text([bot.url], agents, "close_timeout = 1")) as daemon:
            yield Stage(daemon, {"bot": bot, "open": open_bot, "frames": frames_bot})


@pytest.fixture
def stage(shared: Stage) -> Iterator[Stage]:
    """Nothing is held, and one process is left, when a test has ended."""
    shared.gate.clear()
    for bot in shared.bots.values():
        bot.script = Ends()
    yield shared
    shared.gate.set()
    nothing_is_held(shared.daemon)
    wait_alone(shared.daemon)


def test_a_call_goes_on(stage: Stage) -> None:
    daemon = stage.daemon
    with begin(daemon) as began:
        first = control_pid(daemon)
        said = upgrade(daemon)
        assert said["old"]["pid"] == first
        assert echoes(began.ws)
        second = upgrade_by_signal(daemon)
        assert second not in (first, said["new"]["pid"])
        assert echoes(began.ws)
        wait_until(lambda: [one["sessionId"] for one in live(daemon)] == [began.id], "it is live")
        wait_alone(daemon)
    record = daemon.wait_ended(began.id)
    assert record["cause"] == "client_closed"
    assert record["figures"]["client"]["messages"] == 3
    assert len(daemon.pump_pids()) == 1
    assert daemon.process.popen.wait(15) == 0


def test_the_command(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    daemon, old = stage.daemon, control_pid(stage.daemon)
    where = ["--admin", f"http://127.0.0.1:{daemon.admin_port}"]
    assert main(["upgrade", *where]) == 0
    version = f"relay {relay.__version__}"
    out = capsys.readouterr().out
    assert out == f"{version} (pid {old}) was replaced by {version} (pid {control_pid(daemon)})\n"
    assert main(["upgrade", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["new"]["pid"] == control_pid(daemon)


def test_connections_without_a_request(stage: Stage) -> None:
    """Idle ones, new or used, and one in the midst of a head, are served by the next process."""
    daemon = stage.daemon
    asked = request("GET", "/v1/agents", f"Authorization: Bearer {PRIVATE_KEY}")
    with Wire(daemon.port) as fresh, Wire(daemon.port) as used, Wire(daemon.port) as half:
        assert used.ask(asked).status == 200
        half.send(asked[:25])
        wait_until(lambda: daemon.request("GET", "/livez", admin=True).status == 200, "it serves")
        upgrade(daemon)
        wait_alone(daemon)
        half.send(asked[25:])
        for wire in (fresh, used):
            wire.send(asked)
        for wire in (fresh, used, half):
            assert wire.answer().status == 200


def test_requests_are_answered_once(stage: Stage) -> None:
    """Each on a connection that changes hands with or without an unanswered one behind it."""
    daemon = stage.daemon
    body = b'{"transport":"websocket"}'
    length = f"Content-Length: {len(body)}"
    start = request("POST", "/v1/public/open/start", BEARER, length, body=body)
    before = len(rows(daemon, "SELECT id FROM sessions"))
    with Wire(daemon.port) as wire:
        answers = [wire.ask(start)]
        wire.send(start[:-5])  # in the midst of a body, which is read where it was begun
        upgrade(daemon)
        wire.send(start[-5:] + start)
        answers += [wire.answer(), wire.answer()]
    statuses = [answer.status for answer in answers]
    started = statuses.count(200)
    assert set(statuses) <= {200, 429}  # one place
    assert len(rows(daemon, "SELECT id FROM sessions")) == before + started
    for answer in answers:
        if answer.status == 200:
            session = answer.json()["sessionId"]
            assert daemon.request("DELETE", f"/sessions/{session}", admin=True).status == 200


def test_a_caller_in_line(stage: Stage) -> None:
    """Goes to the next process with its connection and its token, and is served there."""
    daemon = stage.daemon
    token = token_for()
    with begin(daemon) as began, Wire(daemon.port) as waiting:
        waiting.send(upgrade_request("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
        wait_until(lambda: len(live(daemon)) == 2, "it waits")
        upgrade(daemon)
        wait_until(lambda: len(live(daemon)) == 2, "it waits there")
        wait_alone(daemon)
        began.ws.close()
        assert waiting.answer().status == 101
        waiting.send(masked("hello"))
        assert waiting.file.read(7) == b"\x81\x05hello"
    causes = [cause for (cause,) in rows(daemon, "SELECT cause FROM sessions")]
    assert "lost" not in causes


def test_a_caller_in_line_without_a_token(stage: Stage) -> None:
    """Its session is the same one there."""
    daemon = stage.daemon
    with call(daemon, "/ws/generic/open.acme") as first, Wire(daemon.port) as waiting:
        assert echoes(first)
        waiting.send(upgrade_request("/ws/generic/open.acme"))
        before = wait_until(lambda: two(daemon), "it waits")
        upgrade(daemon)
        wait_alone(daemon)
        first.close()
        answer = waiting.answer()
        assert answer.status == 101
        assert answer.headers["x-daily-session-id"] in before


def two(daemon: Daemon) -> set[str]:
    found = {one["sessionId"] for one in live(daemon)}
    return found if len(found) == 2 else set()


def test_a_held_request(stage: Stage) -> None:
    """Of the Session API, with a part of its body: the bot gets all of it, once."""
    daemon = stage.daemon
    stage.script("bot", session_script(stage))
    started = daemon.start_when_free()
    path = f"/v1/public/bot/sessions/{started['sessionId']}/ask"
    with Wire(daemon.port) as wire:
        wire.send(request("POST", path, BEARER, "Content-Length: 10", body=b"hello"))
        wait_until(lambda: held(daemon, "bot"), "it waits for the session")
        upgrade(daemon)
        wait_alone(daemon)
        wire.send(b"world")
        with call(daemon, token=started["token"]) as ws:
            assert echoes(ws)
            assert wire.answer().body == b"helloworld"


def held(daemon: Daemon, agent: str) -> int:
    status: Any = daemon.request("GET", "/status/agents", admin=True).json()
    return next(int(each["held"]) for each in status["agents"] if each["name"] == agent)


def session_script(stage: Stage) -> Callable[[Conversation], None]:
    """Echoes calls as usual, and bodies of requests to /ask when the gate allows."""
    usual = Ends()

    def script(talk: Conversation) -> None:
        if not talk.target.endswith("/ask"):
            usual(talk)
            return
        body = talk.head.partition(b"\r\n\r\n")[2]
        while len(body) < int(talk.field("content-length")):
            body += talk.sock.recv(100)
        stage.asked.put(talk.target)
        half = len(body) // 2
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        talk.sock.sendall(head + body[:half])
        if body.startswith(b"slow"):
            assert stage.gate.wait(20)
        talk.sock.sendall(body[half:])

    return script


def test_an_exchange_with_a_bot(stage: Stage) -> None:
    """Finishes in the old process, which stays for it; its connection goes on in the next."""
    daemon = stage.daemon
    stage.script("bot", session_script(stage))
    with begin(daemon) as began, Wire(daemon.port) as wire:
        path = f"/v1/public/bot/sessions/{began.id}/ask"
        wire.send(request("POST", path, BEARER, "Content-Length: 10", body=b"slow motion"[:10]))
        stage.asked.get(timeout=15)
        upgrade(daemon)
        assert len(controls(daemon)) == 2
        assert echoes(began.ws)
        stage.gate.set()
        assert wire.answer().body == b"slow motio"
        wait_alone(daemon)
        fast = request("POST", path, BEARER, "Content-Length: 4", body=b"fast")
        assert wire.ask(fast).body == b"fast"


@pytest.mark.parametrize("agent", ["bot", "frames"])
def test_a_caller_whose_bot_is_asked(stage: Stage, agent: str) -> None:
    """The answer comes to the old process; the call is the next one's."""
    daemon = stage.daemon
    stage.script(agent, stage.gated(Ends()))
    with Wire(daemon.port) as wire:
        token = token_for(f"{agent}.acme")
        carrier = f"Authorization: Bearer {token}"
        wire.send(upgrade_request(f"/ws/generic/{agent}.acme", carrier))
        stage.asked.get(timeout=15)
        upgrade(daemon)
        assert len(controls(daemon)) == 2
        stage.gate.set()
        answer = wire.answer()
        assert answer.status == 101
        wait_alone(daemon)
        wire.send(masked("hello"))
        assert wire.file.read(7) == b"\x81\x05hello"
        (record,) = live(daemon)
        assert record["sessionId"] == answer.headers["x-daily-session-id"]


def test_a_call_that_is_relayed_by_messages(stage: Stage) -> None:
    """Stays in the old process, which stays for it; the next can be replaced meanwhile."""
    daemon = stage.daemon
    with begin(daemon, "frames") as began:
        first = control_pid(daemon)
        upgrade(daemon)
        second = control_pid(daemon)
        upgrade(daemon)
        assert set(controls(daemon)) == {first, second, control_pid(daemon)}
        assert echoes(began.ws)
        assert [one["sessionId"] for one in live(daemon)] == [began.id]
        with begin(daemon, "frames") as other:
            assert echoes(other.ws)
        assert daemon.request("DELETE", f"/sessions/{began.id}", admin=True).status == 200
        assert close_seen(began.ws) == (1001, "stopped")
    assert daemon.wait_ended(began.id)["cause"] == "stopped"


def test_side_tunnels(stage: Stage) -> None:
    """One that goes on, and one whose bot has not answered."""
    daemon = stage.daemon
    with begin(daemon) as began:
        target = f"/v1/public/bot/sessions/{began.id}/side"
        with call(daemon, target, PUBLIC_KEY) as side, Wire(daemon.port) as late:
            assert echoes(side)
            stage.script("bot", stage.gated(Ends()))
            late.send(upgrade_request(target, BEARER))
            stage.asked.get(timeout=15)
            upgrade(daemon)
            assert echoes(side)
            stage.gate.set()
            assert late.answer().status == 101
            began.ws.close()
            assert close_seen(side)[0] == 1001
            assert late.file.read(2) == b"\x88\x0f"


CROWD = 10
RATE = 50
SECONDS = 6
PROBED = """
sessions_per_instance = 100
[agents.probed]
organization = "acme"
sessions_per_instance = 100000
instances = ["{url}"]
"""


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler: apt-get install gcc")
def test_nobody_notices(tmp_path: Path) -> None:
    """No message is lost, and nobody refused; tests/live does the same at full size."""
    with start_origin(listeners=2) as (_, (url, other)):
        config = config_text([url], PROBED.format(url=other))
        with upgradable(tmp_path, config) as daemon, open_paced(daemon, CROWD) as calls:
            prober = Prober(daemon)
            with pacing(calls, RATE, SECONDS) as paced, prober.running():
                for _ in range(2):
                    upgrade(daemon)
                    wait_alone(daemon)
            paced.check(CROWD * RATE * SECONDS)
    assert prober.refused == []
    assert prober.started


def test_launched_bots(tmp_path: Path) -> None:
    """One in a call, and one that a session over HTTP waits for, are the next process's."""
    gate = tmp_path / "gate"
    command = naughty("--gate", str(gate), "--post", "hold")
    config = launching_config(tmp_path, command, "max_agents = 2\nattach_timeout = 20")
    with upgradable(tmp_path, config) as daemon:
        gate.touch()
        with begin(daemon) as began:
            pid = pid_of(began.ws)
            gate.unlink()
            session = start_http(daemon)
            wait_until(lambda: len(bots_of(daemon)) == 2, "a second bot starts")
            upgrade(daemon)
            wait_alone(daemon)
            assert {line["pid"] for line in events(daemon, "bot_adopted")} == set(bots_of(daemon))
            assert daemon.session(session)["state"] == "waiting"
            gate.touch()
            wait_until(lambda: daemon.session(session)["state"] == "active", "its bot is told")
            assert len(events(daemon, "bot_started")) == 2
            assert pid_of(began.ws) == pid
            stop(daemon, session)
        daemon.wait_ended(began.id)
        wait_no_bots(daemon)
    assert not records_of(daemon)
