"""What a restart in place keeps beside calls: who waits and since when, who is counted, what
drains, and what is still to be told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.daemon import Daemon, config_text, wait_until
from tests.helpers.ends import Ends, begin, nothing_is_held, rows
from tests.helpers.receiver import Receiver, receiving
from tests.helpers.reloads import as_before, drain, post
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.upgrades import control_pid, controls, upgradable, upgrade, wait_alone
from tests.helpers.wire import Wire, echoes, live, request, token_for
from tests.helpers.wire import upgrade as upgrade_request

BALANCER = "127.0.0.2"
MOST = 3
LIMITS = f"max_connections_per_address = {MOST}\nclose_timeout = 1\nhead_timeout = 60"
# Of 32 bytes; receivers check signatures elsewhere.
HOOK = 'webhook_url = "{}"\nwebhook_secret = "whsec_' + "A" * 43 + '="\n[agents.bot]'
NOTHING_THERE = request("GET", "/nowhere")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Daemon]:
    folder: Path = tmp_path_factory.mktemp("keeps")
    server = f'proxy_protocol = ["{BALANCER}"]'
    with scripted_bot() as bot:
        bot.script = Ends()
        config = config_text([bot.url], limits=LIMITS, server=server)
        config = config.replace("[agents.bot]", HOOK.format(receiver.url))
        with upgradable(folder, config) as daemon:
            yield daemon
            nothing_is_held(daemon)


def header(address: str) -> bytes:
    return b"PROXY TCP4 %s 198.51.100.9 56288 443\r\n" % address.encode()


def test_callers_are_served_in_the_order_in_which_they_came(daemon: Daemon) -> None:
    with begin(daemon) as began, ExitStack() as stack:
        wires = []
        for number in range(5):
            wire = stack.enter_context(Wire(daemon.port, BALANCER))
            bearer = f"Authorization: Bearer {token_for()}"
            wire.send(header(f"192.0.2.{number}") + upgrade_request("/ws/generic/bot.acme", bearer))
            wait_until(lambda count=number + 2: len(live(daemon)) == count, "it waits")  # type: ignore[misc]
            wires.append(wire)
        upgrade(daemon)
        wait_until(lambda: len(live(daemon)) == 6, "all wait there")
        wait_alone(daemon)
        began.ws.close()
        for wire in wires:  # there is one place
            assert wire.answer().status == 101
            wire.close()


def test_connections_count_for_who_announced_them(daemon: Daemon) -> None:
    """Those that have announced themselves before, and one in the midst of its header."""
    line = header("192.0.2.77")
    with ExitStack() as stack:
        known = [stack.enter_context(Wire(daemon.port, BALANCER)) for _ in range(MOST - 1)]
        for wire in known:
            assert wire.ask(line + NOTHING_THERE).status == 404
        half = stack.enter_context(Wire(daemon.port, BALANCER))
        half.send(line[:10])
        upgrade(daemon)
        half.send(line[10:] + NOTHING_THERE)
        assert half.answer().status == 404
        wait_alone(daemon)
        over = stack.enter_context(Wire(daemon.port, BALANCER))
        assert over.ask(line + NOTHING_THERE).status == 429
        for wire in (*known, half):
            assert wire.ask(NOTHING_THERE).status == 404
        other = stack.enter_context(Wire(daemon.port, BALANCER))
        assert other.ask(header("192.0.2.78") + NOTHING_THERE).status == 404
        known[0].close()

        def served() -> bool:
            with Wire(daemon.port, BALANCER) as wire:
                return wire.ask(line + NOTHING_THERE).status == 404

        wait_until(served, "another one may come in its place")


def test_what_drains_drains_on(daemon: Daemon) -> None:
    with as_before(daemon), begin(daemon) as began:
        (instance,) = daemon.request("GET", "/instances", admin=True).json()["bot"]
        drain(daemon, agent="bot")
        before = drain(daemon, instance=instance)
        upgrade(daemon)
        now = daemon.request("GET", "/drain", admin=True).json()
        assert now == {name: value for name, value in before.items() if name != "kept"}
        assert (answer := daemon.start()).status == 503, answer
        assert post(daemon, "/drain", {"agent": "bot", "on": False}).json()["agents"] == []
        assert echoes(began.ws)
    with begin(daemon) as began:
        assert echoes(began.ws)


def test_every_event_is_told_once(daemon: Daemon, receiver: Receiver) -> None:
    """Also one whose receiver takes its time: the node does not change hands meanwhile."""
    wait_until(lambda: not rows(daemon, "SELECT * FROM events"), "all before is told")
    receiver.told.clear()
    receiver.answers.append("held")
    with begin(daemon) as began, ThreadPoolExecutor(1) as other:
        wait_until(lambda: receiver.told, "the first event is on its way")
        old = control_pid(daemon)
        replaced = other.submit(upgrade, daemon)
        wait_until(lambda: any(has_store(pid) for pid in controls(daemon) if pid != old), "ready")
        assert echoes(began.ws)
        assert control_pid(daemon) == old
        receiver.gate.set()
        assert replaced.result()["old"]["pid"] == old
    daemon.wait_ended(began.id)
    expected = [f"msg_{began.id}_started", f"msg_{began.id}_ended"]
    wait_until(lambda: receiver.ids() == expected, f"both are told once; {receiver.ids()}")
    wait_alone(daemon)


def has_store(pid: int) -> bool:
    """Whether a process has opened the store, which is the last thing before it is ready."""
    try:
        return any(name.endswith("/relay.db") for name in map(os.readlink, descriptors(pid)))
    except OSError:
        return False


def descriptors(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    return [f"{folder}/{name}" for name in os.listdir(folder)]
