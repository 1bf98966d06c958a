"""Bulk beside calls: a call waits for one bounded read, and no bulk transfer starves another."""

from __future__ import annotations

from relay.pump.pump import CALLS_GO_ON
from relay.pump.scratch import READ_OF_CALLS
from relay.pump.transfer import BULK_READS
from tests.helpers.pump import Call, Rig, frame

BULK = frame(b"b" * 1_000_000)
WARM = 100_000


def bulk(r: Rig, *names: str) -> list[Call]:
    """Tunnels whose bots are known to send much, with more of it waiting."""
    calls = [r.call(name) for name in names]
    for call in calls:
        call.bot.send(frame(b"w" * WARM))
    r.settle()
    for call in calls:
        assert r.pump.tunnels[call.name].from_bot.bulk
        call.bot.send(BULK)
    return calls


def passed(r: Rig, name: str) -> int:
    return r.pump.tunnels[name].from_bot.bytes


def test_calls_come_first_and_bulk_one_bounded_read_a_turn(r: Rig) -> None:
    names = ["a", "b", "c"]
    call = r.call("call")
    bulk(r, *names)
    call.client.say(b"small")
    r.turn()  # it shows that there are calls
    before = sum(passed(r, name) for name in names)
    for turn in range(2, 7):
        r.now += 0.001
        call.client.say(b"small")
        r.turn()
        call.bot.poll()
        assert len(call.bot.payloads()) == turn, "it has waited for a turn"
        assert sum(passed(r, name) for name in names) - before <= (turn - 1) * READ_OF_CALLS
    assert all(passed(r, name) > WARM + 100 for name in names), "one has starved"


def test_bulk_alone_is_not_held_back(r: Rig) -> None:
    names = ["a", "b"]
    bulk(r, *names)
    r.now += 1.0
    for _ in range(2):
        before = {name: passed(r, name) for name in names}
        r.turn()
        assert all(passed(r, name) > before[name] for name in names)


def test_bulk_goes_on_as_before_when_the_calls_are_over(r: Rig) -> None:
    call = r.call("call")
    (one,) = bulk(r, "bulk")
    call.client.say(b"small")
    r.turn()
    r.now += CALLS_GO_ON + 0.01
    r.settle()
    assert one.client.payloads()[1:] == [b"b" * 1_000_000]
    assert r.pump.tunnels["bulk"].from_bot.room > READ_OF_CALLS


def test_a_transfer_that_gives_little_again_is_no_bulk(r: Rig) -> None:
    (one,) = bulk(r, "bulk")
    r.settle()
    for _ in range(BULK_READS + 1):
        one.bot.say(b"small")
        r.settle()
    assert not r.pump.tunnels["bulk"].from_bot.bulk
