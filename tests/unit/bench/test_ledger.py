"""Every echo is counted in one column, and nothing that went wrong stays uncounted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.ledger import Ledger


def sent(count: int, index: int = 3) -> Ledger:
    ledger = Ledger(index, 40, first_due=1_000, period=20)
    ledger.sent = count
    return ledger


def columns(ledger: Ledger) -> tuple[int, int, int, int, int]:
    return (ledger.intact, ledger.lost, ledger.reordered, ledger.duplicated, ledger.changed)


def changed(message: bytes) -> bytes:
    return message[:-1] + bytes((message[-1] ^ 1,))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([0, 1, 2], (3, 0, 0, 0, 0)),
        ([0, 2], (2, 1, 0, 0, 0)),
        ([0, 1], (2, 1, 0, 0, 0)),
        ([1, 0, 2], (3, 0, 1, 0, 0)),
        ([2, 1, 0], (3, 0, 2, 0, 0)),
        ([0, 0, 1, 2], (3, 0, 0, 1, 0)),
        ([], (0, 3, 0, 0, 0)),
    ],
)
def test_order_is_judged(order: list[int], expected: tuple[int, ...]) -> None:
    ledger = sent(3)
    for sequence in order:
        ledger.judge(ledger.message(sequence))
    assert columns(ledger) == expected


def test_one_bit_makes_a_message_changed_and_not_lost_as_well() -> None:
    ledger = sent(3)
    assert ledger.judge(ledger.message(0)) == 0
    assert ledger.judge(changed(ledger.message(1))) is None
    assert ledger.judge(ledger.message(2)) == 2
    assert columns(ledger) == (2, 0, 0, 0, 1)


@pytest.mark.parametrize("payload", [b"", b"short", bytes(40), bytes(4000)])
def test_what_was_never_a_message_is_changed(payload: bytes) -> None:
    ledger = sent(1)
    assert ledger.judge(payload) is None
    assert ledger.changed == 1


def test_another_calls_message_is_changed() -> None:
    ledger = sent(1)
    assert ledger.judge(sent(1, index=4).message(0)) is None
    assert ledger.changed == 1


def test_a_message_that_was_not_sent_yet_is_changed() -> None:
    ledger = sent(1)
    assert ledger.judge(ledger.message(1)) is None
    assert ledger.changed == 1


def test_due_times_are_a_period_apart() -> None:
    assert [sent(1).due(sequence) for sequence in range(3)] == [1_000, 1_020, 1_040]


def test_a_message_must_have_room_for_its_head() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        Ledger(0, 15, 0, 1)


@given(st.permutations(range(8)), st.integers(0, 8))
def test_lost_and_intact_add_up_to_sent(order: list[int], arrived: int) -> None:
    ledger = sent(8)
    for sequence in order[:arrived]:
        ledger.judge(ledger.message(sequence))
    assert ledger.intact == arrived
    assert ledger.lost + ledger.intact == ledger.sent


@given(st.lists(st.booleans(), max_size=8))
def test_changed_ones_in_order_leave_nothing_lost(spoilt: list[bool]) -> None:
    ledger = sent(len(spoilt))
    for sequence, bad in enumerate(spoilt):
        message = ledger.message(sequence)
        ledger.judge(changed(message) if bad else message)
    assert (ledger.changed, ledger.lost) == (sum(spoilt), 0)
