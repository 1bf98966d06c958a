"""WebSocket frames written byte by byte, streams of them, and wsproto as their judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Frame, FrameDecoder, FrameProtocol, ParseFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
# Close codes that wsproto takes from a peer; the others it refuses for their content.
LEGAL_CODES = (1000, 1001, 1008, 1011, 1012, 3000, 4999)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    marker: int | None = None,
    length: int | None = None,
) -> bytes:
    """A frame, legal or not.

    Args:
        rsv: the reserved bits in place (0x40, 0x20, 0x10).
        mask: four bytes, None for an unmasked frame.
        marker: 126 or 127 for a longer form of the length than is needed.
        length: what the header says, if not the truth.
    """
    size = len(payload) if length is None else length
    if marker is None:
        marker = size if size < 126 else 126 if size < 65536 else 127
    extended = {126: 2, 127: 8}.get(marker, 0)
    head = bytes(((0x80 if fin else 0) | rsv | opcode, (0x80 if mask else 0) | marker))
    head += size.to_bytes(extended, "big") if extended else b""
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def cut_up(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` in pieces that end at `cuts`; cuts beyond its end count from the front again."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


class _HeadersOfDeflate(PerMessageDeflate):
    """permessage-deflate's rules for headers; payloads stay as they are."""

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        return data

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        return None


class _HeaderJudge(FrameProtocol):
    """wsproto's rules, except that the content of a Close may be anything."""

    def _process_close(self, frame: Frame) -> Frame:
        try:
            return super()._process_close(frame)
        except ParseFailed:
            if len(frame.payload) == 1:
                raise  # the header alone tells that
            return frame


@dataclass
class Verdict:
    """What wsproto finds in a stream, given to it a byte at a time.

    Attributes:
        boundaries: every offset at which no frame is under way.
        refused: the offset behind the byte for which a header was refused.
        content: payload that a tracker does not look at was refused; nothing else counts then.
    """

    messages: int = 0
    boundaries: list[int] = field(default_factory=lambda: [0])
    close: tuple[int, str] | None = None
    closed: bool = False
    refused: int | None = None
    content: bool = False


def judge(data: bytes, *, masked: bool, deflate: bool) -> Verdict:
    """Ask wsproto about one direction of a connection."""
    extension = _HeadersOfDeflate()
    extension.finalize("permessage-deflate")
    wsproto = _HeaderJudge(client=not masked, extensions=[extension] if deflate else [])
    verdict = Verdict()
    for offset in range(1, len(data) + 1):
        wsproto.receive_bytes(data[offset - 1 : offset])
        try:
            for found in wsproto.received_frames():
                _count(found, verdict)
        except ParseFailed as error:
            verdict.content = error.code is CloseReason.INVALID_FRAME_PAYLOAD_DATA
            verdict.refused = offset
            break
        decoder = wsproto._frame_decoder
        if decoder.header is None and not len(decoder.buffer):
            verdict.boundaries.append(offset)
        if verdict.closed:
            break
    return verdict


def _count(found: Frame, verdict: Verdict) -> None:
    if found.opcode == CLOSE:
        verdict.closed = True
        if isinstance(found.payload, tuple):
            verdict.close = (int(found.payload[0]), found.payload[1])
    elif found.opcode in (TEXT, BINARY):
        verdict.messages += found.frame_finished and found.message_finished


# Text is ASCII, so that wsproto has nothing to say about what is inside.
PAYLOADS = st.one_of(
    st.text(alphabet="ab \x00~", max_size=12).map(str.encode),
    st.sampled_from([0, 1, 125, 126, 127, 300]).map(b"x".__mul__),
)
CONTROL_PAYLOADS = st.binary(max_size=8) | st.just(b"c" * 125)
MASKS = st.binary(min_size=4, max_size=4)


@dataclass(frozen=True)
class Stream:
    """A legal stream of frames: one direction of a connection."""

    masked: bool
    deflate: bool
    frames: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        return b"".join(self.frames)


@st.composite
def streams(draw: st.DrawFn, *, may_close: bool = True) -> Stream:
    """Messages in fragments with control frames between them, perhaps a Close at the end."""
    masked, deflate = draw(st.booleans()), draw(st.booleans())
    frames: list[bytes] = []

    def add(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> None:
        mask = draw(MASKS) if masked else None
        frames.append(frame(opcode, payload, fin=fin, rsv=rsv, mask=mask))

    for _ in range(draw(st.integers(0, 4))):
        pieces = draw(st.lists(PAYLOADS, min_size=1, max_size=3))
        first = draw(st.sampled_from((TEXT, BINARY)))
        for index, piece in enumerate(pieces):
            if draw(st.booleans()):
                add(draw(st.sampled_from((PING, PONG))), draw(CONTROL_PAYLOADS))
            rsv = 0x40 if deflate and not index and draw(st.booleans()) else 0
            add(CONTINUATION if index else first, piece, fin=index == len(pieces) - 1, rsv=rsv)
    if may_close and draw(st.booleans()):
        code = draw(st.sampled_from((None, *LEGAL_CODES)))
        reason = draw(st.text(max_size=30)).encode()[:123].decode(errors="ignore")
        add(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())
    return Stream(masked, deflate, tuple(frames))
