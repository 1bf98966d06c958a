"""Side tunnels when the control process or a pump dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from tests.helpers.daemon import Daemon, config_text, end_all, start_daemon, wait_until
from tests.helpers.ends import (
    ABNORMAL,
    close_seen,
    descriptors,
    ends_cleanly,
    kill_control,
    kill_pump,
    nothing_is_held,
    restart,
    wait_ready,
)
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.shared import Mortal
from tests.helpers.side_tunnels import (
    Begin,
    Held,
    SideBot,
    carried,
    over_http,
    over_websocket,
    side_ends,
)
from tests.helpers.wire import echoes, stop

AGENT = "sessions_per_instance = 4\nstopping_time = 0"
OVER = (1001, "session ended")


class Node(Mortal):
    """The daemon, and what its bot does."""

    def __init__(self, daemon: Daemon, bot: SideBot) -> None:
        super().__init__(daemon)
        self.bot = bot

    def begin(self, begin: Begin) -> Held:
        return begin(self.daemon, self.bot, "bot")

    def found_again(self, held: Held) -> Daemon:
        held.daemon = self.again()
        return held.daemon


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One bot, one pump."""
    with scripted_bot() as scripted:
        scripted.script = bot = SideBot()
        config = config_text([scripted.url], AGENT, "close_timeout = 1")
        node = Node(start_daemon(tmp_path, config), bot)
        with node.ended():
            yield node
            node.leaves_nothing()


@pytest.mark.parametrize("begin", [over_websocket, over_http])
def test_the_control_process_dies(node: Node, begin: Begin) -> None:
    """Both go on; the next control process ends neither for the other, and both by a stop."""
    held = node.begin(begin)
    sides = [held.side(f"/{number}") for number in range(3)]
    kill_control(node.daemon)
    for side in sides:
        assert echoes(side, "nobody is in control")
    sides[0].close(4000, "unheard")
    assert node.bot.ends("/0").next() == (4000, "unheard")
    daemon = node.found_again(held)
    assert carried(daemon) == (1, 2)
    (line,) = side_ends(daemon, held.id)
    assert (line["cause"], line["close_code"]) == ("client_closed", 4000)
    sides[1].close(4001, "heard")
    assert [each["close_code"] for each in side_ends(daemon, held.id, 2)] == [4000, 4001]
    assert held.goes_on()
    assert carried(daemon) == (1, 1)
    assert echoes(sides[2])
    late = held.side("/late")
    stop(daemon, held.id)
    for side, path in ((sides[2], "/2"), (late, "/late")):
        assert close_seen(side) == (1001, "stopped")
        assert node.bot.ends(path).next() == (1001, "stopped")
    assert daemon.wait_ended(held.id)["cause"] == "stopped"


@pytest.mark.parametrize("begin", [over_websocket, over_http])
def test_a_session_that_ends_while_nobody_is_in_control(node: Node, begin: Begin) -> None:
    """Its side tunnel is no reason to think that it goes on."""
    held = node.begin(begin)
    side = held.side()
    kill_control(node.daemon)
    if held.ws is None:
        node.bot.finish(held.id)
    else:
        held.ws.close(4001, "done")
        assert node.bot.ends("/ws").next() == (4001, "done")
    assert echoes(side, "it has not heard of it")
    daemon = node.found_again(held)
    assert close_seen(side) == OVER
    assert node.bot.ends("/watch").next() == OVER
    cause = "bot_completed" if held.ws is None else "client_closed"
    assert daemon.wait_ended(held.id)["cause"] == cause
    assert [line["cause"] for line in side_ends(daemon, held.id)] == ["session_ended"]


@pytest.mark.parametrize("begin", [over_websocket, over_http])
def test_the_pump_dies(node: Node, begin: Begin) -> None:
    held = node.begin(begin)
    side = held.side()
    kill_pump(node.daemon)
    assert close_seen(side) == ABNORMAL
    assert node.bot.ends("/watch").next() == ABNORMAL
    assert node.daemon.wait_ended(held.id)["cause"] == "pump_died"
    (line,) = side_ends(node.daemon, held.id)
    assert line["cause"] == "pump_died"
    wait_ready(node.daemon)
    wait_until(lambda: carried(node.daemon) == (0, 0), "nothing is carried")


def two_pumps(node: Node) -> tuple[Held, ClientConnection, int, int]:
    """A session and its side tunnel in a pump each, and the pids of these pumps."""
    node.daemon.process.end()
    config = node.daemon.config.read_text()
    node.daemon = restart(node.daemon, config.replace("[store]", "pumps = 2\n[store]"))
    before = {pid: descriptors(pid) for pid in node.daemon.pump_pids()}
    held = node.begin(over_websocket)
    (own,) = [pid for pid, count in before.items() if descriptors(pid) > count]
    (other,) = before.keys() - {own}
    side = held.side()
    assert descriptors(other) > before[other]
    return held, side, own, other


def test_the_other_pump_dies(node: Node) -> None:
    held, side, _, other = two_pumps(node)
    os.kill(other, signal.SIGKILL)
    assert close_seen(side) == ABNORMAL
    assert [line["cause"] for line in side_ends(node.daemon, held.id)] == ["pump_died"]
    assert held.goes_on()
    wait_until(lambda: carried(node.daemon) == (1, 0), "the call is there")
    side = held.side()
    held.end()
    assert close_seen(side) == OVER


@pytest.mark.parametrize("in_control", [True, False])
def test_the_pump_of_the_session_alone_dies(node: Node, in_control: bool) -> None:
    """A side tunnel that lives makes no session live, neither now nor for the next daemon."""
    held, side, own, _ = two_pumps(node)
    if not in_control:
        kill_control(node.daemon)
    os.kill(own, signal.SIGKILL)
    assert held.ws is not None
    assert close_seen(held.ws) == ABNORMAL
    daemon = node.daemon if in_control else node.found_again(held)
    assert daemon.wait_ended(held.id)["cause"] == ("pump_died" if in_control else "lost")
    assert close_seen(side) == OVER
    assert node.bot.ends("/watch").next() == OVER
    assert [line["cause"] for line in side_ends(daemon, held.id)] == ["session_ended"]
    wait_ready(daemon)


def test_the_control_process_carries_it(tmp_path: Path) -> None:
    """With `frames` it dies with the control process, which a session over HTTP does not."""
    with scripted_bot() as scripted:
        scripted.script = bot = SideBot()
        agent = AGENT + '\nrelay = "frames"'
        daemon = start_daemon(tmp_path, config_text([scripted.url], agent, "close_timeout = 1"))
        try:
            held = over_http(daemon, bot)
            side = held.side()
            kill_pump(daemon)  # it has the session, and not its side tunnel
            assert daemon.wait_ended(held.id)["cause"] == "pump_died"
            assert close_seen(side) == OVER
            wait_ready(daemon)
            held = over_http(daemon, bot)
            side = held.side()
            kill_control(daemon)
            assert close_seen(side) == ABNORMAL
            held.daemon = daemon = restart(daemon)
            assert held.goes_on()
            assert carried(daemon) == (1, 0)
            side = held.side()
            held.end()
            assert close_seen(side) == OVER
            nothing_is_held(daemon)
            daemon.process.end()
            ends_cleanly(daemon)
        finally:
            end_all(daemon)
