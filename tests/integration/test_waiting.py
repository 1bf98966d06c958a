"""Callers in line for a busy instance: who is served, who leaves, who is turned away."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.helpers.daemon import Bot, Daemon, running_bot, running_daemon, wait_until
from tests.helpers.wire import (
    Wire,
    ask,
    call,
    echoes,
    exchange_line,
    keeps_secrets,
    live,
    masked,
    refused,
    serves,
    stop,
    token_for,
    upgrade,
)

BOT = "/ws/generic/bot.acme"
# `bot` holds a caller for as long as a test needs, `hasty` for a second.
AGENTS = """
attach_timeout = 30
[agents.hasty]
organization = "acme"
instances = ["{hasty}"]
attach_timeout = 1
settle_time = 0.05
[agents.open]
organization = "acme"
websocket_auth = "none"
instances = ["{open}"]
settle_time = 0.05
"""


@pytest.fixture(scope="module")
def bots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bot]]:
    folder = tmp_path_factory.mktemp("bots")
    with (
        running_bot(folder, "bot") as bot,
        running_bot(folder, "hasty") as hasty,
        running_bot(folder, "open") as open_bot,
    ):
        yield {"bot": bot, "hasty": hasty, "open": open_bot}


@pytest.fixture(scope="module")
def daemon(bots: dict[str, Bot], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    agents = AGENTS.format(hasty=bots["hasty"].url, open=bots["open"].url)
    with running_daemon(folder, [bots["bot"].url], agents, "max_waiting = 2") as daemon:
        yield daemon


class Waiter:
    """A caller who has sent an upgrade and stands in line."""

    def __init__(self, daemon: Daemon, agent: str = "bot") -> None:
        self.session, self.name = str(uuid.uuid4()), str(uuid.uuid4())
        self.token = token_for(f"{agent}.acme", session=self.session)
        self.daemon = daemon
        self.wire = Wire(daemon.port)
        fields = f"Authorization: Bearer {self.token}", f"X-Request-Id: {self.name}"
        self.wire.send(upgrade(f"/ws/generic/{agent}.acme", *fields))
        wait_until(lambda: self.state() == "waiting", "the caller is in line")

    def state(self) -> str | None:
        state: str | None = self.daemon.session(self.session).get("state")
        return state

    def leave(self) -> dict[str, Any]:
        """Hang up; the exchange's log line."""
        self.wire.close()
        return exchange_line(self.daemon, self.name)

    def served(self) -> None:
        """The 101 comes, the call works and ends."""
        assert self.wire.answer().status == 101
        self.wire.send(masked("hello"))
        assert self.wire.file.read(7) == b"\x81\x05hello"
        self.wire.close()
        assert self.daemon.wait_ended(self.session)["cause"] == "client_gone"
        keeps_secrets(self.daemon, self.token)


def test_callers_are_served_in_turn_when_the_instance_is_free_again(daemon: Daemon) -> None:
    with call(daemon, BOT, token_for()) as holder:
        assert echoes(holder)
        first, second = Waiter(daemon), Waiter(daemon)
        first.wire.send(masked("early"))
        assert echoes(holder)
    assert first.wire.answer().status == 101
    assert first.wire.file.read(7) == b"\x81\x05early"
    assert second.state() == "waiting"
    first.wire.close()
    second.served()
    waited = exchange_line(daemon, second.name)
    assert waited["resolve_ms"] > exchange_line(daemon, first.name)["resolve_ms"] > 0


def test_who_waits_in_vain_is_503_and_may_come_again(daemon: Daemon) -> None:
    with call(daemon, "/ws/generic/hasty.acme", token_for("hasty.acme")) as holder:
        assert echoes(holder)
        waiter = Waiter(daemon, "hasty")
        answer = waiter.wire.answer()
        error = refused(daemon, answer, 503, "at_capacity")
        assert error["error"].startswith("PCC-AGENT-AT-CAPACITY")
        assert (error["code"], error["phase"]) == ("503", "resolve")
        assert int(answer.headers["retry-after"]) >= 1
        assert waiter.state() == "reserved"
        assert exchange_line(daemon, waiter.name)["resolve_ms"] > 950
        assert echoes(holder)
    with call(daemon, "/ws/generic/hasty.acme", waiter.token) as ws:
        assert echoes(ws)
    waiter.wire.close()


def test_the_place_in_line_of_one_who_leaves_is_free_at_once(daemon: Daemon) -> None:
    with call(daemon, BOT, token_for()) as holder:
        assert echoes(holder)
        first, second = Waiter(daemon), Waiter(daemon)
        line = first.leave()
        assert (line["cause"], line["phase"]) == ("client_left", "relay")
        assert "status" not in line
        assert first.state() == "reserved"  # with its token it may come again
        third = Waiter(daemon)  # the line has two places
    second.served()
    third.served()
    with call(daemon, BOT, first.token) as again:
        assert echoes(again)


def test_a_half_closed_connection_has_left(daemon: Daemon) -> None:
    with call(daemon, BOT, token_for()) as holder:
        assert echoes(holder)
        waiter = Waiter(daemon)
        waiter.wire.sock.shutdown(1)
        assert exchange_line(daemon, waiter.name)["cause"] == "client_left"
        assert waiter.wire.rest() == b""
        waiter.wire.close()


def test_without_a_token_one_who_leaves_has_had_a_session(daemon: Daemon) -> None:
    with call(daemon, "/ws/generic/open.acme") as holder:
        assert echoes(holder)
        with Wire(daemon.port) as wire:
            wire.send(upgrade("/ws/generic/open.acme"))
            waiting = wait_until(
                lambda: [each for each in live(daemon) if each["state"] == "waiting"],
                "the caller is in line",
            )
        record = daemon.wait_ended(waiting[0]["sessionId"])
        assert (record["cause"], record["endState"]) == ("client_left", "ended_before_agent_start")
        assert record["startedAt"] is None


def test_a_full_line_is_429_at_once(daemon: Daemon) -> None:
    with call(daemon, BOT, token_for()) as holder:
        assert echoes(holder)
        first, second = Waiter(daemon), Waiter(daemon)
        token = token_for()
        answer = ask(daemon, upgrade(BOT, f"Authorization: Bearer {token}"))
        error = refused(daemon, answer, 429, "at_capacity")
        assert error["error"].startswith("PCC-AGENT-AT-CAPACITY")
        assert int(answer.headers["retry-after"]) >= 1
        first.leave()
        second.leave()
    with call(daemon, BOT, token) as ws:
        assert echoes(ws)


def test_a_session_that_waits_can_be_stopped(daemon: Daemon) -> None:
    with call(daemon, BOT, token_for()) as holder:
        assert echoes(holder)
        waiter = Waiter(daemon)
        stop(daemon, waiter.session)
        refused(daemon, waiter.wire.answer(), 403, "session_stopped")
        record = daemon.wait_ended(waiter.session)
        assert (record["cause"], record["endState"]) == ("stopped", "terminated")
        waiter.wire.close()
        answer = ask(daemon, upgrade(f"{BOT}?token={waiter.token}"))
        assert answer.status == 403


def test_a_store_that_fails_meanwhile_is_503(daemon: Daemon) -> None:
    with call(daemon, BOT, token_for()) as holder:
        assert echoes(holder)
        waiter = Waiter(daemon)
        with closing(sqlite3.connect(daemon.folder / "relay.db", isolation_level=None)) as other:
            other.execute("ALTER TABLE leases RENAME TO elsewhere")
            answer = waiter.wire.answer()
            other.execute("ALTER TABLE elsewhere RENAME TO leases")
        refused(daemon, answer, 503, "store_failed")
        assert int(answer.headers["retry-after"]) >= 1
        wait_until(lambda: waiter.state() == "reserved", "the token is given back")
        assert echoes(holder)
    with call(daemon, BOT, waiter.token) as ws:
        assert echoes(ws)
    waiter.wire.close()


def test_after_all_of_this_calls_go_through(daemon: Daemon, bots: dict[str, Bot]) -> None:
    wait_until(lambda: not live(daemon), "every session has ended")
    for agent in ("bot", "hasty", "open"):
        assert bots[agent].get("/status")["sessions"] == []
        serves(daemon, agent)
