"""Two daemons on one store: tokens, sessions, stops and limits are one; who dies is replaced."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import (
    PRIVATE_KEY,
    PUBLIC_KEY,
    Bot,
    Daemon,
    running_bot,
    spawn,
    wait_until,
)
from tests.helpers.ends import (
    begin,
    close_seen,
    is_quiet,
    kill_control,
    kill_pump,
    nothing_is_held,
    restart,
    rows,
)
from tests.helpers.launched import launched, naughty
from tests.helpers.two_nodes import second_config, two_nodes
from tests.helpers.wire import Wire, call, echoes, refused, stop, token_for, upgrade

AGENTS = """
[agents.few]
organization = "acme"
instances = ["{few}"]
sessions_per_instance = 9
max_sessions = 1
settle_time = 0
[agents.own]
organization = "acme"
attach_timeout = 15
{own}
"""


@pytest.fixture(scope="module")
def bots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bot, Bot]]:
    folder = tmp_path_factory.mktemp("bots")
    with running_bot(folder, "bot") as bot, running_bot(folder, "few", sessions=9) as few:
        yield bot, few


@pytest.fixture(scope="module")
def nodes(
    bots: tuple[Bot, Bot], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Daemon, Daemon]]:
    folder = tmp_path_factory.mktemp("nodes")
    agents = AGENTS.format(few=bots[1].url, own=launched(folder, naughty(), agent="own"))
    with two_nodes(folder, [bots[0].url], agents) as (one, two):
        yield one, two
        nothing_is_held(one)
        is_quiet(one)
        is_quiet(two)


def private(daemon: Daemon, path: str, method: str = "GET") -> Any:
    return daemon.request(method, f"/v1/agents/{path}", Authorization=f"Bearer {PRIVATE_KEY}")


def test_a_token_of_one_is_used_at_the_other_and_then_at_neither(
    nodes: tuple[Daemon, Daemon],
) -> None:
    one, two = nodes
    started = one.start_when_free()
    with call(two, token=started["token"]) as ws:
        assert echoes(ws)
        for each in nodes:
            with pytest.raises(InvalidStatus) as again:
                call(each, token=started["token"])
            assert again.value.response.status_code == 403
            assert each.session(started["sessionId"])["state"] == "active"
            # The only bot is in use, whoever asks.
            assert each.start().status == 429
    assert one.wait_ended(started["sessionId"])["cause"] == "client_closed"


def test_the_session_api_reaches_the_bot_through_either(nodes: tuple[Daemon, Daemon]) -> None:
    one, two = nodes
    with begin(one) as began:
        path = f"/v1/public/bot/sessions/{began.id}/status"
        for each in nodes:
            answer = each.request("GET", path, Authorization=f"Bearer {PUBLIC_KEY}")
            assert answer.json()["sessions"] == [began.id]
            (listed,) = private(each, "bot/sessions?status=active").json()["sessions"]
            assert listed["sessionId"] == began.id
    one.wait_ended(began.id)
    gone = two.request("GET", path, Authorization=f"Bearer {PUBLIC_KEY}")
    refused(two, gone, 404, "no_session")


def test_a_stop_at_one_ends_the_call_at_the_other(nodes: tuple[Daemon, Daemon]) -> None:
    one, two = nodes
    began = begin(one)
    answer = private(two, f"bot/sessions/{began.id}", "DELETE")
    assert answer.json() == {"status": "terminated", "session_id": began.id}
    assert close_seen(began.ws) == (1001, "stopped")
    assert two.wait_ended(began.id)["endState"] == "terminated"


def test_a_caller_waits_at_one_for_a_bot_that_the_other_uses(
    nodes: tuple[Daemon, Daemon],
) -> None:
    one, two = nodes
    token = token_for()
    with begin(one), Wire(two.port) as wire:
        wire.send(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
        waiting = wait_until(
            lambda: one.request("GET", "/sessions?state=waiting", admin=True).json()["sessions"],
            "everybody sees who waits",
        )
        shown = private(one, f"bot/sessions/{waiting[0]['sessionId']}").json()
        assert (shown["endState"], len(shown["events"])) == ("active", 1)
        wait_until(lambda: "queued" not in waiting[0], "it waits")
    # A caller who has hung up is not waited for; one who stays is served.
    with begin(two) as began:
        record = one.session(began.id)
        assert record["queuedSeconds"] <= record["botStartSeconds"]
        assert record["coldStart"] is False


def test_the_limit_of_sessions_is_one_for_both(nodes: tuple[Daemon, Daemon]) -> None:
    one, two = nodes
    started = one.start("few").json()
    for each in nodes:
        error = refused(each, each.start("few"), 429, "session_limit")
        assert error["error"].startswith("PCC-AGENT-AT-CAPACITY")
    with call(two, "/ws/generic/few.acme", started["token"]) as ws:
        assert echoes(ws)
        refused(one, one.start("few"), 429, "session_limit")
    one.wait_ended(started["sessionId"])
    stop(two, wait_until(lambda: two.start("few").json().get("sessionId"), "there is room"))


def test_launched_bots_are_their_nodes_own(nodes: tuple[Daemon, Daemon]) -> None:
    """And are reached from the other; how the bot was started is told."""
    one, two = nodes
    with begin(one, "own") as first, begin(two, "own") as second:
        instances = {each.session(began.id)["instance"] for each in nodes for began in (first,)}
        assert instances.isdisjoint({one.session(second.id)["instance"]})
        cold = private(two, "own/sessions?startType=cold&startTimeMax=60").json()
        assert {each["sessionId"] for each in cold["sessions"]} == {first.id, second.id}
        for path, total in (("startType=warm", 0), ("startTimeMin=60", 0), ("startType=all", 2)):
            assert private(one, f"own/sessions?{path}").json()["total_count"] == total
        record = two.session(first.id)
        assert record["coldStart"] is True
        assert 0 < record["queuedSeconds"] <= record["botStartSeconds"]
    for began in (first, second):
        line = wait_until(lambda id=began.id: ended_line(nodes, id), "the end is logged")
        assert line["cold"] is True
        assert line["waited_ms"] >= line["queued_ms"] > 0


def ended_line(nodes: tuple[Daemon, Daemon], session_id: str) -> Any:
    lines = [line for each in nodes for line in each.logs() if line["event"] == "session"]
    found = [line for line in lines if line["session_id"] == session_id]
    assert len(found) <= 1
    return found[0] if found else None


def test_a_copied_runtime_directory_is_refused(nodes: tuple[Daemon, Daemon]) -> None:
    one, _ = nodes
    folder = one.folder / "copy"
    (folder / "run").mkdir(parents=True)
    shutil.copy(one.folder / "run" / "node", folder / "run" / "node")
    config = folder / "relay.toml"
    config.write_text(second_config(one.config.read_text()))
    copy = spawn(["relay", "serve", "--config", str(config)], folder, "copy")
    assert copy.popen.wait(20) == 2
    (line,) = copy.errors().splitlines()
    assert "server.runtime_dir" in line
    assert str(one.folder / "run") in line
    assert one.session(begin_and_end(one))["state"] == "ended"


def begin_and_end(daemon: Daemon) -> str:
    with begin(daemon) as began:
        pass
    daemon.wait_ended(began.id)
    return began.id


# Deaths. Each leaves both nodes as it found them.


def died(daemon: Daemon) -> list[Any]:
    return [line for line in daemon.logs() if line["event"] == "node_died"]


def test_what_a_dead_node_held_is_free_again(nodes: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    one, two = nodes
    name = "0f8fad5b-d9cb-469f-a165-708677289511"
    token = token_for(session=name)
    began = begin(two)
    with Wire(two.port) as wire:
        wire.send(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
        wait_until(lambda: one.session(name).get("state") == "waiting", "one waits")
        kill_control(two)
    assert echoes(began.ws)
    wait_until(lambda: one.session(name)["state"] == "reserved", "its caller is given back")
    # Its pump lives: so does the call, and its bot is not given to anybody else.
    assert one.session(began.id)["state"] == "active"
    assert one.start().status == 429
    assert echoes(began.ws)
    kill_pump(two)
    assert close_seen(began.ws)[0] == 1006
    assert one.wait_ended(began.id)["cause"] == "lost"
    with call(one, token=token) as ws:  # it may come again, here too
        assert echoes(ws)
    last = died(one)[-1]
    assert (last["sessions"], last["leases"], last["pumps"]) == (1, 1, False)
    again = restart(two)
    two.process, two.port, two.admin_port = again.process, again.port, again.admin_port
    begin_and_end(two)


def test_a_node_that_only_hangs_is_not_dead(nodes: tuple[Daemon, Daemon]) -> None:
    one, two = nodes
    with begin(two) as began:
        two.process.popen.send_signal(signal.SIGSTOP)
        try:
            before = len(died(one))
            beats = dict(rows(one, "SELECT name, beat FROM nodes"))
            name = (two.folder / "run" / "node").read_text().strip()

            def others() -> bool:
                now = dict(rows(one, "SELECT name, beat FROM nodes"))
                return all(now[each] >= beats[each] + 3 for each in now if each != name)

            wait_until(others, "the other has looked three times")
            assert len(died(one)) == before
            assert one.session(began.id)["state"] == "active"
        finally:
            two.process.popen.send_signal(signal.SIGCONT)
        assert echoes(began.ws)
