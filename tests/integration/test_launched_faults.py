"""Bots that are started and fail: whatever they do, callers are told and nothing is left over."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.helpers.daemon import PATIENCE, Answer, Daemon, wait_until
from tests.helpers.ends import begin, nothing_is_held
from tests.helpers.launched import (
    MARK,
    bots_of,
    environ_of,
    events,
    instances,
    launching,
    naughty,
    pid_of,
    wait_no_bots,
)
from tests.helpers.wire import call, echoes, live, token_for

PATIENT = "attach_timeout = 20"
LOG_SIZE = 65536
MUCH = 50 * 1000 * 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Daemon]:
    """An agent for every fault."""
    tool = folder / "tool"
    tool.write_text('#!/bin/sh\nexec "$@"\n')
    tool.chmod(0o700)
    silent = "start_timeout = 1\nattach_timeout = 2\nmax_agents = 1"
    others = {
        "broken": (naughty("--exit", "1"), "attach_timeout = 1"),
        "silent": (naughty("--gate", str(folder / "never")), silent),
        "loud": (naughty("--flood", str(MUCH)), f"log_size = {LOG_SIZE}\n{PATIENT}"),
        "stubborn": (naughty("--stubborn"), f"stop_timeout = 1\n{PATIENT}"),
        "parent": (naughty("--child"), f"stop_timeout = 1\n{PATIENT}"),
        "worst": (naughty("--stubborn", "--child"), f"stop_timeout = 1\n{PATIENT}"),
        "shell": (["sh", "-c", '"$0" "$@" & wait', *naughty()], PATIENT),
        "removed": (["./tool", *naughty()], f"attach_timeout = 1\ncwd = {str(folder)!r}"),
        "rival": (naughty("--rival", str(folder / "rival")), PATIENT),
        "shared": (naughty(), f"reuse_process = true\nsessions_per_instance = 2\n{PATIENT}"),
        "deaf": (naughty(), f"reuse_process = true\nmax_agents = 1\nstart_timeout = 1\n{PATIENT}"),
    }
    with launching(folder, naughty(), PATIENT, others) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """The daemon of the module; each test leaves it without a bot and without a session."""
    yield shared
    wait_no_bots(shared)
    nothing_is_held(shared)
    assert not live(shared)


def refused_call(daemon: Daemon, agent: str) -> Answer:
    """The answer to a call that no bot takes."""
    with pytest.raises(InvalidStatus) as refused:
        call(daemon, f"/ws/generic/{agent}.acme", token_for(f"{agent}.acme"))
    response = refused.value.response
    return Answer(response.status_code, dict(response.headers.raw_items()), bytes(response.body))


def failures(daemon: Daemon, agent: str) -> list[dict[str, Any]]:
    return events(daemon, "bot_failed", agent)


def is_refused(daemon: Daemon, agent: str) -> bool:
    """Whether /start says that no bot is there and none can be started."""
    answer = daemon.start(agent)
    return (answer.status, answer.json().get("code")) == (400, "PCC-1001")


# Starts that fail.


def test_a_command_that_ends_at_once(daemon: Daemon) -> None:
    assert daemon.start("broken").status == 200  # nobody knows yet
    while len(found := failures(daemon, "broken")) < 2:  # in one call, unless starts are slow
        answer = refused_call(daemon, "broken")
        assert (answer.status, answer.json()["code"]) == (503, "503")
    assert {line["reason"] for line in found} == {"it exited with status 1"}
    assert {line["said"] for line in found} == {"this bot is broken"}
    assert Path(found[0]["log"]).read_text() == "this bot is broken\n"
    # Each time it is left alone for longer, and callers are told so.
    assert [line["wait"] for line in found] == [0.5 * 2**n for n in range(len(found))]
    assert is_refused(daemon, "broken")
    assert daemon.start("bot").status == 200  # the others are served


def test_a_bot_that_never_becomes_ready(daemon: Daemon) -> None:
    answer = refused_call(daemon, "silent")
    assert answer.status == 503
    line = failures(daemon, "silent")[0]
    assert line["reason"] == "not ready within 1 s: cannot connect"


def test_a_program_that_is_gone(daemon: Daemon) -> None:
    """It was there when the configuration was read; when it is back, all is well."""
    tool, away = daemon.folder / "tool", daemon.folder / "away"
    tool.rename(away)
    assert refused_call(daemon, "removed").status == 503
    assert failures(daemon, "removed")[0]["reason"] == "No such file or directory: ./tool"
    assert is_refused(daemon, "removed")
    shutil.copy(away, tool)
    with begin(daemon, "removed") as began:
        assert echoes(began.ws)


def test_a_bot_that_finds_its_port_taken(daemon: Daemon) -> None:
    """Between the look for a free port and the bot's bind somebody else may take it."""
    with begin(daemon, "rival") as began:
        assert echoes(began.ws)
    (line,) = failures(daemon, "rival")
    assert "Address already in use" in line["said"]


def make_deaf(instance: str) -> None:
    """From now on nobody can connect to this bot."""
    with urllib.request.urlopen(f"{instance}/deaf", timeout=PATIENCE) as answer:
        assert answer.status == 200


def test_a_bot_that_listens_no_more(daemon: Daemon) -> None:
    """It was ready and waits for its next caller, who gets another one."""
    with begin(daemon, "deaf") as began:
        first = pid_of(began.ws)
    instance = daemon.wait_ended(began.id)["instance"]
    wait_until(lambda: instances(daemon, "deaf") == {instance: "ready"}, "it can take the next")
    make_deaf(instance)
    with begin(daemon, "deaf") as began:
        assert pid_of(began.ws) != first
        began.ws.send("!exit 0")


def test_a_bot_with_a_call_that_listens_no_more(daemon: Daemon) -> None:
    """Another caller gets another bot; the call goes on."""
    with begin(daemon, "shared") as began:
        make_deaf(daemon.session(began.id)["instance"])
        with begin(daemon, "shared") as other:
            assert pid_of(other.ws) != pid_of(began.ws)
            other.ws.send("!exit 0")
        began.ws.send("!exit 0")


# Bots that do not end.


def test_a_bot_that_ignores_the_signal_to_end(daemon: Daemon) -> None:
    with begin(daemon, "stubborn") as began:
        assert echoes(began.ws)
    wait_no_bots(daemon, "stubborn")
    (line,) = wait_until(lambda: events(daemon, "bot_ended", "stubborn"), "its end is logged")
    assert line["status"] == -9


def test_a_child_that_has_left_the_group(daemon: Daemon) -> None:
    with begin(daemon, "parent") as began:
        found = bots_of(daemon, "parent")
        assert len(found) == 2
        assert len(set(found.values())) == 1
        assert pid_of(began.ws) in found
    wait_no_bots(daemon, "parent")
    (line,) = wait_until(lambda: events(daemon, "bot_ended", "parent"), "its end is logged")
    assert line["status"] == -15


def test_a_child_that_has_left_the_group_and_ignores_the_signal_to_end(daemon: Daemon) -> None:
    with begin(daemon, "worst"):
        assert len(bots_of(daemon, "worst")) == 2
    wait_no_bots(daemon, "worst")
    (line,) = wait_until(lambda: events(daemon, "bot_ended", "worst"), "its end is logged")
    assert line["status"] == -9


def test_a_child_of_a_bot_that_crashed(daemon: Daemon) -> None:
    with begin(daemon, "parent") as began:
        assert len(bots_of(daemon, "parent")) == 2
        began.ws.send("!kill")
    wait_no_bots(daemon, "parent")


def test_a_bot_behind_a_shell(daemon: Daemon) -> None:
    with begin(daemon, "shell") as began:
        assert len(bots_of(daemon, "shell")) == 2
        pid = pid_of(began.ws)
        assert environ_of(pid)[MARK] == bots_of(daemon, "shell")[pid]
    wait_no_bots(daemon, "shell")


# Output.


def sizes_of_logs(daemon: Daemon, agent: str) -> list[int]:
    return [path.stat().st_size for path in (daemon.folder / "run" / "bots").glob(f"{agent}.*")]


def test_a_bot_that_prints_and_prints(daemon: Daemon) -> None:
    def bounded() -> bool:
        sizes = sizes_of_logs(daemon, "loud")
        return len(sizes) == 2 and all(size <= LOG_SIZE for size in sizes)

    with begin(daemon, "loud") as began:
        wait_until(bounded, "the log is cut")
        began.ws.send(f"!flood {MUCH}")
        assert began.ws.recv(PATIENCE) == "flooded"
        wait_until(bounded, "the log is cut again")
        assert echoes(began.ws)
    wait_no_bots(daemon, "loud")
    assert bounded()
