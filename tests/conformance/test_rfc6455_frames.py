"""RFC 6455 section 5 and RFC 7692 section 6, by section: which frames pass and which end it."""

from __future__ import annotations

import pytest

from relay.protocol.frame_headers import RSV_DEFLATE
from relay.protocol.frames import FrameTracker
from tests.helpers.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    cut_up,
    frame,
    judge,
)

KEY = bytes.fromhex("37fa213d")

# section, what, frames, from the client, whether all of them may pass
ROWS: list[tuple[str, str, list[bytes], bool, bool]] = [
    ("5.1", "masked from the client", [frame(TEXT, b"a", mask=KEY)], True, True),
    ("5.1", "unmasked from the client", [frame(TEXT, b"a")], True, False),
    ("5.1", "unmasked from the server", [frame(TEXT, b"a")], False, True),
    ("5.1", "masked from the server", [frame(TEXT, b"a", mask=KEY)], False, False),
    ("5.1", "a control frame masked from the server", [frame(PING, mask=KEY)], False, False),
    ("5.2", "RSV1", [frame(TEXT, rsv=0x40)], False, False),
    ("5.2", "RSV2", [frame(TEXT, rsv=0x20)], False, False),
    ("5.2", "RSV3", [frame(PONG, rsv=0x10)], False, False),
    *(
        ("5.2", f"reserved opcode {opcode:x}", [frame(opcode)], False, False)
        for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
    ),
    *(
        ("5.2", f"{size} bytes in {marker}", [frame(BINARY, b"x" * size, marker=marker)], False, ok)
        for size, marker, ok in (
            (125, 126, False),
            (126, 126, True),
            (65535, 126, True),
            (0, 127, False),
            (65535, 127, False),
            (65536, 127, True),
        )
    ),
    ("5.2", "length over 63 bits", [frame(BINARY, marker=127, length=1 << 63)], False, False),
    ("5.2", "length of 63 bits", [frame(BINARY, marker=127, length=(1 << 63) - 1)], False, True),
    ("5.4", "nothing to continue", [frame(CONTINUATION, b"a")], False, False),
    (
        "5.4",
        "a new message inside another",
        [frame(TEXT, b"a", fin=False), frame(TEXT, b"b")],
        False,
        False,
    ),
    (
        "5.4",
        "continued behind its end",
        [frame(TEXT, fin=False), frame(CONTINUATION), frame(CONTINUATION)],
        False,
        False,
    ),
    (
        "5.4",
        "control frames between fragments",
        [
            frame(TEXT, b"a", fin=False),
            frame(PING, b"p"),
            frame(CONTINUATION, fin=False),
            frame(PONG),
            frame(CONTINUATION, b"b"),
        ],
        False,
        True,
    ),
    ("5.4", "a fragmented ping", [frame(PING, fin=False)], False, False),
    ("5.5", "control frame of 125 bytes", [frame(PING, b"p" * 125)], False, True),
    ("5.5", "control frame of 126 bytes", [frame(PING, b"p" * 126)], False, False),
    ("5.5", "control frame in a longer form", [frame(PING, b"p", marker=126)], False, False),
    ("5.5.1", "Close without a code", [frame(CLOSE)], False, True),
    ("5.5.1", "Close with half a code", [frame(CLOSE, b"\x03")], False, False),
    ("5.5.1", "Close with a code", [frame(CLOSE, b"\x03\xe8")], False, True),
    ("5.5.1", "Close inside a message", [frame(TEXT, fin=False), frame(CLOSE)], False, True),
    ("5.5.1", "data behind a Close", [frame(CLOSE), frame(TEXT, b"a")], False, False),
    ("5.5.2", "a ping with data, masked", [frame(PING, b"Hello", mask=KEY)], True, True),
    ("5.5.3", "a pong that nobody asked for", [frame(PONG, b"Hello", mask=KEY)], True, True),
    (
        "5.7",
        "the RFC's examples",
        [
            bytes.fromhex("810548656c6c6f"),
            bytes.fromhex("010348656c"),
            bytes.fromhex("80026c6f"),
            bytes.fromhex("890548656c6c6f"),
        ],
        False,
        True,
    ),
    ("5.7", "the RFC's masked example", [bytes.fromhex("818537fa213d7f9f4d5158")], True, True),
]


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize(
    ("frames", "masked", "legal"),
    [pytest.param(*row[2:], id=f"{row[0]} {row[1]}") for row in ROWS],
)
def test_section_5(frames: list[bytes], masked: bool, legal: bool, pieces: str) -> None:
    tracker = FrameTracker(masked=masked)
    data = b"".join(frames)
    before = len(data) - len(frames[-1])
    passed = 0
    for chunk in [data] if pieces == "whole" else cut_up(data, range(len(data))):
        passed += tracker.feed(chunk, len(chunk))
    if legal:
        assert passed == len(data)
        assert tracker.violation is None
    elif pieces == "whole":
        assert passed == before
        assert tracker.closed or tracker.violation is not None
    else:
        assert before <= passed < before + 14
    if tracker.violation is not None:
        assert tracker.violation.code == 1002


@pytest.mark.parametrize(
    ("frames", "masked", "legal"),
    [
        pytest.param(*row[2:], id=f"{row[0]} {row[1]}")
        for row in ROWS
        if len(b"".join(row[2])) < 500
    ],
)
def test_wsproto_reads_the_table_alike(frames: list[bytes], masked: bool, legal: bool) -> None:
    verdict = judge(b"".join(frames), masked=masked, deflate=False)
    behind_close = len(frames) == 2 and frames[0][0] & 0x0F == CLOSE
    assert (verdict.refused is None) == (legal or behind_close)


@pytest.mark.parametrize(
    ("frames", "legal"),
    [
        pytest.param([frame(TEXT, b"a", rsv=0x40)], True, id="6.1 one compressed frame"),
        pytest.param(
            [frame(BINARY, b"a", rsv=0x40, fin=False), frame(CONTINUATION, b"b")],
            True,
            id="6.1 compressed over two frames",
        ),
        pytest.param(
            [frame(BINARY, b"a", fin=False), frame(CONTINUATION, b"b", rsv=0x40)],
            False,
            id="6.1 the bit on a continuation",
        ),
        pytest.param([frame(TEXT, b"a")], True, id="6 an uncompressed message"),
        pytest.param([frame(PING, b"a", rsv=0x40)], False, id="6 the bit on a control frame"),
        pytest.param([frame(TEXT, b"a", rsv=0x60)], False, id="6 another bit beside it"),
    ],
)
def test_rfc_7692(frames: list[bytes], legal: bool) -> None:
    data = b"".join(frames)
    tracker = FrameTracker(masked=False, rsv=RSV_DEFLATE)
    assert (tracker.feed(data, len(data)) == len(data)) == legal
    assert (tracker.violation is None) == legal
    assert (judge(data, masked=False, deflate=True).refused is None) == legal
