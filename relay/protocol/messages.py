"""One direction of a WebSocket as messages, read with wsproto (RFC 6455 section 5).

Laws
1. Whatever the chunking, `feed` gives the same messages and the same end.
2. A frame of up to `PIECE` bytes comes as one event, a longer one in pieces: what is
   held is at most one piece and what the last read brought.
3. What ends a stream, a Close or what RFC 6455 forbids, is the last that `feed` gives.
   A frame that its header forbids gives nothing before.

wsproto's own `Connection` does not tell where frames begin and end, nor how long one
will be before it is there, so its two decoders are used one by one.
"""

from __future__ import annotations

__all__ = ["PIECE", "MessageReader"]

from collections.abc import Iterator

from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.frame_protocol import (
    CloseReason,
    Frame,
    FrameDecoder,
    Header,
    MessageDecoder,
    Opcode,
    ParseFailed,
)

from relay.protocol.lifecycle import Kind

# Payload of a frame that is waited for, so that small frames pass whole: what a pump
# reads at a time. Any frame of audio is far smaller.
PIECE = 64 * 1024
# RFC 6455 section 7.4: codes on the wire are of this range, and these three never.
CODES = range(1000, 5000)
NEVER_SENT = (CloseReason.NO_STATUS_RCVD, CloseReason.ABNORMAL_CLOSURE, 1015)

KINDS = {
    CloseReason.PROTOCOL_ERROR: Kind.VIOLATION,
    CloseReason.MESSAGE_TOO_BIG: Kind.TOO_BIG,
    CloseReason.INVALID_FRAME_PAYLOAD_DATA: Kind.NOT_TEXT,
}


class MessageReader:
    """Reads what a client, or a bot, sends; no extensions.

    Args:
        masked: frames of this direction must be masked (they come from a client) or
            must not be.
        max_message: longest message in payload bytes over all its fragments; 0 is no limit.

    Attributes:
        ended: a Close has come, or something that is illegal; nothing is read any more.
    """

    def __init__(self, *, masked: bool, max_message: int = 0) -> None:
        self._frames = FrameDecoder(client=not masked)
        self._messages = MessageDecoder()
        self._max_message = max_message
        self._message_size = 0
        self._held: list[str | bytes] = []
        self._held_size = 0
        self.ended = False

    @property
    def at_boundary(self) -> bool:
        """No frame is under way."""
        return self.ended or (self._frames.header is None and not len(self._frames.buffer))

    def feed(self, data: bytes) -> Iterator[Event | Kind]:
        """Take bytes; give what they complete: messages or pieces of them, control frames.

        A `Kind` says what was illegal. The iterator must be used up before the next call.
        """
        if self.ended:
            return
        self._frames.receive_bytes(data)
        try:
            while (frame := self._next_frame()) is not None:
                event = self._event(frame)
                if event is not None:
                    self.ended = isinstance(event, CloseConnection)
                    yield event
                if self.ended:
                    return
        except ParseFailed as error:
            self.ended = True
            yield KINDS[error.code]

    def _next_frame(self) -> Frame | None:
        """The next frame, or what is there of one."""
        frames = self._frames
        begins = frames.header is None
        if begins and not frames.parse_header():
            return None
        if begins and frames.header is not None:
            self._judge(frames.header)
        return frames.process_buffer()

    def _judge(self, header: Header) -> None:
        """What wsproto would find out later, or not at all."""
        opcode, size = header.opcode, header.payload_len
        if opcode.iscontrol():
            if opcode is Opcode.CLOSE and size == 1:
                raise ParseFailed("close frame of one byte")
            return
        if (opcode is Opcode.CONTINUATION) != (self._messages.opcode is not None):
            raise ParseFailed("message out of sequence")
        self._message_size = size + (self._message_size if opcode is Opcode.CONTINUATION else 0)
        if self._max_message and self._message_size > self._max_message:
            raise ParseFailed("message too big", CloseReason.MESSAGE_TOO_BIG)

    def _event(self, frame: Frame) -> Event | None:
        assert not isinstance(frame.payload, str | tuple)
        payload = bytes(frame.payload)
        if frame.opcode is Opcode.PING:
            return Ping(payload=payload)
        if frame.opcode is Opcode.PONG:
            return Pong(payload=payload)
        if frame.opcode is Opcode.CLOSE:
            return _closing(payload)
        message = self._messages.process_frame(frame)
        assert not isinstance(message.payload, tuple)
        self._held.append(message.payload)
        self._held_size += len(payload)
        if not frame.frame_finished and self._held_size < PIECE:
            return None
        pieces, self._held, self._held_size = self._held, [], 0
        if message.opcode is Opcode.TEXT:
            text = "".join(piece for piece in pieces if isinstance(piece, str))
            return TextMessage(text, message_finished=message.message_finished)
        data = b"".join(piece for piece in pieces if isinstance(piece, bytes))
        return BytesMessage(data, message_finished=message.message_finished)


def _closing(payload: bytes) -> CloseConnection:
    if not payload:
        return CloseConnection(code=CloseReason.NO_STATUS_RCVD, reason="")
    code = int.from_bytes(payload[:2], "big")
    if code not in CODES or code in NEVER_SENT:
        raise ParseFailed("close code that may not be sent")
    try:
        return CloseConnection(code=code, reason=payload[2:].decode())
    except UnicodeDecodeError:
        wrong = CloseReason.INVALID_FRAME_PAYLOAD_DATA
        raise ParseFailed("close reason that is not UTF-8", wrong) from None
