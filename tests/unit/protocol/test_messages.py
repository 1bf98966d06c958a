"""What is read from one direction of a WebSocket: messages in pieces, and what ends it."""

from __future__ import annotations

import pytest
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from relay.protocol.lifecycle import Kind
from relay.protocol.messages import PIECE, MessageReader
from tests.helpers.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
)

MASK = b"\x01\x02\x03\x04"


def read(*chunks: bytes, masked: bool = False, max_message: int = 0) -> list[Event | Kind]:
    reader = MessageReader(masked=masked, max_message=max_message)
    return [event for chunk in chunks for event in reader.feed(chunk)]


def code(number: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, number.to_bytes(2, "big") + reason)


def test_each_kind_of_frame() -> None:
    data = b"".join(
        [
            frame(TEXT, "Zoë".encode()),
            frame(BINARY, b"\x00\xff"),
            frame(PING, b"p"),
            frame(PONG),
            frame(TEXT),
            code(4001, "bye, Zoë".encode()),
            frame(BINARY, b"behind the Close"),
        ]
    )
    assert read(data) == [
        TextMessage("Zoë"),
        BytesMessage(b"\x00\xff"),
        Ping(b"p"),
        Pong(b""),
        TextMessage(""),
        CloseConnection(4001, "bye, Zoë"),
    ]


def test_fragments_keep_their_message_open_and_let_control_frames_between() -> None:
    data = [
        frame(TEXT, b"a", fin=False),
        frame(PING, b"1"),
        frame(CONTINUATION, b"b", fin=False),
        frame(CONTINUATION, b"c"),
    ]
    assert read(*data) == [
        TextMessage("a", message_finished=False),
        Ping(b"1"),
        TextMessage("b", message_finished=False),
        TextMessage("c"),
    ]


def test_a_small_frame_is_given_whole_and_a_long_one_in_pieces() -> None:
    small = frame(BINARY, b"s" * (PIECE - 1))
    assert read(*(small[at : at + 1000] for at in range(0, len(small), 1000))) == [
        BytesMessage(b"s" * (PIECE - 1))
    ]
    long = frame(BINARY, b"l" * (3 * PIECE))
    events = read(*(long[at : at + 1000] for at in range(0, len(long), 1000)))
    sizes = [len(event.data) for event in events if isinstance(event, BytesMessage)]
    assert sum(sizes) == 3 * PIECE
    assert all(PIECE <= size < PIECE + 1000 for size in sizes[:-1])
    finished = [isinstance(each, BytesMessage) and each.message_finished for each in events]
    assert finished == [False] * (len(events) - 1) + [True]


def test_a_character_may_be_cut_by_a_fragment_but_not_by_the_end() -> None:
    cut = "é".encode()
    assert read(frame(TEXT, b"x" + cut[:1], fin=False), frame(CONTINUATION, cut[1:])) == [
        TextMessage("x", message_finished=False),
        TextMessage("é"),
    ]
    assert read(frame(TEXT, b"x" + cut[:1])) == [Kind.NOT_TEXT]
    assert read(frame(BINARY, cut[:1])) == [BytesMessage(cut[:1])]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (frame(0x3), Kind.VIOLATION),
        (frame(TEXT, rsv=0x40), Kind.VIOLATION),
        (frame(TEXT, mask=MASK), Kind.VIOLATION),
        (frame(CONTINUATION), Kind.VIOLATION),
        (frame(PING, fin=False), Kind.VIOLATION),
        (frame(PING, b"x" * 126), Kind.VIOLATION),
        (frame(BINARY, b"x", marker=126), Kind.VIOLATION),
        (frame(BINARY, b"x" * 126, marker=127), Kind.VIOLATION),
        (frame(BINARY, marker=127, length=2**63), Kind.VIOLATION),
        (frame(CLOSE, b"x"), Kind.VIOLATION),
        (frame(TEXT, b"\xff"), Kind.NOT_TEXT),
        (code(1000, b"\xff"), Kind.NOT_TEXT),
        *((code(number), Kind.VIOLATION) for number in (0, 999, 1005, 1006, 1015, 5000)),
    ],
)
def test_what_is_illegal_is_the_last_thing(data: bytes, kind: Kind) -> None:
    assert read(data, frame(TEXT, b"behind it")) == [kind]


@pytest.mark.parametrize("number", [1000, 1004, 1012, 1014, 2999, 3000, 4999])
def test_codes_that_may_be_sent_pass_although_wsproto_knows_no_name(number: int) -> None:
    assert read(code(number)) == [CloseConnection(number, "")]


def test_a_new_message_inside_another_is_found_in_its_header() -> None:
    assert read(frame(TEXT, b"a", fin=False), frame(BINARY, b"xyz")[:2]) == [
        TextMessage("a", message_finished=False),
        Kind.VIOLATION,
    ]


def test_the_limit_counts_all_fragments_and_a_header_is_enough() -> None:
    assert read(frame(BINARY, b"x" * 10), max_message=10) == [BytesMessage(b"x" * 10)]
    assert read(frame(BINARY, length=11), max_message=10) == [Kind.TOO_BIG]
    fragments = [frame(TEXT, b"x" * 6, fin=False), frame(PING, b"x" * 100)]
    fine = frame(CONTINUATION, b"x" * 4)
    assert read(*fragments, fine, frame(TEXT, b"y" * 10), max_message=10)[2:] == [
        TextMessage("x" * 4),
        TextMessage("y" * 10),
    ]
    assert read(*fragments, frame(CONTINUATION, length=5), max_message=10)[2:] == [Kind.TOO_BIG]


def test_boundaries() -> None:
    reader = MessageReader(masked=True)
    whole = frame(BINARY, b"abc", mask=MASK, fin=False)
    assert reader.at_boundary
    for size in range(1, len(whole)):
        reader = MessageReader(masked=True)
        list(reader.feed(whole[:size]))
        assert not reader.at_boundary
    list(reader.feed(whole[-1:]))
    assert reader.at_boundary, "between fragments too"
    list(reader.feed(b"\x83\x80\x00"))
    assert reader.ended
    assert reader.at_boundary, "nothing more is read"
