"""Webhooks of a real daemon: told of every call, also when the daemon dies in between."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.daemon import (
    PRIVATE_KEY,
    Daemon,
    config_text,
    end_all,
    end_pumps,
    running_bot,
    start_daemon,
    wait_until,
)
from tests.helpers.ends import is_quiet, kill_control, restart
from tests.helpers.receiver import Receiver, Told, receiving
from tests.helpers.wire import call, echoes

SECRET = bytes(range(100, 132))
TEXT = f"whsec_{base64.b64encode(SECRET).decode()}"


def config(bot: str, url: str) -> str:
    """The webhook's keys stand with those of the organization."""
    hook = f'webhook_url = "{url}"\nwebhook_secret = "{TEXT}"\n'
    return config_text([bot], "sessions_per_instance = 2").replace(
        "[agents.bot]", f"{hook}[agents.bot]"
    )


@contextmanager
def telling(folder: Path, url: str) -> Iterator[Daemon]:
    """A daemon with a bot that tells this receiver; whatever became of it is ended."""
    with running_bot(folder, sessions=2) as bot:
        daemon = start_daemon(folder, config(bot.url, url))
        try:
            yield daemon
        finally:
            end_all(daemon)


def a_call(daemon: Daemon) -> str:
    started = daemon.start_when_free()
    with call(daemon, "/ws/generic/bot.acme", started["token"]) as ws:
        assert echoes(ws)
    daemon.wait_ended(started["sessionId"])
    return str(started["sessionId"])


def is_signed(told: Told) -> bool:
    signed = b".".join((told.id.encode(), told.fields["webhook-timestamp"].encode(), told.body))
    digest = hmac.new(SECRET, signed, hashlib.sha256).digest()
    return told.fields["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def delivered(receiver: Receiver, session: str) -> list[Told]:
    return [each for each in receiver.told if each.json()["data"]["sessionId"] == session]


def metric(daemon: Daemon, line: str) -> bool:
    return line in daemon.request("GET", "/metrics", admin=True).body.decode().splitlines()


def test_a_call_is_told_signed_and_again_after_failures(tmp_path: Path) -> None:
    with receiving(500) as receiver, telling(tmp_path, receiver.url) as daemon:
        session = a_call(daemon)
        wait_until(lambda: len(receiver.told) == 3, "two events, one of them twice")
        assert all(map(is_signed, receiver.told))
        told = {each.id: each.json() for each in delivered(receiver, session)}
        assert set(told) == {f"msg_{session}_started", f"msg_{session}_ended"}
        # What the private API says of it is what was told.
        shown = daemon.request(
            "GET", "/v1/agents/bot/sessions", Authorization=f"Bearer {PRIVATE_KEY}"
        ).json()
        assert told[f"msg_{session}_ended"]["data"] in shown["sessions"]
        ended = 'relay_webhooks_total{event="session.ended",outcome="delivered"} 1.0'
        wait_until(lambda: metric(daemon, ended), "the delivery in the metrics")
        nothing = 'relay_webhooks_waiting{organization="acme"} 0.0'
        wait_until(lambda: metric(daemon, nothing), "nothing waits")
        assert "webhook_back" in {line["event"] for line in daemon.logs()}
        text = daemon.request("GET", "/config", admin=True).body.decode()
        assert 'webhook_url = "http://127.0.0.1:' in text
        for secret in (TEXT, "key=1"):
            assert secret not in text + daemon.process.errors()
        is_quiet(daemon)


def test_neither_calls_nor_the_end_wait_for_a_receiver_that_hangs(tmp_path: Path) -> None:
    with receiving(*["slow"] * 20) as receiver, telling(tmp_path, receiver.url) as daemon:
        for _ in range(3):
            a_call(daemon)
        # All that while the first events had no answer.
        wait_until(lambda: receiver.told, "the first event")
        assert "webhook_failed" not in {line["event"] for line in daemon.logs()}
        assert daemon.process.end() == 0
        is_quiet(daemon)


def test_nothing_is_lost_when_the_daemon_is_killed(tmp_path: Path) -> None:
    # The receiver hangs, so the daemon dies while it waits for the answer.
    with receiving("slow", "slow") as receiver, telling(tmp_path, receiver.url) as daemon:
        over = a_call(daemon)
        wait_until(lambda: receiver.told, "an attempt")
        first = receiver.told[0]
        live_one = daemon.start_when_free()
        with call(daemon, "/ws/generic/bot.acme", live_one["token"]) as ws:
            assert echoes(ws)
            kill_control(daemon)
            end_pumps(daemon)
        receiver.answers.clear()
        again = restart(daemon)
        try:
            lost = f"msg_{live_one['sessionId']}_ended"
            awaited = {f"msg_{over}_started", f"msg_{over}_ended", lost}
            wait_until(lambda: awaited <= set(receiver.ids()[1:]), "what had not been told")
            nothing = 'relay_webhooks_waiting{organization="acme"} 0.0'
            wait_until(lambda: metric(again, nothing), "nothing waits")
            bodies = [each.body for each in receiver.told if each.id == first.id]
            assert bodies == [first.body, first.body]
            (end,) = (each.json() for each in receiver.told if each.id == lost)
            assert end["data"]["endState"] == "unknown"
        finally:
            again.process.end()
