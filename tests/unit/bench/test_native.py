"""The compiled parts that judge and count, called as they are: their laws, and Python's answer."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import native
from bench.children import ChildFailed
from bench.stats import COUNTERS, Histogram

needs_compiler = pytest.mark.skipif(
    native.compiler() is None, reason="no C compiler: apt-get install gcc"
)

CHANGED = -1  # in a list of echoes: one that equals nothing that was sent


class Ledger(ctypes.Structure):
    """bench/native/ledger.h."""

    _fields_ = (
        *(
            (name, ctypes.c_uint64)
            for name in (
                *("sent", "expected", "intact", "changed", "reordered", "duplicated"),
                "capacity",
            )
        ),
        ("bits", ctypes.c_void_p),
    )


class CHistogram(ctypes.Structure):
    """bench/native/common.h."""

    _fields_ = (
        ("counters", ctypes.c_uint64 * COUNTERS),
        *((name, ctypes.c_uint64) for name in ("count", "total", "lowest", "highest")),
    )


def judged(sent: int, echoes: list[int]) -> tuple[Ledger, int]:
    """A ledger after these echoes, and what is lost."""
    library = ctypes.CDLL(str(native.library("ledger")))
    library.ledger_lost.restype = ctypes.c_uint64
    ledger = Ledger(sent=sent)
    for echo in echoes:
        if echo == CHANGED:
            library.ledger_changed(ctypes.byref(ledger))
        else:
            library.ledger_judge(ctypes.byref(ledger), ctypes.c_uint64(echo))
    return ledger, library.ledger_lost(ctypes.byref(ledger))


@needs_compiler
class TestLedger:
    def test_all_in_order(self) -> None:
        ledger, lost = judged(100, list(range(100)))
        assert (ledger.intact, lost, ledger.reordered, ledger.duplicated) == (100, 0, 0, 0)

    def test_one_lost(self) -> None:
        ledger, lost = judged(10, [0, 1, 2, 4, 5, 6, 7, 8, 9])
        assert (ledger.intact, lost, ledger.reordered) == (9, 1, 0)

    def test_the_last_ones_lost(self) -> None:
        ledger, lost = judged(10, [0, 1, 2])
        assert (ledger.intact, lost) == (3, 7)

    def test_two_swapped(self) -> None:
        ledger, lost = judged(4, [0, 2, 1, 3])
        assert (ledger.intact, lost, ledger.reordered) == (4, 0, 1)

    def test_one_twice(self) -> None:
        ledger, lost = judged(3, [0, 1, 1, 2])
        assert (ledger.intact, lost, ledger.duplicated) == (3, 0, 1)

    def test_one_changed_is_not_lost_as_well(self) -> None:
        ledger, lost = judged(3, [0, CHANGED, 2])
        assert (ledger.intact, lost, ledger.changed) == (2, 0, 1)

    def test_one_that_comes_late_after_a_changed_one_is_not_lost(self) -> None:
        ledger, lost = judged(3, [CHANGED, 0, 2])
        assert (ledger.intact, lost, ledger.changed, ledger.reordered) == (2, 0, 1, 1)

    def test_one_that_was_never_sent_counts_as_changed(self) -> None:
        ledger, lost = judged(2, [0, 1, 2])
        assert (ledger.intact, lost, ledger.changed) == (2, 0, 1)

    def test_far_apart_sequences(self) -> None:
        ledger, lost = judged(100_001, [100_000, 77_777])
        assert (ledger.intact, lost, ledger.reordered) == (2, 99_999, 1)

    @given(st.data())
    def test_every_echo_counts_once_and_the_account_is_even(self, data: st.DataObject) -> None:
        sent = data.draw(st.integers(1, 40))
        # As many as were sent at most: what was never sent cannot be balanced.
        echoes = data.draw(st.lists(st.integers(CHANGED, sent - 1), max_size=sent))
        ledger, lost = judged(sent, echoes)
        assert ledger.intact + ledger.changed + ledger.duplicated == len(echoes)
        assert ledger.intact <= len(set(echoes))
        assert ledger.reordered <= ledger.intact
        assert lost + ledger.intact + ledger.changed == sent

    @given(st.permutations(range(20)))
    def test_a_permutation_loses_nothing(self, echoes: list[int]) -> None:
        ledger, lost = judged(20, echoes)
        late = sum(echo < max(echoes[:i], default=-1) for i, echo in enumerate(echoes))
        assert (ledger.intact, lost, ledger.reordered) == (20, 0, late)


@needs_compiler
class TestHistogram:
    @given(st.lists(st.integers(0, 2**62), max_size=30))
    def test_it_is_the_one_of_python(self, values: list[int]) -> None:
        library = ctypes.CDLL(str(native.library("common")))
        made, wanted = CHistogram(), Histogram()
        for value in values:
            library.histogram_record(ctypes.byref(made), ctypes.c_uint64(value))
            wanted.record(value)
        dumped = wanted.dump()
        assert {str(i): n for i, n in enumerate(made.counters) if n} == dumped["counters"]
        assert (made.count, made.highest) == (dumped["count"], dumped["highest"])
        assert made.lowest == dumped["lowest"]
        assert made.total == wanted.total % 2**64


def test_without_a_compiler_the_text_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(native, "BUILD", tmp_path)
    with pytest.raises(ChildFailed, match="apt-get install gcc"):
        native.program("origin")


@needs_compiler
def test_a_program_is_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(native, "BUILD", tmp_path)
    first = native.program("requests")
    made = first.stat().st_mtime_ns
    monkeypatch.setenv("CC", "no-such-compiler")
    assert native.program("requests") == first
    assert first.stat().st_mtime_ns == made
    assert first.parent.parent == tmp_path
