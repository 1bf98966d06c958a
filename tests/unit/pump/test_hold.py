"""Held requests: what ends them, and what is reported."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from relay.pump.channel import Finished, Hold
from relay.pump.hold import MAX_HEAD, Holds
from relay.pump.pump import Pump
from tests.helpers.pollers import POLLERS


class Bench:
    """Holds over a pump with a clock set by hand."""

    def __init__(self, poller: str) -> None:
        self.now = 1000.0
        self.pump = Pump(lambda: self.now, POLLERS[poller])
        self.holds = Holds(self.pump, lambda: self.now)
        self.bots: dict[str, socket.socket] = {}

    def hold(self, name: str = "t", max_seconds: float = 0.0) -> socket.socket:
        ours, self.bots[name] = socket.socketpair()
        self.holds.add(Hold(name, f"session of {name}", max_seconds), ours)
        return self.bots[name]

    def turn(self) -> list[Finished]:
        for _ in range(3):
            self.pump.turn(0)
            self.holds.sweep()
        return self.holds.take_reports()


@pytest.fixture
def bench(poller: str) -> Iterator[Bench]:
    made = Bench(poller)
    yield made
    made.holds.end_all("drain")
    made.pump.close()
    for bot in made.bots.values():
        bot.close()


@pytest.mark.parametrize(
    ("answer", "cause", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "bot_completed", "HTTP 200"),
        (b"HTTP/1.0 204 \r\n\r\n", "bot_completed", "HTTP 204"),
        (b"HTTP/1.1 200\r\n\r\n", "bot_completed", "HTTP 200"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "bot_completed", "HTTP 200"),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "bot_error", "HTTP 500"),
        (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "bot_error", "HTTP 302"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_the_answer_ends_the_session(
    bench: Bench, answer: bytes, cause: str, reason: str, size: int
) -> None:
    bot = bench.hold()
    bench.now += 12.5
    reports: list[Finished] = []
    for start in range(0, len(answer), size):
        if not reports:
            bot.send(answer[start : start + size])
            reports = bench.turn()
    (report,) = reports
    assert (report.cause, report.reason, report.code) == (cause, reason, None)
    assert (report.tunnel, report.session, report.seconds) == ("t", "session of t", 12.5)
    assert len(bench.holds) == 0
    assert bot.recv(1) == b""  # our side is closed


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", b"garbage\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n"]
)
def test_an_end_without_an_answer_is_an_error(bench: Bench, said: bytes) -> None:
    bot = bench.hold()
    bot.sendall(said)
    assert bench.turn() == []
    bot.close()
    (report,) = bench.turn()
    assert (report.cause, report.reason) == ("bot_error", "")


def test_an_endless_head_is_given_up(bench: Bench) -> None:
    bot = bench.hold()
    bot.setblocking(False)
    bot.send(b"HTTP/1.1 200 OK\r\n")
    reports: list[Finished] = []
    for _ in range(2 * MAX_HEAD // 1000):
        if not reports:
            bot.send(b"x: " + b"y" * 995 + b"\r\n")
            reports = bench.turn()
    assert [report.cause for report in reports] == ["bot_error"]


def test_the_time_limit(bench: Bench) -> None:
    bench.hold("short", max_seconds=60)
    bench.hold("long", max_seconds=600)
    bench.hold("open")
    bench.now += 59.9
    assert bench.turn() == []
    bench.now += 0.1
    assert [(r.tunnel, r.cause) for r in bench.turn()] == [("short", "time_limit")]
    bench.now += 10_000
    assert [r.tunnel for r in bench.turn()] == ["long"]
    assert [live.tunnel for live in bench.holds.snapshot()] == ["open"]


def test_orders_end_and_close(bench: Bench) -> None:
    bots = [bench.hold(name) for name in ("a", "b", "c")]
    bench.holds.end("a", "stopped")
    bench.holds.end("nobody", "stopped")
    assert [(r.tunnel, r.cause) for r in bench.turn()] == [("a", "stopped")]
    bench.holds.end_all("drain")
    assert {(r.tunnel, r.cause) for r in bench.turn()} == {("b", "drain"), ("c", "drain")}
    assert [bot.recv(1) for bot in bots] == [b"", b"", b""]


def test_an_answer_and_an_order_in_one_turn_are_one_end(bench: Bench) -> None:
    first, second = bench.hold("first"), bench.hold("second")

    def stop_both() -> None:
        reader.recv(1)
        bench.holds.end_all("stopped")

    reader, writer = socket.socketpair()
    bench.pump.watch(reader.fileno(), stop_both)
    for sock, data in ((writer, b"x"), (first, b"HTTP/1.1 200 OK\r\n\r\n"), (second, b"H")):
        sock.send(data)
    assert sorted(report.tunnel for report in bench.turn()) == ["first", "second"]
    bench.pump.unwatch(reader.fileno())
    reader.close()
    writer.close()


def test_a_name_is_held_once_and_descriptors_go(bench: Bench) -> None:
    before = len(os.listdir("/proc/self/fd"))
    bench.hold("t")
    spare, other = socket.socketpair()
    with pytest.raises(ValueError, match="exists"):
        bench.holds.add(Hold("t", "s"), spare)
    spare.close()
    other.close()
    bench.holds.end_all("drain")
    bench.bots.pop("t").close()
    assert len(os.listdir("/proc/self/fd")) == before
