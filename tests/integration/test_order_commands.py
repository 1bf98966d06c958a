"""`relay drain` and `relay reload` against a running daemon: what they print, and how they exit."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.cli import main
from tests.helpers.daemon import Daemon, running_daemon
from tests.helpers.ends import Ends, begin
from tests.helpers.reloads import as_before, drain
from tests.helpers.scripted_bot import scripted_bot

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with scripted_bot() as bot:
        bot.script = Ends()
        with running_daemon(tmp_path_factory.mktemp("relay"), [bot.url]) as daemon:
            daemon.extra["bot"] = bot.url
            yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    with as_before(shared):
        yield shared


def run(daemon: Daemon, *words: str) -> int:
    return main([*words, "--admin", f"http://127.0.0.1:{daemon.admin_port}"])


def test_drain_says_what_drains(daemon: Daemon, capsys: Captured) -> None:
    url = daemon.extra["bot"]
    steps = [
        (("--agent", "bot"), ["draining: agent bot"]),
        (("--instance", url), ["draining: agent bot", f"draining: instance {url}"]),
        ((), ["draining: this node", "draining: agent bot", f"draining: instance {url}"]),
        (("--agent", "bot", "--off"), ["draining: this node", f"draining: instance {url}"]),
        (("--off",), [f"draining: instance {url}"]),
        (("--instance", url, "--off"), ["nothing drains"]),
    ]
    for words, lines in steps:
        assert run(daemon, "drain", *words) == 0
        assert capsys.readouterr() == ("\n".join(lines) + "\n", "")
    assert run(daemon, "drain", "--off", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"node": False, "agents": [], "instances": [], "kept": True}


@pytest.mark.parametrize("what", ["node", "agent", "instance"])
def test_drain_waits_for_the_last_call(daemon: Daemon, capsys: Captured, what: str) -> None:
    words = {"node": [], "agent": ["--agent", "bot"], "instance": ["--instance", ""]}[what]
    words = [word or daemon.extra["bot"] for word in words]
    began = begin(daemon)
    assert run(daemon, "drain", *words, "--wait", "0") == 1
    out, err = capsys.readouterr()
    assert out.endswith("\n1 left\n")
    assert err == "relay: 1 left after 0 seconds\n"
    done: list[int] = []
    waiting = threading.Thread(target=lambda: done.append(run(daemon, "drain", *words, "--wait")))
    waiting.start()
    began.ws.close()
    waiting.join()
    assert done == [0]
    assert capsys.readouterr().out.endswith("\n0 left\n")


def test_drain_of_what_is_not_there(daemon: Daemon, capsys: Captured) -> None:
    assert run(daemon, "drain", "--agent", "nobody") == 1
    assert capsys.readouterr() == ("", "relay: no agent has this name\n")
    assert run(daemon, "drain", "--instance", "nowhere") == 1
    assert "nowhere is not of the form http://host:port" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--agent", "a", "--instance", "b"],
        ["--off", "--wait"],
        ["--wait", "soon"],
        ["--wait", "-1"],
        ["--wait", "nan"],
    ],
)
def test_drains_that_mean_nothing(daemon: Daemon, words: list[str]) -> None:
    assert run(daemon, "drain", *words) == 2
    assert daemon.request("GET", "/drain", admin=True).json()["node"] is False


def test_a_drain_that_cannot_be_kept_says_so(daemon: Daemon, capsys: Captured) -> None:
    blocker = daemon.folder / "run" / "drains.new"
    blocker.mkdir()
    try:
        assert run(daemon, "drain") == 0
        out, err = capsys.readouterr()
        assert out == "draining: this node\n"
        assert err == "relay: this could not be written down: a restart forgets it\n"
    finally:
        blocker.rmdir()
    assert drain(daemon, on=False, node=True)["kept"]


def test_reload_says_what_changes(daemon: Daemon, capsys: Captured) -> None:
    assert run(daemon, "reload") == 0
    assert capsys.readouterr().out == "nothing has changed\n"
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("[limits]", "[limits]\nmax_waiting = 9"))
    assert run(daemon, "reload") == 0
    assert capsys.readouterr().out == "changed: limits.max_waiting\n"
    daemon.config.write_text(text)
    assert run(daemon, "reload", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"changed": ["limits.max_waiting"]}


def test_a_refused_reload_says_what_check_says(daemon: Daemon, capsys: Captured) -> None:
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("[limits]", "[limits]\nx = 1\ny = 2"))
    try:
        assert main(["check", "--config", str(daemon.config)]) == 2
        checked = capsys.readouterr().err
        assert run(daemon, "reload") == 2
        assert capsys.readouterr().err == checked
        assert checked.count("\n") == 2
    finally:
        daemon.config.write_text(text)


def test_nobody_is_there(tmp_path: Path, capsys: Captured) -> None:
    for command in ("drain", "reload"):
        assert main([command, "--admin", f"unix:{tmp_path}/admin"]) == 1
        assert "no daemon answers at" in capsys.readouterr().err
