"""The administration: health, the list of sessions, one session, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
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
from tests.helpers.wire import (
    Wire,
    ask,
    call,
    echoes,
    live,
    refused,
    request,
    serves,
    stop,
    token_for,
    upgrade,
)

AGENTS = """
[agents.other]
organization = "acme"
instances = ["{other}"]
sessions_per_instance = 1000
"""
RECORD = {
    "sessionId", "agent", "organization", "state", "transport", "node", "instance", "createdAt",
    "admittedAt", "startedAt", "endedAt", "queuedSeconds", "botStartSeconds", "coldStart",
    "durationSeconds", "cause", "endState", "completionStatus",
    "closeCode", "closeReason", "figures",
}  # fmt: skip


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with running_bot(tmp_path_factory.mktemp("bot")) as bot:
        yield bot


@pytest.fixture(scope="module")
def daemon(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with scripted_bot() as other:
        agents = AGENTS.format(other=other.url)
        with shared_daemon(tmp_path_factory, [bot.url], agents) as daemon:
            yield daemon


def admin(daemon: Daemon, method: str, path: str, *fields: str) -> Answer:
    with Wire(daemon.admin_port) as wire:
        return wire.ask(request(method, path, *fields))


def sessions(daemon: Daemon, query: str = "") -> Any:
    answer = admin(daemon, "GET", f"/sessions{query}")
    assert answer.status == 200
    return answer.json()


def ids(daemon: Daemon, query: str) -> list[str]:
    return [record["sessionId"] for record in sessions(daemon, query)["sessions"]]


# --- health ---


def test_health(daemon: Daemon, bot: Bot) -> None:
    assert admin(daemon, "GET", "/livez").json() == {"status": "ok"}
    answer = wait_until(
        lambda: (found := admin(daemon, "GET", "/readyz")).status == 200 and found, "ready"
    ).json()
    assert (answer["status"], answer["reasons"]) == ("ok", [])
    assert set(answer["instances"]) == {"bot", "other"}
    assert bot.url in answer["instances"]["bot"]


@pytest.mark.parametrize(
    ("method", "path", "status", "cause", "allow"),
    [
        ("POST", "/livez", 405, "method_not_allowed", "GET, HEAD"),
        ("DELETE", "/readyz", 405, "method_not_allowed", "GET, HEAD"),
        ("DELETE", "/sessions", 405, "method_not_allowed", "GET, HEAD"),
        ("PUT", f"/sessions/{NO_SESSION}", 405, "method_not_allowed", "GET, HEAD, DELETE"),
        ("GET", "/nothing", 404, "no_such_path", None),
        ("GET", "/livez/", 404, "no_such_path", None),
        ("GET", "/sessions/", 404, "no_such_path", None),
        ("GET", f"/sessions/{NO_SESSION}/x", 404, "no_such_path", None),
    ],
)
def test_other_paths_and_methods(
    daemon: Daemon, method: str, path: str, status: int, cause: str, allow: str | None
) -> None:
    answer = admin(daemon, method, path)
    refused(daemon, answer, status, cause)
    assert answer.headers.get("allow") == allow


# --- sessions ---


def test_filters_choose_and_page_newest_first(daemon: Daemon) -> None:
    made = [daemon.start("other").json()["sessionId"] for _ in range(3)]
    with call(daemon, "/ws/generic/other.acme", token_for("other.acme", session=made[1])) as ws:
        assert echoes(ws)
        stop(daemon, made[0])
        assert ids(daemon, "?agent=other") == made[::-1]
        assert ids(daemon, "?agent=other&state=all&limit=2") == [made[2], made[1]]
        assert ids(daemon, "?limit=1&offset=2&agent=other") == [made[0]]
        assert ids(daemon, "?agent=other&limit=0") == []
        assert ids(daemon, "?agent=other&offset=3") == []
        assert sessions(daemon, "?agent=other&limit=1")["total"] == 3
        for state, which in (("reserved", 2), ("active", 1), ("ended", 0)):
            assert ids(daemon, f"?agent=other&state={state}") == [made[which]]
        assert ids(daemon, "?agent=other&state=liv%65") == [made[2], made[1]]
        assert ids(daemon, "?agent=other&state=waiting") == []
        assert ids(daemon, "?agent=nobody") == []
    daemon.wait_ended(made[1])
    stop(daemon, made[2])


@pytest.mark.parametrize(
    "query",
    [
        "state=gone",
        "state=",
        "state=Live",
        "state=%FF",
        "limit=1001",
        "limit=-1",
        "limit=ten",
        "limit=1.0",
        "limit=",
        "limit=%D9%A3",
        "limit=" + "1" * 5000,
        "offset=10000000000",
        "offset=x",
    ],
)
def test_bad_filters_are_400(daemon: Daemon, query: str) -> None:
    error = refused(daemon, admin(daemon, "GET", f"/sessions?{query}"), 400, "bad_filter")
    assert query.partition("=")[0] in error["error"]


def test_a_record_tells_the_whole_life(daemon: Daemon) -> None:
    before = datetime.now(UTC)
    session = daemon.start_when_free()["sessionId"]
    record = daemon.session(session)
    assert set(record) == RECORD
    expected = {"sessionId": session, "agent": "bot", "organization": "acme", "state": "reserved"}
    expected |= {"transport": "websocket", "endState": "active"}
    assert record.items() >= expected.items()
    assert record["startedAt"] is record["endedAt"] is record["cause"] is None
    with call(daemon, "/ws/generic/bot.acme", token_for(session=session)) as ws:
        assert echoes(ws)
        record = daemon.session(session.upper())
        assert record["state"] == "active"
        assert record["instance"].startswith("http://127.0.0.1:")
    record = daemon.wait_ended(session)
    expected = {"cause": "client_closed", "closeCode": 1000, "endState": "completed"}
    assert record.items() >= (expected | {"completionStatus": "WS_CONNECTION_CLOSED"}).items()
    told = (record[f"{name}At"] for name in ("created", "started", "ended"))
    moments = [before.replace(microsecond=0), *map(datetime.fromisoformat, told)]
    assert moments == sorted(moments)
    lasted = (moments[3] - moments[2]).total_seconds()
    assert record["durationSeconds"] == pytest.approx(lasted, abs=0.01)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_sessions_are_404_and_no_uuids_400(daemon: Daemon, method: str) -> None:
    private = f"Bearer {PRIVATE_KEY}"
    for session, status, cause in (
        (NO_SESSION, 404, "no_session"),
        ("5", 400, "bad_session_id"),
        (NO_SESSION[:-1], 400, "bad_session_id"),
        (NO_SESSION.replace("-", ""), 400, "bad_session_id"),
        ("%7B" + NO_SESSION + "%7D", 400, "bad_session_id"),
    ):
        refused(daemon, admin(daemon, method, f"/sessions/{session}"), status, cause)
        path = f"/v1/agents/bot/sessions/{session}"
        if method == "DELETE":
            answer = daemon.request(method, path, Authorization=private)
            refused(daemon, answer, status, cause)


# --- stopping ---


def terminated(answer: Answer, session: str) -> None:
    assert answer.status == 200
    assert answer.json() == {"status": "terminated", "session_id": session}


@pytest.mark.parametrize("private", [False, True])
def test_stopping_a_call_closes_it_and_frees_the_bot(
    daemon: Daemon, bot: Bot, private: bool
) -> None:
    started = daemon.start_when_free()
    session = started["sessionId"]
    with call(daemon, "/ws/generic/bot.acme", started["token"]) as ws:
        assert echoes(ws)
        if private:
            path = f"/v1/agents/bot/sessions/{session.upper()}"
            answer = daemon.request("DELETE", path, Authorization=f"Bearer {PRIVATE_KEY}")
        else:
            answer = admin(daemon, "DELETE", f"/sessions/{session}")
        terminated(answer, session)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "stopped")
    record = daemon.wait_ended(session)
    assert (record["cause"], record["endState"]) == ("stopped", "terminated")
    refused(daemon, admin(daemon, "DELETE", f"/sessions/{session}"), 404, "no_session")
    wait_until(lambda: bot.get("/status")["sessions"] == [], "the bot is idle")


def test_stopping_a_reservation_gives_its_place_up_and_its_token_is_worth_nothing(
    daemon: Daemon,
) -> None:
    started = daemon.start_when_free()
    assert daemon.start().status == 429
    terminated(admin(daemon, "DELETE", f"/sessions/{started['sessionId']}"), started["sessionId"])
    assert daemon.wait_ended(started["sessionId"])["cause"] == "stopped"
    again = daemon.start()
    assert again.status == 200
    stop(daemon, again.json()["sessionId"])
    answer = ask(daemon, upgrade(f"/ws/generic/bot.acme/{started['token']}"))
    refused(daemon, answer, 403, "session_over")


def test_the_private_route_asks_for_the_agents_private_key(daemon: Daemon) -> None:
    started = daemon.start_when_free()
    session = started["sessionId"]
    for agent, key, status, cause in (
        ("bot", PUBLIC_KEY, 401, "bad_api_key"),
        ("bot", "sk_wrong_0123456789abcdef", 401, "bad_api_key"),
        ("nobody", PRIVATE_KEY, 404, "unknown_agent"),
        ("other", PRIVATE_KEY, 404, "no_session"),
    ):
        path = f"/v1/agents/{agent}/sessions/{session}"
        answer = daemon.request("DELETE", path, Authorization=f"Bearer {key}")
        refused(daemon, answer, status, cause)
    assert daemon.session(session)["state"] == "reserved"
    stop(daemon, session)


def test_after_all_of_this_a_call_goes_through(daemon: Daemon, bot: Bot) -> None:
    wait_until(lambda: not live(daemon), "every session has ended")
    assert bot.get("/status")["sessions"] == []
    serves(daemon)
    serves(daemon, "other")
