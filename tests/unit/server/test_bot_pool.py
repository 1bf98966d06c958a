"""Idle connections to bots: bounded, checked, and closed when they are old."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from relay.policy.catalog import Trust
from relay.server.bot_pool import (
    IDLE_SECONDS,
    MAX_IDLE,
    MAX_IDLE_PER_BOT,
    BotLink,
    BotPool,
    open_link,
)
from tests.helpers.scripted_bot import nobody_listens

URL = "http://bot:1"


class Bots:
    """Connections whose other end the test holds."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.theirs: dict[BotLink, socket.socket] = {}

    def link(self, url: str = URL) -> BotLink:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._stack.callback(ours.close)
        self._stack.enter_context(theirs)
        link = BotLink(url, ours)
        self.theirs[link] = theirs
        return link

    def is_closed(self, link: BotLink) -> bool:
        self.theirs[link].setblocking(False)
        try:
            return self.theirs[link].recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True  # with something unread


@pytest.fixture
def bots() -> Iterator[Bots]:
    with ExitStack() as stack:
        yield Bots(stack)


async def test_the_last_one_used_is_taken_first(bots: Bots) -> None:
    pool, links = BotPool(), [bots.link() for _ in range(3)]
    assert not links[0].reused
    for link in links:
        pool.give_back(link)
    other = bots.link("http://bot:2")
    pool.give_back(other)
    assert [pool.take(URL) for _ in range(4)] == [*reversed(links), None]
    assert all(link.reused for link in links)
    assert pool.take("http://bot:2") is other
    assert pool.take("http://bot:2") is None


@pytest.mark.parametrize("what", ["closed", "stray bytes"])
async def test_one_with_something_to_read_is_not_taken(bots: Bots, what: str) -> None:
    pool, good, bad = BotPool(), bots.link(), bots.link()
    pool.give_back(good)
    pool.give_back(bad)
    if what == "closed":
        bots.theirs[bad].shutdown(socket.SHUT_WR)
    else:
        bots.theirs[bad].sendall(b"x")
    assert pool.take(URL) is good
    assert bots.is_closed(bad)


async def test_no_more_than_so_many_are_kept(bots: Bots) -> None:
    pool = BotPool()
    links = [bots.link() for _ in range(MAX_IDLE_PER_BOT + 2)]
    for link in links:
        pool.give_back(link)
    assert [bots.is_closed(link) for link in links[:3]] == [True, True, False]
    others = [bots.link(f"http://bot:{2 + number // 8}") for number in range(MAX_IDLE)]
    for link in others:
        pool.give_back(link)
    assert sum(not bots.is_closed(link) for link in (*links, *others)) == MAX_IDLE
    assert pool.take(URL) is None  # the oldest went first
    assert pool.take(others[-1].url) is others[-1]


async def test_old_ones_are_closed(bots: Bots, autojump_clock: trio.testing.MockClock) -> None:
    pool, old, gone, young = BotPool(), bots.link(), bots.link(), bots.link()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        pool.give_back(old)
        pool.give_back(gone)
        bots.theirs[gone].close()
        await trio.sleep(IDLE_SECONDS - 1)
        pool.give_back(young)
        await trio.sleep(2)
        assert bots.is_closed(old)
        assert not bots.is_closed(young)
        assert pool.take(URL) is young
        pool.give_back(young)
        nursery.cancel_scope.cancel()
    assert bots.is_closed(young)
    assert pool.take(URL) is None


async def test_one_that_has_become_old_is_not_taken(
    bots: Bots, autojump_clock: trio.testing.MockClock
) -> None:
    pool, link = BotPool(), bots.link()
    pool.give_back(link)
    await trio.sleep(IDLE_SECONDS)
    assert pool.take(URL) is None
    assert bots.is_closed(link)


async def test_a_connection_is_opened_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            link = await open_link(f"http://{host}:{port}", Trust())
            assert link is not None
            assert link.is_quiet()
            assert not link.sock.getblocking()
            link.close()
            listener.accept()[0].close()
    with nobody_listens() as url:
        assert await open_link(url, Trust()) is None


async def test_who_is_cancelled_while_connecting_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.CancelScope() as scope:
        scope.cancel()
        await open_link(f"http://127.0.0.1:{listener.getsockname()[1]}", Trust())
        await trio.lowlevel.checkpoint()
    # A socket that was left open would be a ResourceWarning, which is an error here.
