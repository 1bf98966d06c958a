"""Webhooks to a real receiver over a real store: what fails is told again, and no call waits."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from relay.policy.catalog import Webhook
from relay.policy.sessions import SessionEnd
from relay.policy.webhooks import FIRST_WAIT, MAX_ATTEMPTS, Outcome
from relay.server.webhook_client import poster
from relay.server.webhooks import Post, Webhooks
from relay.store.sqlite import SQLiteStore
from tests.helpers.receiver import Receiver, receiving
from tests.helpers.store import BEGAN, NOW, waiting

SECRET = bytes(range(24))
LATE = FIRST_WAIT * 4**MAX_ATTEMPTS


class Told:
    """What was counted and logged: `Counts` and as much of `Log` as is used."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.waiting = -1
        self.lines: list[str] = []

    def webhook(self, event: str, outcome: Outcome) -> None:
        self.outcomes[event, outcome.value] += 1

    def webhooks_waiting(self, organization: str, count: int) -> None:
        assert organization == "acme"
        self.waiting = count

    def event(self, name: str, **fields: object) -> None:
        self.lines.append(name)

    def warning(self, name: str, **fields: object) -> None:
        self.lines.append(" ".join([name, *(str(each) for each in list(fields.values())[1:])]))

    def failure(self, name: str, error: BaseException, **fields: object) -> None:
        raise AssertionError(f"{name}: {error!r}")


class Node:
    """A node's webhooks, with a clock that the test sets."""

    def __init__(self, store: SQLiteStore, url: str, post: Post) -> None:
        self.store = store
        self.told = Told()
        self.now = NOW
        self.hooks = Webhooks(
            "acme", Webhook(url, SECRET), store.outbox, post,
            self.told, self.told, lambda: self.now, lambda: 0.0,  # type: ignore[arg-type]
        )  # fmt: skip

    async def end(self, name: str) -> None:
        await waiting(self.store, name)
        await self.store.end(name, SessionEnd("client_closed"), self.now)

    async def look(self, later: float = 0.0) -> bool:
        self.now += later
        return await self.hooks.look()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "relay.db", "node-1", told=["acme"])
    yield store
    store.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def node(store: SQLiteStore, receiver: Receiver) -> Node:
    return Node(store, receiver.url, poster())


async def test_a_session_is_told_at_its_start_and_at_its_end(
    node: Node, receiver: Receiver
) -> None:
    await waiting(node.store, "a")
    await node.store.activate("a", "n-a", NOW, BEGAN)
    assert await node.look()
    await node.store.end("a", SessionEnd("client_closed"), NOW + 1)
    assert await node.look(1)
    assert not await node.look(LATE)
    assert receiver.types() == ["session.started", "session.ended"]
    assert {each.path for each in receiver.told} == {"/hook?key=1"}
    assert node.told.waiting == 0
    assert node.told.lines == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (500, "answered 500"),
        (404, "answered 404"),
        (307, "answered 307"),
        ("slow", "no answer within 0.3 s"),
    ],
)
async def test_what_fails_is_told_again_later(
    store: SQLiteStore, receiver: Receiver, answer: int | str, reason: str
) -> None:
    node = Node(store, receiver.url, poster(0.3 if answer == "slow" else 15))
    receiver.answers = [answer, answer]
    await node.end("a")
    assert await node.look()
    assert not await node.look(FIRST_WAIT / 2)
    assert await node.look(FIRST_WAIT)
    assert not await node.look(2 * FIRST_WAIT)  # the second wait is longer
    assert await node.look(4 * FIRST_WAIT)
    first, _second, third = receiver.told
    assert (first.id, first.body) == (third.id, third.body)
    assert first.fields["webhook-timestamp"] != third.fields["webhook-timestamp"]
    assert not await node.look(LATE)
    assert node.told.lines == [f"webhook_failed {reason}", "webhook_back"]
    outcomes = {("session.ended", "failed"): 2, ("session.ended", "delivered"): 1}
    assert node.told.outcomes == outcomes


async def test_a_receiver_may_ask_for_time(node: Node, receiver: Receiver) -> None:
    receiver.answers, receiver.retry_after = [503], "100"
    await node.end("a")
    assert await node.look()
    assert not await node.look(99)
    assert await node.look(1)
    assert len(receiver.told) == 2


async def test_an_answer_without_end_is_not_read(node: Node, receiver: Receiver) -> None:
    receiver.answers = ["endless"]
    await node.end("a")
    with trio.fail_after(15):
        assert await node.look()
    assert node.told.outcomes == {("session.ended", "delivered"): 1}


async def test_nobody_there(store: SQLiteStore) -> None:
    with socket.socket() as taken:  # bound, not listening: refused
        taken.bind(("127.0.0.1", 0))
        node = Node(store, f"http://127.0.0.1:{taken.getsockname()[1]}/", poster(5))
        await node.end("a")
        for attempts in range(1, MAX_ATTEMPTS + 1):
            assert await node.look(7300 if attempts > 1 else 0), attempts
        assert not await node.look(7300)
    (line,) = node.told.lines
    assert line.startswith("webhook_failed ")
    assert node.told.outcomes == {
        ("session.ended", "failed"): MAX_ATTEMPTS - 1,
        ("session.ended", "given_up"): 1,
    }


async def test_a_receiver_that_wants_no_more_gets_no_more(node: Node, receiver: Receiver) -> None:
    receiver.answers = [410]
    await node.end("a")
    assert await node.look()
    await node.end("b")
    assert not await node.look()
    assert not await node.look(LATE)
    assert len(receiver.told) == 1
    assert node.told.lines == ["webhook_gone"]
    assert node.told.outcomes == {("session.ended", "gone"): 2}
    # Another start, another try.
    again = Node(node.store, receiver.url, poster(5))
    await again.end("c")
    assert await again.look()
    assert again.told.outcomes == {("session.ended", "delivered"): 1}


async def test_a_certificate_must_be_right(store: SQLiteStore, receiver: Receiver) -> None:
    # No TLS at all there: what matters is that it is asked for, and that nothing is sent.
    node = Node(store, receiver.url.replace("http:", "https:"), poster(5))
    await node.end("a")
    assert await node.look()
    assert receiver.told == []
    assert node.told.outcomes == {("session.ended", "failed"): 1}


async def test_no_more_than_some_at_a_time_and_all_of_them(node: Node, receiver: Receiver) -> None:
    for number in range(20):
        await node.end(f"s{number:02}")
    looks = 0
    while await node.look():
        looks += 1
    assert looks == 3
    assert sorted(each.json()["data"]["sessionId"] for each in receiver.told) == [
        f"s{number:02}" for number in range(20)
    ]
