"""Laws of the frame tracker, with wsproto as the judge where it has a word."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.frame_headers import RSV_DEFLATE, close_frame
from relay.protocol.frames import FrameTracker
from tests.helpers.frames import (
    LEGAL_CODES,
    MASKS,
    Stream,
    cut_up,
    frame,
    judge,
    streams,
)

CUTS = st.lists(st.integers(0, 3000), max_size=12)
# No message of these tests is as long: who has such a limit looks at each frame by itself.
ENORMOUS = 2**62
# As many bytes as any header needs to be complete, and the byte behind it.
ENOUGH = bytes(16)


def tracker_of(stream: Stream, *, max_message: int = 0) -> FrameTracker:
    rsv = RSV_DEFLATE if stream.deflate else 0
    return FrameTracker(masked=stream.masked, rsv=rsv, max_message=max_message)


def feed_all(tracker: FrameTracker, chunks: list[bytes]) -> int:
    """Feed until a chunk may not pass whole; return how many bytes passed in all."""
    total = 0
    for chunk in chunks:
        passed = tracker.feed(chunk, len(chunk))
        total += passed
        if passed != len(chunk):
            break
    return total


def state_of(tracker: FrameTracker) -> tuple[object, ...]:
    return (
        tracker.messages,
        tracker.at_boundary,
        tracker.closed,
        tracker.close_code,
        tracker.close_reason,
        tracker.violation,
        tracker.frames,
    )


@st.composite
def damaged(draw: st.DrawFn) -> Stream:
    """A legal stream with some bits turned over, bytes lost or frames out of order."""
    stream = draw(streams())
    frames = list(stream.frames) or [b"\x81\x00"]
    for _ in range(draw(st.integers(1, 3))):
        index = draw(st.integers(0, len(frames) - 1))
        spoilt = bytearray(frames[index])
        match draw(st.sampled_from(("bits", "header", "lose", "repeat"))):
            case "bits":
                spoilt[draw(st.integers(0, min(13, len(spoilt) - 1)))] ^= draw(st.integers(1, 255))
            case "header":
                spoilt[:2] = draw(st.binary(min_size=2, max_size=2))
            case "lose":
                del frames[index]
                frames = frames or [b"\x00\x00"]
                continue
            case "repeat":
                frames.insert(index, bytes(spoilt))
                continue
        frames[index] = bytes(spoilt)
    return Stream(stream.masked, stream.deflate, tuple(frames))


@given(streams(), CUTS)
def test_a_legal_stream_is_read_as_wsproto_reads_it(stream: Stream, cuts: list[int]) -> None:
    verdict = judge(stream.data, masked=stream.masked, deflate=stream.deflate)
    tracker, offset = tracker_of(stream), 0
    for chunk in cut_up(stream.data, cuts):
        assert tracker.feed(chunk, len(chunk)) == len(chunk)
        offset += len(chunk)
        assert tracker.at_boundary == (offset in verdict.boundaries)
    assert tracker.violation is None
    assert verdict.refused is None
    assert tracker.messages == verdict.messages
    assert tracker.closed == verdict.closed
    assert (tracker.close_code, tracker.close_reason) == (verdict.close or (1005, ""))


@given(streams(), st.binary(max_size=6), CUTS)
def test_no_chunking_makes_a_difference(stream: Stream, more: bytes, cuts: list[int]) -> None:
    # What may follow is the beginning of one more legal frame.
    mask = b"mask" if stream.masked else None
    data = stream.data + frame(2, more * 30, mask=mask)[: len(more)]
    whole, pieces = tracker_of(stream), tracker_of(stream)
    passed = whole.feed(data, len(data))
    assert feed_all(pieces, cut_up(data, cuts)) == passed
    assert state_of(pieces) == state_of(whole)


@given(damaged(), CUTS)
def test_no_chunking_changes_a_verdict(stream: Stream, cuts: list[int]) -> None:
    whole, pieces = tracker_of(stream, max_message=200), tracker_of(stream, max_message=200)
    passed = whole.feed(stream.data, len(stream.data))
    passed_in_pieces = feed_all(pieces, cut_up(stream.data, cuts))
    assert pieces.violation == whole.violation
    assert (pieces.messages, pieces.closed) == (whole.messages, whole.closed)
    if whole.violation is None:
        assert passed_in_pieces == passed
    else:  # the beginning of the header may have passed before it was known to be illegal
        assert passed <= passed_in_pieces < passed + 14


@given(streams() | damaged(), CUTS)
def test_passing_over_frames_finds_what_a_look_at_each_finds(
    stream: Stream, cuts: list[int]
) -> None:
    quick, thorough = tracker_of(stream), tracker_of(stream, max_message=ENORMOUS)
    for chunk in cut_up(stream.data, cuts):
        assert quick.feed(chunk, len(chunk)) == thorough.feed(chunk, len(chunk))
        assert state_of(quick) == state_of(thorough)


@st.composite
def large_streams(draw: st.DrawFn) -> tuple[Stream, list[int]]:
    """Frames about the size from which a length has eight bytes; cuts in and about headers."""
    masked, opened, frames, starts = draw(st.booleans()), False, [], [0]
    mask = bytes(4) if masked else None
    sizes = st.sampled_from((0, 125, 65_535, 65_536, 65_537, 200_000))
    for size, more in draw(st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=5)):
        head = frame(0 if opened else 2, fin=not more, mask=mask, length=size)
        frames += [head + b"\x82" * size, frame(9, b"ping", mask=mask)]
        starts += [starts[-1] + len(head) + size, starts[-1] + len(head) + size + len(frames[-1])]
        opened = more
    near = st.tuples(st.sampled_from(starts), st.integers(-3, 17)).map(sum)
    return Stream(masked, False, tuple(frames)), draw(st.lists(near, max_size=8))


@given(large_streams())
def test_large_frames_are_passed_over_wherever_they_are_cut(
    drawn: tuple[Stream, list[int]],
) -> None:
    stream, cuts = drawn
    quick, thorough = tracker_of(stream), tracker_of(stream, max_message=ENORMOUS)
    for chunk in cut_up(stream.data, cuts):
        assert quick.feed(chunk, len(chunk)) == len(chunk) == thorough.feed(chunk, len(chunk))
        assert state_of(quick) == state_of(thorough)
    assert quick.messages == sum(each[0] & 0x8F in (0x80, 0x82) for each in stream.frames)


@given(damaged())
def test_what_wsproto_refuses_for_its_header_is_refused_and_nothing_else(stream: Stream) -> None:
    data = stream.data + ENOUGH
    verdict = judge(data, masked=stream.masked, deflate=stream.deflate)
    tracker = tracker_of(stream)
    passed = tracker.feed(data, len(data))
    if verdict.content:
        return
    assert (tracker.violation is not None) == (verdict.refused is not None)
    if verdict.refused is not None:
        assert tracker.violation is not None
        assert tracker.violation.code == 1002
        assert passed == verdict.boundaries[-1]
        assert tracker.feed(b"\x82\x00\x82\x00", 4) == 0
    assert (tracker.messages, tracker.closed) == (verdict.messages, verdict.closed)


@given(st.booleans(), st.sampled_from((0, 0x40, 0x70)), st.integers(0, 9), st.lists(st.binary()))
def test_arbitrary_bytes_never_raise(
    masked: bool, rsv: int, max_message: int, chunks: list[bytes]
) -> None:
    tracker = FrameTracker(masked=masked, rsv=rsv, max_message=max_message)
    for chunk in chunks:
        ended = tracker.closed or tracker.violation is not None
        passed = tracker.feed(chunk, len(chunk))
        assert 0 <= passed <= len(chunk) * (not ended)
        assert passed == len(chunk) or tracker.closed or tracker.violation is not None


@given(streams(), CUTS, st.binary(max_size=20))
def test_bytes_behind_the_size_are_not_seen(stream: Stream, cuts: list[int], stale: bytes) -> None:
    exact, scratch = tracker_of(stream), tracker_of(stream)
    for chunk in cut_up(stream.data, cuts):
        passed = exact.feed(chunk, len(chunk))
        assert scratch.feed(bytearray(chunk + stale), len(chunk)) == passed
        assert state_of(scratch) == state_of(exact)


@given(streams(), st.integers(0, 3000), CUTS)
def test_cut_stops_at_the_first_boundary(stream: Stream, begin: int, cuts: list[int]) -> None:
    data = stream.data
    begin %= len(data) + 1
    boundaries = [0, *accumulate(map(len, stream.frames))]
    first = next(boundary for boundary in boundaries if boundary >= begin)
    tracker = tracker_of(stream)
    tracker.feed(data, begin)
    for chunk in cut_up(data[begin:], cuts):
        was_there = begin == first
        taken = tracker.cut(chunk, len(chunk))
        assert taken == min(len(chunk), first - begin)
        begin += taken
        assert tracker.at_boundary == (begin == first)
        if was_there:
            assert taken == 0


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), max_size=4),
    st.integers(1, 40),
    CUTS,
)
def test_the_limit_counts_whole_messages(
    messages: list[list[int]], limit: int, cuts: list[int]
) -> None:
    data, legal, done, over = b"", 0, 0, False
    for sizes in messages:
        for index, size in enumerate(sizes):
            over = over or sum(sizes[: index + 1]) > limit
            data += frame(0 if index else 2, b"x" * size, fin=index == len(sizes) - 1)
            data += frame(9, b"a ping does not count")
            legal = legal if over else len(data)
        done += not over
    # A frame that is one byte too long ends the stream in front of itself.
    whole = FrameTracker(masked=False, max_message=limit)
    assert whole.feed(data, len(data)) == legal
    pieces = FrameTracker(masked=False, max_message=limit)
    feed_all(pieces, cut_up(data, cuts))
    for tracker in (whole, pieces):
        assert tracker.messages == done
        assert (tracker.violation is not None) == over
        assert tracker.violation is None or tracker.violation.code == 1009


@given(
    st.sampled_from(LEGAL_CODES),
    st.text(max_size=40) | st.text(alphabet="aé€😀", min_size=30, max_size=130),
    st.none() | MASKS,
)
def test_a_close_goes_through_wsproto(code: int, reason: str, mask: bytes | None) -> None:
    written = close_frame(code, reason, mask)
    verdict = judge(written, masked=mask is not None, deflate=False)
    assert verdict.boundaries == [0, len(written)]
    assert verdict.close is not None
    assert verdict.close[0] == code
    kept = verdict.close[1]
    assert reason.startswith(kept)
    # As much as fits: whole characters, and the next one would be too much.
    assert len(kept.encode()) <= 123
    assert kept == reason or len(reason[: len(kept) + 1].encode()) > 123
