"""Instances that say that they are ready and do not take calls: others get the callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.helpers import scripted_bot as script
from tests.helpers.daemon import Daemon, wait_until
from tests.helpers.scripted_bot import ScriptedBot, scripted_bot
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import Wire, call, echoes, token_for, upgrade

ROUTE = "/ws/generic/{}.acme"
AGENTS = """
attach_timeout = 1
[agents.lonely]
organization = "acme"
instances = ["{lonely}"]
attach_timeout = 1
settle_time = 0
"""


@pytest.fixture(scope="module")
def bots() -> Iterator[dict[str, ScriptedBot]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(scripted_bot()) for name in ("bad", "good", "lonely")}


@pytest.fixture(scope="module")
def daemon(
    bots: dict[str, ScriptedBot], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    agents = AGENTS.format(lonely=bots["lonely"].url)
    urls = [bots["bad"].url, bots["good"].url]
    with shared_daemon(tmp_path_factory, urls, agents) as daemon:
        yield daemon


def shown(daemon: Daemon, bot: ScriptedBot, agent: str = "bot") -> Any:
    return daemon.request("GET", "/instances", admin=True).json()[agent][bot.url]


def until_ready(daemon: Daemon, *bots: ScriptedBot) -> None:
    for bot in bots:
        wait_until(lambda bot=bot: shown(daemon, bot)["state"] == "ready", "it is ready")


def status(daemon: Daemon, agent: str = "bot") -> int:
    """The answer to one caller: 101, or the refusal."""
    token = token_for(f"{agent}.acme")
    request = upgrade(ROUTE.format(agent), f"Authorization: Bearer {token}")
    with Wire(daemon.port) as wire:
        return wire.ask(request).status


def test_callers_are_not_sent_to_one_that_refuses_again_and_again(
    daemon: Daemon, bots: dict[str, ScriptedBot]
) -> None:
    bad, good = bots["bad"], bots["good"]
    until_ready(daemon, bad, good)
    bad.script = script.refuse("403 Forbidden", b"")
    seen = [status(daemon) for _ in range(12)]
    # the two take turns until the third refusal; the pause after it outlasts this test's calls
    assert seen.count(403) >= 3
    refusals = len(bad.conversations)
    line = wait_until(
        lambda: [each for each in daemon.logs() if each["event"] == "instance_aside"], "logged"
    )[0]
    assert (line["instance"], line["reason"], line["failures"]) == (bad.url, "refuses calls", 3)
    assert shown(daemon, good)["state"] == "ready"
    # it comes back by itself, is tried again, and set aside for longer
    wait_until(lambda: status(daemon) == 403, "it is tried again")
    assert len(bad.conversations) > refusals
    bad.script = script.accept()
    until_ready(daemon, bad)

    def both() -> bool:
        before = len(bad.conversations)
        assert [status(daemon), status(daemon)] == [101, 101]
        return len(bad.conversations) > before and shown(daemon, bad)["failures"] == 0

    wait_until(both, "it takes its turn, and is trusted again")


def test_one_that_breaks_off_is_set_aside_at_once(
    daemon: Daemon, bots: dict[str, ScriptedBot]
) -> None:
    bad, good = bots["bad"], bots["good"]
    until_ready(daemon, bad, good)
    wait_until(lambda: status(daemon) == 101 and not shown(daemon, bad)["failures"], "as new")
    bad.script = script.say(b"")
    wait_until(lambda: status(daemon) == 502, "it had its turn")
    assert shown(daemon, bad)["failures"] >= 1
    assert status(daemon) == 101
    bad.script = script.accept()
    until_ready(daemon, bad)


def test_where_there_is_no_other_bot_callers_hear_its_refusal(
    daemon: Daemon, bots: dict[str, ScriptedBot]
) -> None:
    """Not that there is none: it may be the callers who are at fault."""
    lonely = bots["lonely"]
    wait_until(lambda: shown(daemon, lonely, "lonely")["state"] == "ready", "it is ready")
    lonely.script = script.refuse("401 Unauthorized", b"who?")
    assert [status(daemon, "lonely") for _ in range(6)] == [401] * 6
    assert shown(daemon, lonely, "lonely")["state"] == "set aside: refuses calls"
    lonely.script = script.accept()
    with call(daemon, ROUTE.format("lonely"), token_for("lonely.acme")) as ws:
        assert echoes(ws)
    assert shown(daemon, lonely, "lonely")["state"] == "ready"


def test_one_that_hangs_costs_one_caller(daemon: Daemon, bots: dict[str, ScriptedBot]) -> None:
    bad, good = bots["bad"], bots["good"]
    until_ready(daemon, bad, good)
    bad.script = script.hang()
    seen = [status(daemon) for _ in range(6)]
    assert seen.count(503) == 1
    assert seen.count(101) == 5
    assert shown(daemon, bad)["state"] == "set aside: does not answer calls"
