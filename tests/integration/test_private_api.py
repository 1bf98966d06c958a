"""The private API: agents and sessions for the holder of a private key, in both spellings."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.helpers.daemon import (
    NO_SESSION,
    PRIVATE_KEY,
    PUBLIC_KEY,
    Answer,
    Bot,
    Daemon,
    running_bot,
    wait_until,
)
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.shared import shared_daemon
from tests.helpers.wire import call, echoes, refused, serves, stop, token_for

OTHER_PRIVATE = "sk_other_0123456789abcdef"
MORE = """
[agents.many]
organization = "acme"
instances = ["{many}"]
sessions_per_instance = 1000
max_session_duration = 90
[agents.dead]
organization = "acme"
instances = ["http://127.0.0.1:9"]
[organizations.other]
private_keys = ["{key}"]
token_keys = [{{ id = "k9", secret = "another secret of at least thirty-two bytes" }}]
[agents.foreign]
organization = "other"
instances = ["http://127.0.0.1:10"]
"""
SPELLINGS = ("/v1/agents", "/v1/organizations/acme/services")
RECORD = {
    "sessionId", "serviceId", "organizationId", "deploymentId", "createdAt", "updatedAt",
    "endedAt", "botStartSeconds", "coldStart", "completionStatus", "endState", "events",
}  # fmt: skip


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot")) as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with scripted_bot() as many:
        agents, secrets = MORE.format(many=many.url, key=OTHER_PRIVATE), ("sk_other",)
        with shared_daemon(tmp_path_factory, [bot.url], agents, secrets=secrets) as daemon:
            yield daemon


def ask(daemon: Daemon, path: str, key: str = PRIVATE_KEY, method: str = "GET") -> Answer:
    return daemon.request(method, path, Authorization=f"Bearer {key}")


def got(daemon: Daemon, path: str) -> Any:
    answer = ask(daemon, path)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    return answer.json()


def page(daemon: Daemon, query: str, spelling: str = SPELLINGS[0]) -> tuple[list[str], int]:
    """The ids on a page of the agent `many`, and the total."""
    answer = got(daemon, f"{spelling}/many/sessions{query}")
    assert set(answer) == {"total_count", "sessions"}
    return [each["sessionId"] for each in answer["sessions"]], answer["total_count"]


def instances(daemon: Daemon) -> Any:
    return daemon.request("GET", "/readyz", admin=True).json()["instances"]


def codes(record: Any) -> list[str]:
    return [event["eventCode"] for event in record["events"]]


# --- agents ---


def test_the_organizations_of_a_key(daemon: Daemon) -> None:
    found = got(daemon, "/v1/organizations")
    assert found == {"organizations": [{"id": "acme", "name": "acme", "verboseName": "acme"}]}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_agents_of_an_organization(daemon: Daemon, spelling: str) -> None:
    services = got(daemon, f"{spelling}?include=git&region=us-west")["services"]
    assert [each["id"] for each in services] == ["bot.acme", "many.acme", "dead.acme"]
    assert [each["name"] for each in services] == ["bot", "many", "dead"]
    keys = {"name", "region", "id", "activeDeploymentId", "createdAt", "updatedAt"}
    assert all(keys <= set(each) for each in services)


def test_the_state_of_an_agent(daemon: Daemon, bot: Bot) -> None:
    serves(daemon)
    free = got(daemon, "/v1/agents/bot")
    assert (free["ready"], free["available"], free["activeSessionCount"]) == (True, True, 0)
    with call(daemon, token=token_for()) as ws:
        assert echoes(ws)
        # Its only instance says that it is not ready, being in use: the agent is none the less.
        wait_until(lambda: instances(daemon)["bot"][bot.url] != "ready", "the bot is found busy")
        busy = got(daemon, "/v1/agents/bot")
        assert busy == free | {"activeSessionCount": 1}
        assert got(daemon, f"{SPELLINGS[1]}/bot") == {"body": busy}
    many = got(daemon, "/v1/agents/many")
    assert many["autoScaling"] == {"minReplicas": 1, "maxReplicas": 1}
    assert many["deployment"]["manifest"]["spec"] == {"maxSessionDurationSeconds": 90}
    assert bot.url not in str(free)


def test_an_agent_without_a_ready_instance(daemon: Daemon) -> None:
    dead = got(daemon, "/v1/agents/dead")
    assert (dead["ready"], dead["available"]) == (False, False)
    assert [error["code"] for error in dead["errors"]] == ["PCC-1001"]


# --- sessions ---


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_life_of_a_session(daemon: Daemon, spelling: str) -> None:
    serves(daemon)
    begun = time.time()
    started = daemon.start_when_free()
    path = f"{spelling}/bot/sessions/{started['sessionId']}"
    reserved = got(daemon, path)
    assert set(reserved) == RECORD | {"resourceMetrics", "meetingIds"}
    assert (reserved["serviceId"], reserved["organizationId"]) == ("bot.acme", "acme")
    assert (reserved["endState"], codes(reserved)) == ("active", ["SESSION_START_INITIATED"])
    assert reserved["endedAt"] is reserved["botStartSeconds"] is reserved["coldStart"] is None
    with call(daemon, token=started["token"]) as ws:
        assert echoes(ws)
        live = got(daemon, path)
        assert codes(live) == ["SESSION_START_INITIATED", "REQUEST_ARRIVED_AT_BOT"]
        assert (live["botStartSeconds"], live["coldStart"]) == (0, False)
        assert (live["endState"], live["completionStatus"]) == ("active", None)
        (listed,) = got(daemon, f"{spelling}/bot/sessions?status=active")["sessions"]
        assert listed == {key: live[key] for key in RECORD}
    daemon.wait_ended(started["sessionId"])
    ended = got(daemon, path.replace(started["sessionId"], started["sessionId"].upper()))
    assert (ended["endState"], ended["completionStatus"]) == ("completed", "WS_CONNECTION_CLOSED")
    assert codes(ended)[-1] == "SESSION_COMPLETED"
    assert ended["createdAt"] == live["createdAt"] <= ended["endedAt"] == ended["updatedAt"]
    assert ended["createdAt"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun))


def test_pages_and_filters(daemon: Daemon) -> None:
    made = [daemon.start("many").json()["sessionId"] for _ in range(12)]
    newest = made[::-1]
    served = made[5]
    with call(daemon, "/ws/generic/many.acme", token_for("many.acme", session=served)) as ws:
        assert echoes(ws)
        stop(daemon, made[0])
    daemon.wait_ended(served)
    live = [each for each in newest if each not in (made[0], served)]
    assert page(daemon, "") == (newest[:10], 12)
    assert page(daemon, "", SPELLINGS[1]) == (newest, 12)
    assert page(daemon, "?limit=5&offset=10") == (newest[10:], 12)
    assert page(daemon, "?limit=0") == ([], 12)
    assert page(daemon, "?offset=12") == ([], 12)
    assert page(daemon, "?status=active&limit=1000") == (live, 10)
    assert page(daemon, "?status=ended") == ([served, made[0]], 2)
    assert page(daemon, "?status=all&limit=1&other=x") == (newest[:1], 12)
    assert page(daemon, "?endState=completed") == ([served], 1)
    assert page(daemon, "?endState=terminated&status=ended") == ([made[0]], 1)
    assert page(daemon, "?endState=active&status=active") == (live, 10)
    assert page(daemon, "?endState=agent%5ferror") == ([], 0)
    nothing = "?startType=all&startTimeMin=0&startTimeMax=0&deploymentId="
    assert page(daemon, nothing)[1] == 12
    now = int(time.time())
    assert page(daemon, f"?startTime={now - 3600}&endTime={now + 60}")[1] == 12
    assert page(daemon, f"?startTime={now + 60}") == page(daemon, "?endTime=0") == ([], 0)
    for each in live:
        stop(daemon, each)
    # Agents do not see each other's.
    assert not set(made) & {
        each["sessionId"] for each in got(daemon, "/v1/agents/bot/sessions")["sessions"]
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=1001", "limit must be a number from 0 to 1000"),
        ("limit=-1", "limit must be a number"),
        ("limit=", "limit must be a number"),
        ("limit=" + "9" * 5000, "limit must be a number"),
        ("limit=%D9%A1", "limit must be a number"),
        ("offset=1e3", "offset must be a number"),
        ("status=live", "status must be one of active, ended, all"),
        ("endState=gone", "endState must be one of active, agent_error"),
        ("endState=", "endState must be one of"),
        ("endState=completed&status=active", "endState=completed needs status=ended"),
        ("endState=active&status=ended", "endState=active needs status=active"),
        ("startTime=yesterday", "startTime must be a number"),
        ("endTime=1700000000000", "unix seconds"),
        ("deploymentId=x", "deploymentId is not offered here; use limit, offset, status"),
        ("startType=hot", "startType must be one of cold, warm, all"),
        ("startTimeMin=-1", "startTimeMin must be a number"),
        ("startTimeMax=1.5", "startTimeMax must be a number from 0 to 9999999999 (seconds)"),
        ("limit=1&limit=2", "limit must not be repeated"),
    ],
)
def test_filters_that_cannot_be(daemon: Daemon, query: str, expected: str) -> None:
    for spelling in SPELLINGS:
        answer = ask(daemon, f"{spelling}/bot/sessions?{query}")
        assert expected in refused(daemon, answer, 400, "bad_filter")["message"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_stopping(daemon: Daemon, spelling: str) -> None:
    serves(daemon)
    started = daemon.start_when_free()
    path = f"{spelling}/bot/sessions/{started['sessionId']}"
    with call(daemon, token=started["token"]) as ws:
        assert echoes(ws)
        answer = ask(daemon, path, method="DELETE")
        assert answer.json() == {"status": "terminated", "session_id": started["sessionId"]}
        assert answer.headers["x-daily-session-id"] == started["sessionId"]
        with pytest.raises(ConnectionClosed):
            ws.recv()
        assert (ws.close_code, ws.close_reason) == (1001, "stopped")
    daemon.wait_ended(started["sessionId"])
    assert got(daemon, path)["endState"] == "terminated"
    refused(daemon, ask(daemon, path, method="DELETE"), 404, "no_session")


# --- who may ---


BELOW = ["", "/bot", "/bot/sessions", f"/bot/sessions/{NO_SESSION}"]


@pytest.mark.parametrize(
    "path", ["/v1/organizations", *(spelling + rest for spelling in SPELLINGS for rest in BELOW)]
)
def test_only_a_private_key_of_the_organization_opens(daemon: Daemon, path: str) -> None:
    refused(daemon, ask(daemon, path, PUBLIC_KEY), 401, "bad_api_key")
    refused(daemon, ask(daemon, path, "sk_unknown"), 401, "bad_api_key")
    answer = daemon.request("GET", path)
    refused(daemon, answer, 401, "bad_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    if path not in ("/v1/organizations", "/v1/agents"):
        refused(daemon, ask(daemon, path, OTHER_PRIVATE), 401, "bad_api_key")
    else:
        assert "acme" not in ask(daemon, path, OTHER_PRIVATE).body.decode()


@pytest.mark.parametrize(
    ("path", "status", "cause"),
    [
        ("/v1/organizations/nobody/services", 404, "unknown_organization"),
        ("/v1/organizations/nobody/services/bot", 404, "unknown_organization"),
        ("/v1/organizations/other/services/foreign", 401, "bad_api_key"),
        ("/v1/organizations/acme/services/foreign", 404, "unknown_agent"),
        ("/v1/organizations/acme/services/nobody/sessions", 404, "unknown_agent"),
        ("/v1/agents/foreign", 401, "bad_api_key"),
        ("/v1/agents/nobody", 404, "unknown_agent"),
        ("/v1/agents/nobody/sessions", 404, "unknown_agent"),
        (f"/v1/agents/bot/sessions/{NO_SESSION}", 404, "no_session"),
        ("/v1/agents/bot/sessions/none", 400, "bad_session_id"),
        ("/v1/organizations/acme/services/bot/logs", 404, "no_such_path"),
    ],
)
def test_what_is_not_there(daemon: Daemon, path: str, status: int, cause: str) -> None:
    refused(daemon, ask(daemon, path), status, cause)


def test_a_session_is_its_agents(daemon: Daemon) -> None:
    session = daemon.start("many").json()["sessionId"]
    for method in ("GET", "DELETE"):
        for spelling in SPELLINGS:
            answer = ask(daemon, f"{spelling}/bot/sessions/{session}", method=method)
            refused(daemon, answer, 404, "no_session")
    assert got(daemon, f"/v1/agents/many/sessions/{session}")["endState"] == "active"
    stop(daemon, session)


def test_a_session_of_a_former_organization_is_nobodys(daemon: Daemon) -> None:
    """An agent that has moved takes its name with it, but not its old sessions."""
    session = daemon.start("many").json()["sessionId"]
    stop(daemon, session)
    assert page(daemon, "?limit=1")[0] == [session]
    with contextlib.closing(sqlite3.connect(daemon.folder / "relay.db", timeout=15)) as store:
        store.execute("UPDATE sessions SET organization = 'former' WHERE id = ?", (session,))
        store.commit()
    assert session not in page(daemon, "?limit=1000")[0]
    refused(daemon, ask(daemon, f"/v1/agents/many/sessions/{session}"), 404, "no_session")


def test_head_is_get_without_a_body(daemon: Daemon) -> None:
    answer = ask(daemon, "/v1/agents", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(ask(daemon, "/v1/agents").body)
