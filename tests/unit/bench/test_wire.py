"""The bench's own frames are right, so that it blames a target only for the target's faults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import wire

keys = st.integers(0, 2**32 - 1)


def reference_xor(payload: bytes, key: int) -> bytes:
    mask = key.to_bytes(4, "little")
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


@given(st.binary(max_size=70), keys)
def test_xor_is_the_mask_of_the_standard(payload: bytes, key: int) -> None:
    assert wire.xor(payload, key) == reference_xor(payload, key)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 65_541])
def test_a_frame_of_any_length_form_is_found_again(size: int) -> None:
    payload, key = bytes(range(251)) * (size // 251) + bytes(size % 251), 0xA1B2C3D4
    frame = b"xx" + wire.client_frame(wire.BINARY, payload, key)
    found = wire.frame_at(frame, 2, len(frame), masked=True)
    assert found is not None
    first, found_key, body, end = found
    assert (first, found_key, end) == (wire.BINARY, key, len(frame))
    assert wire.xor(frame[body:end], key) == payload


@given(st.binary(max_size=300), keys, st.data())
def test_a_frame_that_is_cut_short_is_not_found(
    payload: bytes, key: int, data: st.DataObject
) -> None:
    frame = wire.client_frame(wire.BINARY, payload, key)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert wire.frame_at(frame, 0, cut, masked=True) is None


@pytest.mark.parametrize(
    ("frame", "masked", "code"),
    [
        (b"\xc2\x00", False, 1002),
        (b"\x82\x80\0\0\0\0", False, 1002),
        (b"\x82\x00", True, 1002),
        (b"\x09\x00", False, 1002),
        (b"\x89\x7e\x00\x80", False, 1002),
        (b"\x82\x7f" + (wire.MAX_FRAME + 1).to_bytes(8, "big"), False, 1009),
    ],
)
def test_bad_frames_are_refused_with_their_code(frame: bytes, masked: bool, code: int) -> None:
    with pytest.raises(wire.BadFrame) as caught:
        wire.frame_at(frame, 0, len(frame), masked=masked)
    assert caught.value.code == code


def test_the_accept_key_is_that_of_the_standards_example() -> None:
    assert wire.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_head_is_taken_apart() -> None:
    head = wire.parse_head(b"GET /ws?x=1 HTTP/1.1\r\nHost: a:1\r\nX-Y:  z ")
    assert head.first == [b"GET", b"/ws?x=1", b"HTTP/1.1"]
    assert head.fields == {b"host": b"a:1", b"x-y": b"z"}


@pytest.mark.parametrize("head", [b"", b"GET", b"GET / HTTP/1.1\r\nno colon"])
def test_what_is_no_head_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="head"):
        wire.parse_head(head)
