"""Status, metrics, configuration and console of a daemon that carries calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.ops.metrics import FAMILIES
from tests.helpers.daemon import (
    PRIVATE_KEY,
    PUBLIC_KEY,
    TOKEN_SECRET,
    Answer,
    Bot,
    Daemon,
    running_bot,
    running_daemon,
    wait_until,
)
from tests.helpers.wire import ask, call, echoes, refused, request, token_for

FRAMES = """
[agents.messages]
organization = "acme"
instances = ["{bot}"]
relay = "frames"
"""
# One line of the log for each would say nothing but that somebody looks.
POLLED = ("/status", "/metrics", "/console/", "/console/console.js")


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot"), sessions=10) as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    with (
        running_bot(tmp_path_factory.mktemp("frames"), "frames") as other,
        running_daemon(folder, [bot.url], FRAMES.format(bot=other.url)) as daemon,
    ):
        yield daemon


def look(daemon: Daemon, path: str, *fields: str) -> Answer:
    return ask(daemon, request("GET", path, *fields), admin=True)


def status(daemon: Daemon) -> Any:
    answer = look(daemon, "/status")
    assert answer.status == 200
    return answer.json()


def samples(daemon: Daemon) -> dict[str, float]:
    """Every sample by its name and sorted labels."""
    answer = look(daemon, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("host", ["bot.acme", "messages.acme"])
def test_a_live_call_is_shown_while_it_runs(daemon: Daemon, host: str) -> None:
    with call(daemon, f"/ws/generic/{host}", token_for(host)) as ws:
        assert echoes(ws)
        session = ws.response.headers["x-daily-session-id"]

        def shown() -> Any:
            calls = status(daemon)["calls"]
            return next((each for each in calls if each["sessionId"] == session), None)

        first = wait_until(shown, "the call")
        assert first["agent"] == host.partition(".")[0]
        assert first["instance"].startswith("http://127.0.0.1:")
        assert first["client"]["messages"] >= 1
        assert first["bot"]["bytes"] >= first["bot"]["messages"] >= 1
        assert echoes(ws)
        more = first["client"]["messages"] + 1
        wait_until(lambda: shown()["client"]["messages"] >= more, "the next message")
    daemon.wait_ended(session)
    after = status(daemon)
    assert session not in [each["sessionId"] for each in after["calls"]]
    (end,) = [each for each in after["ends"] if each["sessionId"] == session]
    assert (end["cause"], end["endState"]) == ("client_closed", "completed")


def test_parts_of_the_status(daemon: Daemon) -> None:
    whole = status(daemon)
    for part in ("agents", "instances", "pumps", "queue", "calls", "ends", "refusals"):
        assert set(look(daemon, f"/status/{part}").json()) == {part}
    assert [agent["name"] for agent in whole["agents"]] == ["bot", "messages"]
    assert [pump["state"] for pump in whole["pumps"]] == ["ready"]
    refused(daemon, look(daemon, "/status/nothing"), 404, "no_such_part")


def test_refusals_are_counted(daemon: Daemon) -> None:
    def count() -> int:
        found = status(daemon)["refusals"]
        return sum(each["count"] for each in found if each["cause"] == "token_missing")

    before = count()
    with pytest.raises(Exception, match="403"):
        call(daemon, "/ws/generic/bot.acme")
    assert count() == before + 1
    name = 'relay_refusals_total{"cause": "token_missing", "phase": "authenticate"}'
    assert samples(daemon)[name] == before + 1


def test_a_scrape_has_documented_metrics_only(daemon: Daemon) -> None:
    with call(daemon, "/ws/generic/bot.acme", token_for()) as ws:
        assert echoes(ws)
        name = 'relay_call_messages_total{"pump": "0", "source": "client"}'
        wait_until(lambda: samples(daemon).get(name, 0) >= 1, "the message in the metrics")
        found = samples(daemon)
        assert found['relay_sessions{"agent": "bot", "state": "active"}'] == 1
        assert found["relay_calls{}"] == 1
    bases = {re.sub(r"_(bucket|sum|count)$", "", name.partition("{")[0]) for name in found}
    assert bases <= set(FAMILIES)


def test_the_configuration_in_force_without_its_secrets(daemon: Daemon) -> None:
    text = look(daemon, "/config").body.decode()
    assert "[agents.messages]" in text
    for secret in (PUBLIC_KEY, PRIVATE_KEY, TOKEN_SECRET):
        assert secret not in text


def test_the_console_is_one_page_of_its_own_files(daemon: Daemon) -> None:
    moved = look(daemon, "/")
    assert (moved.status, moved.headers["location"]) == (302, "/console/")
    page = look(daemon, "/console/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    assert "https://" not in text
    assert "http://" not in text
    files = re.findall(r'(?:src|href)="([^"#:]+)"', text)
    assert {file.rpartition(".")[2] for file in files} >= {"css", "js"}
    for file in files:
        answer = look(daemon, f"/console/{file}")
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert b"//" not in re.sub(rb'"http://www.w3.org/2000/svg"|// .*', b"", answer.body)
    refused(daemon, look(daemon, "/console/other.js"), 404, "no_such_path")


@pytest.mark.parametrize("path", ["/status", "/sessions", "/config"])
def test_a_page_under_another_name_is_not_answered(daemon: Daemon, path: str) -> None:
    rebound = b"GET %s HTTP/1.1\r\nHost: evil.example:8081\r\n\r\n" % path.encode()
    refused(daemon, ask(daemon, rebound, admin=True), 403, "admin_host")
    for host in (b"127.0.0.1:8081", b"[::1]:8081", b"localhost", b"10.1.2.3"):
        fine = b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (path.encode(), host)
        assert ask(daemon, fine, admin=True).status == 200


@pytest.mark.parametrize("path", POLLED)
def test_looking_is_not_logged(daemon: Daemon, path: str) -> None:
    answer = look(daemon, path)
    assert answer.status == 200
    look(daemon, "/livez")  # logged, and after the other
    told = [line.get("request_id") for line in daemon.logs()]
    assert answer.headers["x-request-id"] not in told
