"""What a pump waits with: the facts that it relies on, for each poller."""

from __future__ import annotations

import select
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from relay.pump.poller import READ, WRITE, Poller, SelectorPoller, new_poller
from tests.helpers.pollers import POLLERS
from tests.helpers.pump import tcp_pair

KINDS = {**POLLERS, "default": SelectorPoller}


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(name="made", params=KINDS)
def _made(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made = KINDS[request.param]()
    yield made
    made.close()


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    near, far = tcp_pair()
    with near, far:
        yield near, far


def masks(made: Poller) -> list[int]:
    return [mask for _fd, mask in made.poll(0, 256)]


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
def test_on_linux_it_is_epoll_and_nothing_around_it() -> None:
    assert new_poller is select.epoll
    assert (READ, WRITE) == (select.EPOLLIN, select.EPOLLOUT)


# A pump without epoll, in an interpreter that has none: one message through one tunnel.
ELSEWHERE = """
import select
del select.epoll
import socket, time
from relay.pump.channel import Adopt
from relay.pump.poller import SelectorPoller, new_poller
from relay.pump.pump import Pump
assert new_poller is SelectorPoller
pump = Pump(time.monotonic)
(client, downstream), (bot, upstream) = socket.socketpair(), socket.socketpair()
pump.adopt(Adopt("call", "session"), downstream, upstream)
client.sendall(bytes.fromhex("8281 00000000 21"))
pump.turn(1.0)
print(bot.recv(100).hex(), type(pump._poller._selector).__name__)
pump.close()
"""


def test_without_epoll_the_same_pump_runs() -> None:
    command = [sys.executable, "-c", ELSEWHERE]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (ran.stdout, ran.stderr) == ("82810000000021 PollSelector\n", "")


def test_what_was_not_served_is_reported_again(made: Poller, pair: Pair) -> None:
    near, far = pair
    made.register(near.fileno(), READ)
    assert made.poll(0, 256) == []
    far.sendall(b"x")
    for _ in range(3):
        assert made.poll(1.0, 256) == [(near.fileno(), READ)]
    made.modify(near.fileno(), READ | WRITE)
    assert made.poll(0, 256) == [(near.fileno(), READ | WRITE)]
    made.modify(near.fileno(), WRITE)
    assert made.poll(0, 256) == [(near.fileno(), WRITE)]
    made.unregister(near.fileno())
    assert made.poll(0, 256) == []


@pytest.mark.parametrize("wanted", [READ, WRITE, READ | WRITE])
def test_a_hang_up_is_reported_as_what_is_waited_for(made: Poller, pair: Pair, wanted: int) -> None:
    near, far = pair
    made.register(near.fileno(), wanted)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    ((fd, mask),) = made.poll(1.0, 256)
    assert fd == near.fileno()
    assert mask & wanted == wanted


def test_nothing_is_told_of_what_is_not_registered(made: Poller, pair: Pair) -> None:
    near, far = pair
    made.register(near.fileno(), READ)
    made.unregister(near.fileno())
    far.close()
    assert masks(made) == []


def test_letting_go_of_a_closed_number_is_an_os_error_at_most(made: Poller, pair: Pair) -> None:
    """The pump expects nothing else where it gives up a socket."""
    near, _far = pair
    number = near.fileno()
    made.register(number, READ)
    near.close()
    with suppress(OSError):
        made.modify(number, READ | WRITE)
    for _ in range(2):
        with suppress(OSError):
            made.unregister(number)


def test_directions_that_come_apart_are_put_together(pair: Pair) -> None:
    near, far = pair
    apart = POLLERS["selectors"]()
    assert isinstance(apart, SelectorPoller)
    apart.register(near.fileno(), READ | WRITE)
    far.sendall(b"x")
    assert isinstance(apart._selector, selectors.PollSelector)
    assert [events for _key, events in apart._selector.select(1.0)] == [
        selectors.EVENT_READ,
        selectors.EVENT_WRITE,
    ]
    assert apart.poll(1.0, 256) == [(near.fileno(), READ | WRITE)]
    apart.close()
