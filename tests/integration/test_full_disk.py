"""The disk is full under the store: what needs it is 503, calls go on, and it comes back."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemon import (
    PRIVATE_KEY,
    Daemon,
    running_bot,
    running_daemon,
    wait_until,
)
from tests.helpers.ends import begin, nothing_is_held
from tests.helpers.wire import Wire, ask, call, echoes, refused, serves, token_for, upgrade

# A session's row takes about a page; more starts than this fill whatever room is left.
MOST_STARTS = 500
OPEN = """
sessions_per_instance = 1000
[agents.open]
organization = "acme"
websocket_auth = "none"
instances = ["http://127.0.0.1:9"]
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with (
        running_bot(tmp_path, sessions=1000) as bot,
        running_daemon(tmp_path, [bot.url], OPEN) as daemon,
    ):
        yield daemon


def fill(daemon: Daemon) -> None:
    """No file of the daemon grows any more; then use up what room its store has."""
    log = daemon.folder / "relay.db-wal"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = log.stat().st_size, hard
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, limit)
    for _ in range(MOST_STARTS):
        if daemon.start().status == 503:
            return
    raise AssertionError("the store never fills")


def empty(daemon: Daemon) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (hard, hard))


def test_a_full_disk_and_one_that_has_room_again(daemon: Daemon) -> None:
    serves(daemon)
    token, live = token_for(), begin(daemon)
    fill(daemon)
    for _ in range(2):  # it does not get worse
        refused(daemon, daemon.start(), 503, "store_failed")
        for target in (f"/ws/generic/bot.acme?token={token}", "/ws/generic/open.acme"):
            answer = ask(daemon, upgrade(target))
            assert int(answer.headers["retry-after"]) >= 1
            refused(daemon, answer, 503, "store_failed")
        stop = daemon.request(
            "DELETE", f"/v1/agents/bot/sessions/{live.id}", Authorization=f"Bearer {PRIVATE_KEY}"
        )
        refused(daemon, stop, 503, "store_failed")
        # What only reads goes on, and so do calls.
        assert daemon.session(live.id)["state"] == "active"
        assert echoes(live.ws)
    live.ws.close(4003, "while it was full")
    with Wire(daemon.port) as wire:
        wire.send(upgrade("/ws/generic/bot.acme", f"Authorization: Bearer {token}"))
        refused(daemon, wire.answer(), 503, "store_failed")
    assert daemon.session(live.id)["state"] == "active"
    empty(daemon)
    record = daemon.wait_ended(live.id)
    assert (record["cause"], record["closeCode"]) == ("client_closed", 4003)
    with call(daemon, token=token) as ws:  # nothing was claimed in vain
        assert echoes(ws)
    serves(daemon)
    wait_until(lambda: daemon.request("GET", "/readyz", admin=True).status == 200, "it is ready")
    nothing_is_held(daemon)
