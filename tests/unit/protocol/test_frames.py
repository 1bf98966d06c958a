"""The tracker's table: short reads, both ways through `feed`, what stops a stream."""

from __future__ import annotations

import pytest

from relay.protocol.frame_headers import RSV, RSV_DEFLATE, Violation, close_frame
from relay.protocol.frames import FrameTracker
from tests.helpers.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

MASK = b"\x01\x02\x03\x04"
SIZES = [0, 1, 2, 125, 126, 127, 65535, 65536, 70000]


def feed(tracker: FrameTracker, data: bytes) -> int:
    return tracker.feed(data, len(data))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_one_frame_a_read(size: int, mask: bytes | None, opcode: int) -> None:
    data = frame(opcode, b"x" * size, mask=mask)
    tracker = FrameTracker(masked=mask is not None)
    for count in (1, 2, 3):
        assert feed(tracker, data) == len(data)
        assert tracker.messages == count
        assert tracker.at_boundary


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("mask", [None, MASK])
def test_every_cut_through_a_header(size: int, mask: bytes | None) -> None:
    data = frame(BINARY, b"x" * size, mask=mask)
    for cut in range(min(len(data), 20)):
        tracker = FrameTracker(masked=mask is not None)
        assert feed(tracker, data[:cut]) == cut
        assert tracker.at_boundary == (cut == 0)
        assert tracker.messages == 0
        assert feed(tracker, data[cut:]) == len(data) - cut
        assert (tracker.messages, tracker.at_boundary) == (1, True)


@pytest.mark.parametrize("start", [b"", b"\x82", b"\x82\x7e", b"\x82\x7e\x01", b"\x82\x7f"])
def test_a_read_shorter_than_a_header(start: bytes) -> None:
    """The read is all there is: nothing behind it may be looked at."""
    tracker = FrameTracker(masked=False)
    assert feed(tracker, start) == len(start)
    assert tracker.at_boundary == (not start)
    assert tracker.messages == 0


@pytest.mark.parametrize("masked", [True, False])
def test_a_wrong_mask_in_a_read_of_the_right_length(masked: bool) -> None:
    """The length fits a frame of the other kind, since four bytes follow or are missing."""
    wrong = frame(BINARY, b"hello", mask=None if masked else MASK)
    data = wrong + b"more" if masked else wrong[:-4]
    tracker = FrameTracker(masked=masked)
    assert feed(tracker, data) == 0
    assert tracker.violation is not None


def test_two_frames_in_a_read_and_a_half() -> None:
    data = frame(BINARY, b"one") + frame(TEXT, b"two") + frame(BINARY, b"three")
    tracker = FrameTracker(masked=False)
    assert feed(tracker, data[:12]) == 12
    assert (tracker.messages, tracker.at_boundary) == (2, False)
    assert feed(tracker, data[12:]) == len(data) - 12
    assert (tracker.messages, tracker.at_boundary) == (3, True)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    data = frame(TEXT, b"hello", mask=MASK) + frame(CLOSE, b"\x03\xe8bye", mask=MASK)
    tracker = FrameTracker(masked=True)
    assert tracker.feed(kind(data), len(data)) == len(data)
    assert (tracker.messages, tracker.close_code, tracker.close_reason) == (1, 1000, "bye")


def test_a_fragmented_message_is_one_message() -> None:
    tracker = FrameTracker(masked=False)
    for piece, messages in (
        (frame(TEXT, b"a", fin=False), 0),
        (frame(PING, b"p"), 0),
        (frame(CONTINUATION, b"", fin=False), 0),
        (frame(PONG), 0),
        (frame(CONTINUATION, b"b"), 1),
        (frame(BINARY, b"whole"), 2),
    ):
        assert feed(tracker, piece) == len(piece)
        assert tracker.at_boundary  # a Close may stand between fragments too
        assert tracker.messages == messages


def test_a_whole_message_inside_a_fragmented_one_is_refused() -> None:
    tracker = FrameTracker(masked=False)
    feed(tracker, frame(TEXT, b"a", fin=False))
    assert feed(tracker, frame(BINARY, b"whole")) == 0
    assert tracker.violation == Violation(1002, "message out of sequence")


def test_nothing_passes_behind_a_violation() -> None:
    tracker = FrameTracker(masked=False)
    assert feed(tracker, b"\x83\x00") == 0
    violation = tracker.violation
    assert violation is not None
    assert feed(tracker, frame(BINARY, b"a legal message")) == 0
    assert tracker.cut(b"\x82\x00", 2) == 0
    assert feed(tracker, frame(BINARY, b"a legal message")) == 0
    assert (tracker.messages, tracker.violation) == (0, violation)


def test_nothing_passes_behind_a_close() -> None:
    tracker = FrameTracker(masked=False)
    close = frame(CLOSE, b"\x03\xe9away")
    assert feed(tracker, close + frame(BINARY, b"late")) == len(close)
    assert feed(tracker, frame(BINARY, b"later")) == 0
    assert tracker.cut(frame(BINARY, b"later"), 7) == 0
    assert (tracker.messages, tracker.close_code, tracker.close_reason) == (0, 1001, "away")


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        (b"\x03\xe8", 1000, ""),
        (b"\x0f\xa0" + b"r" * 123, 4000, "r" * 123),
        (b"\x03\xf3" + "größer".encode(), 1011, "größer"),
        (b"\x03\xf3\xff", 1011, "�"),
    ],
)
@pytest.mark.parametrize("mask", [None, MASK])
def test_close_codes(payload: bytes, code: int, reason: str, mask: bytes | None) -> None:
    tracker = FrameTracker(masked=mask is not None)
    for byte in frame(CLOSE, payload, mask=mask):
        assert feed(tracker, bytes((byte,))) == 1
    assert tracker.closed
    assert (tracker.close_code, tracker.close_reason) == (code, reason)


@pytest.mark.parametrize(
    ("rsv", "bits", "opcode", "legal"),
    [
        (0, 0x40, BINARY, False),
        (0, 0x10, TEXT, False),
        (RSV_DEFLATE, 0x40, BINARY, True),
        (RSV_DEFLATE, 0x40, TEXT, True),
        (RSV_DEFLATE, 0x40, PING, False),
        (RSV_DEFLATE, 0x40, CLOSE, False),
        (RSV_DEFLATE, 0x20, BINARY, False),
        (RSV_DEFLATE, 0x50, BINARY, False),
        (RSV, 0x70, BINARY, True),
        (RSV, 0x20, PING, True),
    ],
)
def test_reserved_bits(rsv: int, bits: int, opcode: int, legal: bool) -> None:
    data = frame(opcode, b"12", rsv=bits)
    tracker = FrameTracker(masked=False, rsv=rsv)
    assert feed(tracker, data) == (len(data) if legal else 0)
    assert (tracker.violation is None) == legal


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 300, 65_536])
def test_a_long_control_frame_is_refused_whole_as_it_may_be(opcode: int, size: int) -> None:
    tracker = FrameTracker(masked=False)
    legal = frame(BINARY, b"x")
    data = legal + frame(opcode, b"x" * size) + legal
    assert tracker.feed(data, len(data)) == len(legal)
    assert tracker.violation is not None
    assert tracker.violation.code == 1002


def test_the_limit_of_a_message() -> None:
    tracker = FrameTracker(masked=False, max_message=10)
    legal = (frame(BINARY, b"x" * 10), frame(TEXT, b"x" * 6, fin=False), frame(PING, b"x" * 99))
    for data in legal:
        assert feed(tracker, data) == len(data)
    assert feed(tracker, frame(CONTINUATION, b"x" * 5, fin=False)) == 0
    assert tracker.violation == Violation(1009, "message over 10 bytes")


def test_cut_takes_the_rest_of_a_frame_only() -> None:
    first, second = frame(BINARY, b"x" * 200), frame(BINARY, b"y")
    tracker = FrameTracker(masked=False)
    assert tracker.cut(first, len(first)) == 0  # it is at a boundary already
    feed(tracker, first[:3])
    assert tracker.cut(first[3:50], 47) == 47
    assert not tracker.at_boundary
    assert tracker.cut(first[50:] + second, len(first) - 50 + len(second)) == len(first) - 50
    assert (tracker.at_boundary, tracker.messages) == (True, 1)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("", b""),
        ("time limit", b"time limit"),
        ("a" * 123, b"a" * 123),
        ("a" * 124, b"a" * 123),
        ("a" * 122 + "é", b"a" * 122),
        ("€" * 42, "€".encode() * 41),
        ("a" + "😀" * 40, b"a" + "😀".encode() * 30),
    ],
)
def test_close_frame(reason: str, kept: bytes) -> None:
    assert close_frame(1001, reason, None) == frame(CLOSE, b"\x03\xe9" + kept)
    assert close_frame(1001, reason, MASK) == frame(CLOSE, b"\x03\xe9" + kept, mask=MASK)


# The second bytes at which a header's shape changes, without and with a mask.
SECOND_BYTES = [mask | length for mask in (0, 0x80) for length in (0, 1, 2, 125, 126, 127)]
# What follows: lengths in their shortest form and not, the top bit of 63, a mask.
FOLLOWING = [b"\x00\x05", b"\x00\x7e", b"\x80\x00"]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rsv", [0, 0x40, 0x70])
def test_every_beginning_of_a_header_in_every_two_cuts(masked: bool, rsv: int) -> None:
    """All 256 first bytes: the same verdict however the header arrives."""
    for first in range(256):
        for second in SECOND_BYTES:
            for follow in FOLLOWING:
                data = bytes((first, second)) + follow + bytes(12)
                whole = FrameTracker(masked=masked, rsv=rsv)
                whole.feed(data, len(data))
                for one, two in ((1, 2), (1, 4), (2, 3), (3, 9), (4, 6), (1, 10)):
                    pieces = FrameTracker(masked=masked, rsv=rsv)
                    for piece in (data[:one], data[one:two], data[two:]):
                        pieces.feed(piece, len(piece))
                    assert seen(pieces) == seen(whole), data


def seen(tracker: FrameTracker) -> tuple[object, ...]:
    """What a tracker makes of a stream; the beginning of an illegal header may have passed."""
    violation = tracker.violation
    boundary = violation is not None or tracker.at_boundary
    return violation, tracker.messages, tracker.closed, boundary
