"""After fifty calls with every kind of ending the processes hold what they held before."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import Bot, Daemon, running_bot, running_daemon, wait_until
from tests.helpers.ends import (
    begin,
    close_seen,
    descriptors,
    ends_cleanly,
    is_quiet,
    nothing_is_held,
    raw_call,
    reset,
    rows,
    wait_idle,
    zombies_of,
)
from tests.helpers.wire import Wire, call, echoes, masked, request, upgrade

ROUNDS = 5
# Probes of the bots come and go by themselves.
PROBES = 1


def client_closes(daemon: Daemon) -> None:
    with begin(daemon):
        pass


def client_resets(daemon: Daemon) -> None:
    reset(raw_call(daemon, daemon.start_when_free()["token"]))


def client_leaves_inside_a_frame(daemon: Daemon) -> None:
    wire = raw_call(daemon, daemon.start_when_free()["token"])
    wire.send(masked("never whole")[:-3])
    wire.close()


def client_breaks_the_protocol(daemon: Daemon) -> None:
    with raw_call(daemon, daemon.start_when_free()["token"]) as wire:
        wire.send(b"\x83\x80\0\0\0\0")  # opcode 3 is reserved
        assert wire.file.read(4) == b"\x88\x10\x03\xea"  # Close 1002


def bot_closes(daemon: Daemon) -> None:
    with begin(daemon) as began:
        began.ws.send("!close 4000 enough")
        assert close_seen(began.ws) == (4000, "enough")


def bot_resets(daemon: Daemon) -> None:
    with begin(daemon) as began:
        began.ws.send("!reset")
        assert close_seen(began.ws)[0] == 1011


def bot_drops(daemon: Daemon) -> None:
    with begin(daemon) as began:
        began.ws.send("!drop")
        assert close_seen(began.ws)[0] == 1000


def is_stopped(daemon: Daemon) -> None:
    with begin(daemon) as began:
        assert daemon.request("DELETE", f"/sessions/{began.id}", admin=True).status == 200
        assert close_seen(began.ws)[0] == 1001


def client_leaves_before_the_answer(daemon: Daemon) -> None:
    wire = Wire(daemon.port)
    token = daemon.start_when_free()["token"]
    wire.send(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
    wire.close()


def client_never_comes(daemon: Daemon) -> None:
    session = daemon.start_when_free()["sessionId"]
    assert daemon.request("DELETE", f"/sessions/{session}", admin=True).status == 200


def token_is_used_twice(daemon: Daemon) -> None:
    with begin(daemon) as began, pytest.raises(InvalidStatus):
        call(daemon, token=began.token).__enter__()


ENDINGS: list[Callable[[Daemon], None]] = [
    client_closes,
    client_resets,
    client_leaves_inside_a_frame,
    client_breaks_the_protocol,
    bot_closes,
    bot_resets,
    bot_drops,
    is_stopped,
    client_leaves_before_the_answer,
    client_never_comes,
    token_is_used_twice,
]


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    with running_bot(tmp_path, sessions=4) as bot:
        yield bot


def all_is_over(daemon: Daemon, bot: Bot) -> None:
    for (session,) in rows(daemon, "SELECT id FROM sessions WHERE state = 'reserved'"):
        daemon.request("DELETE", f"/sessions/{session}", admin=True)
    nothing_is_held(daemon)
    wait_idle(bot)


def tasks_of(daemon: Daemon) -> int:
    """The control process's tasks, as its administration counts them."""
    return int(daemon.request("GET", "/readyz", admin=True).json()["tasks"])


def test_fifty_calls(bot: Bot, tmp_path: Path) -> None:
    with running_daemon(
        tmp_path, [bot.url], "sessions_per_instance = 4", "close_timeout = 1"
    ) as daemon:
        for ending in ENDINGS:  # whatever is made once has been made
            ending(daemon)
        all_is_over(daemon, bot)
        (pump,) = daemon.pump_pids()
        pids = (daemon.process.pid, pump)
        before = [descriptors(pid) for pid in pids]
        tasks = tasks_of(daemon)
        with socket.create_connection(("127.0.0.1", daemon.port)) as idle:
            for _ in range(ROUNDS):
                for ending in ENDINGS:
                    ending(daemon)
            all_is_over(daemon, bot)
            idle.sendall(request("GET", "/", "Connection: close"))
            assert idle.recv(100).startswith(b"HTTP/1.1 404 ")
        for pid, count in zip(pids, before, strict=True):
            wait_until(
                lambda pid=pid, count=count: descriptors(pid) <= count + PROBES,
                f"process {pid} holds no more than {count} descriptors",
            )
        wait_until(lambda: tasks_of(daemon) <= tasks, f"no more than {tasks} tasks")
        assert daemon.pump_pids() == [pump]
        assert zombies_of(daemon.process.pid) == []
        # Four at a time still fit, so no place was lost on the way.
        calls = [begin(daemon) for _ in range(4)]
        assert daemon.start().status == 429
        for began in calls:
            assert echoes(began.ws)
            began.ws.close()
        all_is_over(daemon, bot)
        is_quiet(daemon)
        daemon.process.end()
        ends_cleanly(daemon)
