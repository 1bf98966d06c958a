"""Start bodies that are too large for a URL reach the bot of a call, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.helpers.daemon import Answer, Daemon, running_bot, running_daemon
from tests.helpers.wire import call, keeps_secrets

FIELD = "x-relay-body"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    with (
        running_bot(folder, sessions=2) as bot,
        running_daemon(
            folder, [bot.url], "sessions_per_instance = 2\nstored_bodies = true"
        ) as daemon,
    ):
        yield daemon


def body_of(size: int) -> dict[str, str]:
    """An object whose compact JSON has so many bytes."""
    empty = len(json.dumps({"text": ""}, separators=(",", ":")))
    return {"text": "x" * (size - empty)}


def fetch(daemon: Daemon, url: str) -> Answer:
    return daemon.request("GET", url.removeprefix(daemon.url))


@pytest.mark.parametrize("size", [4097, 1024 * 1024])
def test_a_large_body_is_fetched_by_the_bot(daemon: Daemon, size: int) -> None:
    started = daemon.start_when_free(body=body_of(size))
    assert set(started) == {"sessionId", "token", "wsUrl"}
    path = f"/v1/bodies/{started['sessionId']}"
    assert daemon.request("GET", path).status == 404
    forged = {FIELD: "http://127.0.0.1:1/", "X_Relay_Body": "http://127.0.0.1:1/"}
    with call(daemon, "/ws/generic/bot.acme", started["token"], headers=forged) as ws:
        ws.send("!headers")
        found = [value for name, value in json.loads(ws.recv()) if name.replace("_", "-") == FIELD]
        (url,) = found
        assert url.startswith(f"{daemon.url}{path}?key=")
        for _ in range(2):
            answer = fetch(daemon, url)
            assert answer.status == 200
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-type"] == "application/json"
            assert answer.json() == body_of(size)
        for wrong in (url[:-1], f"{url}x", url.partition("?")[0], f"{url}&key=a"):
            assert fetch(daemon, wrong).status == 404
    daemon.wait_ended(started["sessionId"])
    answer = fetch(daemon, url)
    assert (answer.status, answer.json()["phase"]) == (404, "authenticate")
    keeps_secrets(daemon, url.partition("key=")[2])


def test_a_small_body_travels_as_ever_and_none_is_announced(daemon: Daemon) -> None:
    started = daemon.start_when_free(body=body_of(4096))
    assert len(started["body"]) > 4096
    with call(daemon, "/ws/generic/bot.acme", started["token"]) as ws:
        ws.send("!headers")
        assert FIELD not in dict(json.loads(ws.recv()))
    daemon.wait_ended(started["sessionId"])


def test_a_body_over_the_limit_is_refused(daemon: Daemon) -> None:
    answer = daemon.start(body=body_of(1024 * 1024 + 1))
    assert answer.status == 413
    assert "1048576" in answer.json()["message"]
