"""Bots that the daemon starts: a process for each session, started when somebody waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from tests.helpers.daemon import PATIENCE, TOKEN_SECRET, Daemon, wait_until
from tests.helpers.ends import begin, close_seen, nothing_is_held, rows
from tests.helpers.launched import (
    MARK,
    OWNER,
    bots_of,
    environ_of,
    events,
    instances,
    launching,
    launching_config,
    naughty,
    pid_of,
    serving,
    start_http,
    wait_no_bots,
)
from tests.helpers.wire import call, echoes, live, stop, token_for

# Long enough for a start on a slow machine.
PATIENT = "attach_timeout = 20"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launching")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Daemon]:
    others = {
        "two": (naughty(), f"max_agents = 2\n{PATIENT}"),
        "gated": (naughty("--gate", str(folder / "gate")), PATIENT),
        "http": (naughty(), PATIENT),
        "holding": (naughty("--post", "hold"), f"stopping_time = 3600\n{PATIENT}"),
        "dying": (naughty("--post", "die"), f"settle_time = 1\n{PATIENT}"),
        "example": (["python", "-m", "relay_examples.echo_bot", "--port", "{port}"], PATIENT),
    }
    with launching(folder, naughty(), PATIENT, others) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """The daemon of the module; each test leaves it without a bot and without a session."""
    yield shared
    wait_no_bots(shared)
    wait_until(lambda: rows(shared, "SELECT * FROM leases") == [], "no place is taken")
    assert not live(shared)


def call_bot(daemon: Daemon, agent: str = "bot") -> ClientConnection:
    """A call without a reservation."""
    return call(daemon, f"/ws/generic/{agent}.acme", token_for(f"{agent}.acme"))


# Calls.


def test_each_call_has_a_process_of_its_own(daemon: Daemon) -> None:
    pids = []
    for _ in range(2):
        assert bots_of(daemon, "bot") == {}
        with begin(daemon) as began:
            pids.append(pid_of(began.ws))
            assert list(bots_of(daemon, "bot")) == [pids[-1]]
            instance = daemon.session(began.id)["instance"]
            assert instances(daemon) == {instance: "ready"}
            assert instance == f"http://127.0.0.1:{environ_of(pids[-1])['PORT']}"
        assert daemon.wait_ended(began.id)["cause"] == "client_closed"
        wait_no_bots(daemon, "bot")
        assert daemon.session(began.id)["instance"] == instance
    assert pids[0] != pids[1]
    assert [line["pid"] for line in events(daemon, "bot_started")] == pids
    ready = [line["bot"] for line in events(daemon, "bot_ready")]
    wait_until(
        lambda: [line["bot"] for line in events(daemon, "bot_ended")] == ready, "both have ended"
    )
    wait_until(lambda: instances(daemon) == {}, "no instance is left")


def test_a_start_alone_starts_nothing(daemon: Daemon) -> None:
    started = daemon.start()
    assert started.status == 200
    assert instances(daemon) == {}
    stop(daemon, started.json()["sessionId"])


def test_the_example_bot(daemon: Daemon) -> None:
    """The README's command: `python` is the one that runs the daemon."""
    with begin(daemon, "example") as began:
        (pid,) = bots_of(daemon, "example")
        assert os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath("/proc/self/exe")
        assert echoes(began.ws, "Zoë")


def test_what_a_bot_finds_in_its_environment(daemon: Daemon) -> None:
    with begin(daemon) as began:
        environ = environ_of(pid_of(began.ws))
        assert environ["PORT"] in daemon.session(began.id)["instance"]
        assert environ[OWNER] == f"{daemon.folder}/bot"
        assert environ[MARK] == events(daemon, "bot_started")[-1]["bot"]
        assert environ["HOME"] == os.environ["HOME"]


def test_its_first_caller_is_not_its_only_chance(daemon: Daemon) -> None:
    """A caller who leaves while a bot starts leaves it to the next one."""
    gate = daemon.folder / "gate"
    with ThreadPoolExecutor() as pool:
        future = pool.submit(call_bot, daemon, "gated")
        (pid,) = wait_until(lambda: list(bots_of(daemon, "gated")), "a bot starts")
        (session,) = live(daemon)
        stop(daemon, session["sessionId"])
        assert future.exception(PATIENCE) is not None
        assert list(bots_of(daemon, "gated")) == [pid]
        gate.touch()
        with call_bot(daemon, "gated") as ws:
            assert pid_of(ws) == pid
    gate.unlink()


# Several at once.


def test_not_more_than_max_agents(daemon: Daemon) -> None:
    promised = [daemon.start("two").json() for _ in range(2)]
    full = daemon.start("two")
    assert full.status == 429
    assert int(full.headers["retry-after"]) >= 1
    assert full.json()["error"].startswith("PCC-AGENT-AT-CAPACITY")
    with ExitStack() as stack:
        calls = [
            stack.enter_context(call(daemon, "/ws/generic/two.acme", each["token"]))
            for each in promised
        ]
        assert {pid_of(ws) for ws in calls} == set(bots_of(daemon, "two"))
        assert daemon.start("two").status == 429
        calls[0].close()
        third = daemon.start_when_free("two")
        with call(daemon, "/ws/generic/two.acme", third["token"]) as ws:
            assert len(bots_of(daemon, "two")) == 2
            assert pid_of(ws) != pid_of(calls[1])


def test_callers_at_once_are_served_in_parallel(daemon: Daemon) -> None:
    gate = daemon.folder / "gate"
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        futures = [pool.submit(call_bot, daemon, "gated") for _ in range(3)]
        # None of them is ready yet, so that they do not start one after the other.
        wait_until(lambda: len(bots_of(daemon, "gated")) == 3, "three bots start")
        gate.touch()
        calls = [stack.enter_context(future.result(PATIENCE)) for future in futures]
        assert {pid_of(ws) for ws in calls} == set(bots_of(daemon, "gated"))
    gate.unlink()


def test_a_process_may_serve_one_after_the_other(tmp_path: Path) -> None:
    more = f"reuse_process = true\nmax_agents = 1\n{PATIENT}"
    with launching(tmp_path, naughty(), more) as daemon:
        pids = set()
        for _ in range(3):
            with begin(daemon) as began:
                pids.add(pid_of(began.ws))
                assert daemon.start().status == 429
            daemon.wait_ended(began.id)
        assert set(bots_of(daemon)) == pids
        assert len(pids) == 1
        nothing_is_held(daemon)


def test_a_process_may_serve_several(tmp_path: Path) -> None:
    """A third caller gets a second process; none is started before the first is full."""
    more = f"reuse_process = true\nsessions_per_instance = 2\nmax_agents = 2\n{PATIENT}"
    with launching(tmp_path, naughty(), more) as daemon:
        with ExitStack() as stack:
            calls = [stack.enter_context(begin(daemon)) for _ in range(2)]
            (first,) = bots_of(daemon)
            assert [pid_of(each.ws) for each in calls] == [first, first]
            calls += [stack.enter_context(begin(daemon)) for _ in range(2)]
            assert [pid_of(each.ws) != first for each in calls] == [False, False, True, True]
            assert len(bots_of(daemon)) == 2
            assert daemon.start().status == 429
        nothing_is_held(daemon)
        assert len(bots_of(daemon)) == 2


# Sessions over HTTP.


def test_a_bot_that_answers_its_request_at_once(daemon: Daemon) -> None:
    session = start_http(daemon, "http")
    record = daemon.wait_ended(session)
    assert (record["cause"], record["completionStatus"]) == ("bot_completed", "HTTP_COMPLETED")


def test_a_bot_that_does_not_hear_of_the_end_is_ended(daemon: Daemon) -> None:
    """A held request does not tell a bot that it was stopped; its process is ended at once."""
    session = start_http(daemon, "holding")
    wait_until(lambda: daemon.session(session)["state"] == "active", "it is active")
    (pid,) = bots_of(daemon, "holding")
    stop(daemon, session)
    assert daemon.wait_ended(session)["cause"] == "stopped"
    wait_until(lambda: environ_of(pid) == {}, "the process is gone")
    (line,) = wait_until(lambda: events(daemon, "bot_ended", "holding"), "its end is logged")
    assert line["status"] == -15


def test_a_bot_that_dies_with_its_request(daemon: Daemon) -> None:
    record = daemon.wait_ended(start_http(daemon, "dying"))
    assert (record["cause"], record["completionStatus"]) == ("bot_error", "HTTP_ERROR")
    (line,) = wait_until(lambda: events(daemon, "bot_lost", "dying"), "its end is logged")
    assert (line["reason"], line["sessions"]) == ("it exited with status 7", 1)
    # It had become ready: that is no failed start.
    assert daemon.start("dying").status == 200


# Deaths.


@pytest.mark.parametrize(
    ("command", "cause", "close"),
    [
        ("!exit 0", "bot_ended", (1000, "")),
        ("!exit 3", "bot_lost", (1011, "bot lost")),
        ("!kill", "bot_lost", (1011, "bot lost")),
    ],
)
def test_a_bot_that_leaves_its_call(
    daemon: Daemon, command: str, cause: str, close: tuple[int, str]
) -> None:
    """The same end of a connection; how the process ended tells one from the other."""
    with begin(daemon) as began:
        began.ws.send(command)
        assert close_seen(began.ws) == close
    assert daemon.wait_ended(began.id)["cause"] == cause
    with begin(daemon) as began:  # nothing holds the next one back
        assert echoes(began.ws)


# Secrets.


def test_secrets_are_kept_from_bots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration took from the environment is the daemon's; the rest is inherited."""
    monkeypatch.setenv("RELAY_TOKEN_SECRET", TOKEN_SECRET)
    monkeypatch.setenv("RELAY_TOKEN_OTHER", "for the bot")
    plain = f'secret = "{TOKEN_SECRET}"'
    config = launching_config(tmp_path, naughty(), PATIENT)
    assert plain in config
    config = config.replace(plain, 'secret_env = "RELAY_TOKEN_SECRET"')
    with serving(tmp_path, config) as daemon, begin(daemon) as began:
        environ = environ_of(pid_of(began.ws))
        assert environ["RELAY_TOKEN_OTHER"] == "for the bot"
        assert "RELAY_TOKEN_SECRET" not in environ
        assert TOKEN_SECRET not in "".join(environ.values())
