"""A pump that has no room and one that is gone: the call goes to another one or is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from relay.errors import ConfigError
from relay.errors import Refusal as NotTaken
from relay.pump import channel
from relay.pump.channel import (
    Adopt,
    Ask,
    Finished,
    Live,
    Ready,
    Recorded,
    Refused,
    Taken,
)
from relay.server import pump_giving, pump_offers
from relay.server.pump_offers import FULL_WAIT
from relay.server.pumps import Pumps
from tests.helpers.desk import PATIENCE, Desk, open_desk


class Pump:
    """One pump, which is the test: it hears and says what it is told to."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.near, self.far):
            each.setblocking(False)

    def say(self, *messages: channel.ToControl) -> None:
        for message in messages:
            channel.send(self.far, message)

    async def hear(self) -> channel.ToPump:
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(self.far)
        payload, fds = channel.receive(self.far)
        for fd in fds:
            os.close(fd)
        return channel.decode_to_pump(payload)

    async def take(self) -> str:
        """Take the next call; its name."""
        message = await self.hear()
        assert isinstance(message, Adopt)
        self.say(Taken(message.tunnel, message.session))
        return message.tunnel

    async def refuse(self) -> str:
        message = await self.hear()
        assert isinstance(message, Adopt)
        self.say(Refused(message.tunnel, message.session))
        return message.tunnel

    def fill(self) -> None:
        """Nobody reads, and there is room for nothing more."""
        with suppress(BlockingIOError):
            while True:
                self.near.send(bytes(1000))

    def die(self) -> None:
        self.far.close()


class Source:
    """Pumps that are not started again when they have died, but those that the test adds."""

    def __init__(self, pumps: list[Pump]) -> None:
        self._pumps = dict(enumerate(pumps))

    def add(self, index: int, pump: Pump) -> None:
        """What is started next in the place of one that has died."""
        self._pumps[index] = pump

    async def connect(self, index: int) -> socket.socket:
        if index not in self._pumps:
            raise ConfigError("it is dead")
        return self._pumps.pop(index).near.dup()

    def living(self) -> set[int]:
        return set()

    def spooled(self) -> list[Finished]:
        return []


class Stage:
    def __init__(self, pumps: Pumps, source: Source, nursery: trio.Nursery, desk: Desk) -> None:
        self.pumps = pumps
        self.source = source
        self.desk = desk
        self._nursery = nursery
        self.outcomes: dict[str, str] = {}

    def call(self, name: str) -> trio.Event:
        """Hand a call over; the event is set when `outcomes` has what became of it."""
        done = trio.Event()

        async def hand_over() -> None:
            read, write = os.pipe()
            try:
                await self.pumps.adopt(Adopt(name, name), read, write)
                self.outcomes[name] = "taken"
            except NotTaken as refusal:
                self.outcomes[name] = refusal.cause
            finally:
                os.close(read)
                os.close(write)
            done.set()

        self._nursery.start_soon(hand_over)
        return done

    async def outcome(self, name: str, done: trio.Event) -> str:
        with trio.fail_after(PATIENCE):
            await done.wait()
        return self.outcomes[name]


@pytest.fixture(name="two")
def _two() -> Iterator[list[Pump]]:
    pumps = [Pump(), Pump()]
    yield pumps
    for pump in pumps:
        pump.near.close()
        pump.far.close()


@asynccontextmanager
async def stage(
    tmp_path: Path, two: list[Pump], capacity: tuple[int, int], live: tuple[int, int] = (0, 0)
) -> AsyncIterator[Stage]:
    """Both pumps connected, with so many calls already."""
    async with open_desk(tmp_path / "relay.db") as desk, trio.open_nursery() as nursery:
        source = Source(two)
        pumps = Pumps(2, source, desk.keeper, desk.log)

        async def begin(index: int) -> None:
            assert await two[index].hear() == Ask()
            none = channel.Figures()
            for number in range(live[index]):
                name = f"live {index} {number}"
                two[index].say(Live(name, name, 1.0, none, none))
            two[index].say(Ready(capacity=capacity[index]))

        for index in range(2):
            nursery.start_soon(begin, index)
        await nursery.start(pumps.run)
        yield Stage(pumps, source, nursery, desk)
        nursery.cancel_scope.cancel()


async def test_calls_go_to_the_pump_with_the_fewest(tmp_path: Path, two: list[Pump]) -> None:
    async with stage(tmp_path, two, (10, 10), live=(3, 0)) as s:
        for name in ("a", "b", "c"):
            done = s.call(name)
            assert await two[1].take() == name
            assert await s.outcome(name, done) == "taken"


async def test_a_pump_with_as_many_calls_as_it_holds_is_asked_for_no_more(
    tmp_path: Path, two: list[Pump]
) -> None:
    async with stage(tmp_path, two, (1, 5), live=(1, 3)) as s:
        for name in ("a", "b"):
            done = s.call(name)
            assert await two[1].take() == name
            assert await s.outcome(name, done) == "taken"
        with pytest.raises(NotTaken) as refusal:
            await s.pumps.require()
        assert refusal.value.cause == "pump_full"
        assert await s.outcome("c", s.call("c")) == "pump_full"
        none = channel.Figures()
        two[0].say(Finished("live 0 0", "live 0 0", "stopped", 1001, "", 1.0, none, none))
        assert await two[0].hear() == Recorded(["live 0 0"])
        await s.pumps.require()
        done = s.call("d")
        assert await two[0].take() == "d"


async def test_a_call_that_one_pump_refuses_is_anothers(tmp_path: Path, two: list[Pump]) -> None:
    async with stage(tmp_path, two, (10, 10), live=(0, 1)) as s:
        done = s.call("a")
        assert await two[0].refuse() == "a"
        assert await two[1].take() == "a"
        assert await s.outcome("a", done) == "taken"
        done = s.call("b")  # the one that has refused is left alone for a while
        assert await two[1].take() == "b"
        assert s.pumps.sessions() == {"live 1 0", "a", "b"}
        await trio.sleep(FULL_WAIT)
        done = s.call("c")
        assert await two[0].take() == "c"


async def test_a_call_that_all_refuse_is_refused(tmp_path: Path, two: list[Pump]) -> None:
    async with stage(tmp_path, two, (10, 10), live=(0, 1)) as s:
        done = s.call("a")
        assert [await pump.refuse() for pump in two] == ["a", "a"]
        assert await s.outcome("a", done) == "pump_full"
        assert s.pumps.sessions() == {"live 1 0"}


async def test_a_pump_that_dies_before_it_answers_has_lost_no_call(
    tmp_path: Path, two: list[Pump]
) -> None:
    async with stage(tmp_path, two, (10, 10), live=(0, 1)) as s:
        done = s.call("a")
        await two[0].hear()
        two[0].die()
        assert await two[1].take() == "a"
        assert await s.outcome("a", done) == "taken"
        assert s.pumps.sessions() == {"live 1 0", "a"}


async def test_a_call_is_not_given_to_another_pump_by_one_that_took_it_and_died(
    tmp_path: Path, two: list[Pump]
) -> None:
    """Though the one who waits for the answer may hear it later than that the pump is gone."""
    async with stage(tmp_path, two, (10, 10), live=(0, 1)) as s:
        done = s.call("a")
        await two[0].hear()
        # What is read from the channel is looked at before the waiting task has its turn.
        link = s.pumps._links[0]
        link.offers["a"].answer("")
        link.give_up_offers()
        assert await s.outcome("a", done) == "taken"
        with pytest.raises(BlockingIOError):
            channel.receive(two[1].far)


async def test_a_call_waits_for_the_next_pump(tmp_path: Path, two: list[Pump]) -> None:
    """Before it was offered, and when the last pump dies with the offer."""
    async with stage(tmp_path, two, (10, 10)) as s:
        two[1].die()
        early = s.call("early")
        assert await two[0].hear() == Adopt("early", "early")
        two[0].die()
        late = s.call("late")
        third = Pump()
        s.source.add(0, third)
        assert await third.hear() == Ask()
        assert s.outcomes == {}
        third.say(Ready(capacity=10))
        await s.pumps.require()
        assert {await third.take(), await third.take()} == {"early", "late"}
        assert await s.outcome("early", early) == await s.outcome("late", late) == "taken"
        third.near.close()
        third.far.close()


async def test_without_a_living_pump_the_cause_is_another_one(
    tmp_path: Path, two: list[Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_giving, "NEXT_PUMP_WAIT", 0.05)
    async with stage(tmp_path, two, (10, 10)) as s:
        for pump in two:
            pump.die()
        with trio.fail_after(PATIENCE):
            while s.pumps.ready():
                await trio.sleep(0.01)
        with pytest.raises(NotTaken) as refusal:
            await s.pumps.require()
        assert refusal.value.cause == "no_pump"
        assert await s.outcome("a", s.call("a")) == "no_pump"


async def test_a_pump_whose_channel_is_stuck_costs_no_call(
    tmp_path: Path, two: list[Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.server.pump_link.HAND_OVER_TIMEOUT", 0.05)
    async with stage(tmp_path, two, (10, 10), live=(0, 1)) as s:
        two[0].fill()
        done = s.call("a")
        assert await two[1].take() == "a"
        assert await s.outcome("a", done) == "taken"
        two[1].fill()
        assert await s.outcome("b", s.call("b")) == "pump_full"
        assert s.pumps.sessions() == {"live 1 0", "a"}


async def test_a_refusal_that_comes_too_late_ends_the_session(
    tmp_path: Path, two: list[Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_offers, "ANSWER_TIMEOUT", 0.01)
    async with stage(tmp_path, two, (10, 0)) as s:
        done = s.call("a")
        assert await s.outcome("a", done) == "taken"  # it is in the channel
        assert s.pumps.sessions() == {"a"}
        assert await two[0].refuse() == "a"
        with trio.fail_after(PATIENCE):
            while s.pumps.sessions():
                await trio.sleep(0.01)
