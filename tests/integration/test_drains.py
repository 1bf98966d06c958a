"""Drains of a node, an agent and an instance: nothing new there, what is live goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import Daemon, running_daemon, wait_until
from tests.helpers.ends import Ends, begin, kill_control, readiness, restart
from tests.helpers.reloads import as_before, drain, post, reloaded, said
from tests.helpers.scripted_bot import ScriptedBot, scripted_bot
from tests.helpers.wire import Wire, call, echoes, live, refused, upgrade

NOTHING = {"node": False, "agents": [], "instances": []}
SECOND = """
[agents.second]
organization = "acme"
instances = ["{}"]
settle_time = 0.05
"""
NONE = 'websocket_auth = "none"'


@pytest.fixture(scope="module")
def bots() -> Iterator[tuple[ScriptedBot, ScriptedBot]]:
    with scripted_bot() as first, scripted_bot() as second:
        first.script, second.script = Ends(), Ends()
        yield first, second


@pytest.fixture(scope="module")
def shared(
    bots: tuple[ScriptedBot, ScriptedBot], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    folder, limits = tmp_path_factory.mktemp("relay"), "reservation_timeout = 1"
    with running_daemon(folder, [bots[0].url], agents(bots), limits) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """The daemon of all tests here, as each of them finds it."""
    with as_before(shared):
        yield shared


@pytest.fixture
def own(bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that a test may end, or that is not to be reached as before."""
    with running_daemon(tmp_path, [bots[0].url], agents(bots)) as daemon:
        yield daemon


def agents(bots: tuple[ScriptedBot, ScriptedBot]) -> str:
    return f"sessions_per_instance = 2\n{SECOND.format(bots[1].url)}"


def status(daemon: Daemon, part: str) -> dict[str, bool]:
    """What is shown as draining, by name or URL."""
    found = daemon.request("GET", f"/status/{part}", admin=True).json()[part]
    return {each.get("name", each.get("url")): each["draining"] for each in found}


def test_a_node(daemon: Daemon) -> None:
    token = daemon.start_when_free()["token"]
    with begin(daemon) as began:
        assert drain(daemon, node=True) == {**NOTHING, "node": True, "kept": True}
        assert readiness(daemon) == (503, ["draining"])
        for agent in ("bot", "second"):
            answer = daemon.start(agent)
            refused(daemon, answer, 503, "draining")
            assert answer.headers["retry-after"] == "5"
        with pytest.raises(InvalidStatus) as rejected:
            call(daemon, token=token)
        assert rejected.value.response.status_code == 503
        assert echoes(began.ws, "live ones go on")
        assert drain(daemon, on=False, node=True) == {**NOTHING, "kept": True}
        assert readiness(daemon) == (200, [])
        with call(daemon, token=token) as ws:  # it was not used up
            assert echoes(ws)


def test_an_agent(daemon: Daemon) -> None:
    with begin(daemon) as began:
        assert drain(daemon, agent="bot")["agents"] == ["bot"]
        assert readiness(daemon) == (200, [])
        answer = daemon.start()
        refused(daemon, answer, 503, "draining")
        assert answer.headers["retry-after"] == "5"
        assert daemon.start("second").status == 200
        assert status(daemon, "agents") == {"bot": True, "second": False}
        metrics = daemon.request("GET", "/metrics", admin=True).body.decode()
        assert 'relay_draining{agent="bot"} 1' in metrics
        assert 'relay_draining{agent="second"} 0' in metrics
        assert echoes(began.ws)
    drain(daemon, on=False, agent="bot")
    with begin(daemon):
        assert status(daemon, "agents") == {"bot": False, "second": False}


def test_an_instance(daemon: Daemon, bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path) -> None:
    url = bots[0].url
    with begin(daemon) as began:
        assert drain(daemon, instance=f"{url}/")["instances"] == [url]
        # It has room for another one, which is nobody's.
        assert daemon.start().status == 429
        assert status(daemon, "instances") == {url: True, bots[1].url: False}
        assert echoes(began.ws)
    wait_until(lambda: daemon.start().status == 400, "no instance is left for it")
    drain(daemon, on=False, instance=url)
    with begin(daemon):
        pass


def test_a_caller_in_line_takes_another_instance_or_waits(
    bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path
) -> None:
    """Those who were let in are not sent away by a drain of the agent, nor of the node."""
    with running_daemon(tmp_path, [bots[0].url, bots[1].url], NONE) as daemon:
        drain(daemon, instance=bots[1].url)
        with begin(daemon) as first, Wire(daemon.port) as waiting:
            waiting.send(upgrade("/ws/generic/bot.acme"))
            wait_until(lambda: len(live(daemon)) == 2, "the second waits")
            drain(daemon, agent="bot")
            drain(daemon, node=True)
            drain(daemon, on=False, instance=bots[1].url)
            assert waiting.answer().status == 101
            assert echoes(first.ws)


def test_a_drain_outlives_the_control_process(
    own: Daemon, bots: tuple[ScriptedBot, ScriptedBot]
) -> None:
    for what in ({"agent": "second"}, {"instance": bots[0].url}, {"node": True}):
        drain(own, **what)
    kill_control(own)
    again = restart(own)
    expected = {"node": True, "agents": ["second"], "instances": [bots[0].url]}
    assert again.request("GET", "/drain", admin=True).json() == expected
    assert readiness(again) == (503, ["draining"])
    drain(again, on=False, node=True)
    # An end on SIGTERM is no drain that is kept.
    assert again.process.end(15) == 0
    third = restart(again)
    assert readiness(third) == (200, [])
    assert status(third, "instances")[bots[0].url]
    third.process.end()


def test_what_is_not_configured_any_more_is_forgotten(
    daemon: Daemon, bots: tuple[ScriptedBot, ScriptedBot]
) -> None:
    drain(daemon, agent="second")
    drain(daemon, instance=bots[1].url)
    drain(daemon, instance=bots[0].url)
    text = daemon.config.read_text()
    reloaded(daemon, text.replace(SECOND.format(bots[1].url), ""))
    left = {**NOTHING, "instances": [bots[0].url]}
    wait_until(lambda: daemon.request("GET", "/drain", admin=True).json() == left, "forgotten")
    reloaded(daemon, text)
    with begin(daemon, "second"):
        assert said(daemon, "drains")[-1]["instances"] == [bots[0].url]


@pytest.mark.parametrize(
    ("body", "status", "cause"),
    [
        (b"", 400, "bad_drain"),
        (b'{"agent": "bot"}', 400, "bad_drain"),
        (b'{"agent": "bot", "node": true, "on": true}', 400, "bad_drain"),
        (b'{"agent": "nobody", "on": true}', 404, "unknown_agent"),
        (b'{"instance": "http://10.1.2.3:4", "on": true}', 404, "unknown_instance"),
        (b'{"node": true, "on": true' + b" " * 5000 + b"}", 413, "request_too_large"),
    ],
)
def test_orders_that_are_refused(daemon: Daemon, body: bytes, status: int, cause: str) -> None:
    refused(daemon, post(daemon, "/drain", body), status, cause)
    assert daemon.request("GET", "/drain", admin=True).json() == NOTHING


def test_what_is_unknown_may_take_calls_again(daemon: Daemon) -> None:
    assert drain(daemon, on=False, agent="nobody") == {**NOTHING, "kept": True}
    assert drain(daemon, on=False, instance="http://10.1.2.3:4") == {**NOTHING, "kept": True}


def test_without_the_token_nothing_drains(
    bots: tuple[ScriptedBot, ScriptedBot], tmp_path: Path
) -> None:
    token = "the-token-of-the-admin"
    server = f'admin_token = "{token}"'
    with running_daemon(tmp_path, [bots[0].url], server=server) as daemon:
        order = {"node": True, "on": True}
        for given in ({}, {"Authorization": "Bearer wrong-token-of-the-admin"}):
            answer = post(daemon, "/drain", order, **given)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert daemon.request("GET", "/drain", admin=True, **given).status == 401
        right = {"Authorization": f"Bearer {token}"}
        assert post(daemon, "/drain", order, **right).json()["node"]
