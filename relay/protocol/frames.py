"""Where WebSocket frames begin and end, read from their headers alone (RFC 6455 section 5.2).

Laws
1. Whatever the chunking, the tracker sees the same frames: `feed` over any split
   of a stream leaves the same state and counts.
2. Payload bytes are never looked at, except those of a Close frame.
3. `feed` returns how many bytes may pass. Fewer than given means that the stream
   ends there: behind a Close, or in front of a header that RFC 6455 forbids.

Theory of operation
   The tracker is between frames (nothing pending), inside a header that arrived
   in pieces (`_head` holds them), or inside a payload (`_remaining` > 0). A voice
   call sends one small frame a read, so `feed` first tries for exactly that: one
   whole final data frame. All else goes through `_step`, a frame piece at a time.
   Who knows by `first_word` that a read is one such frame, while the tracker is
   `plain`, need not call `feed` but counts the message.
"""

from __future__ import annotations

__all__ = ["BINARY", "TEXT", "FrameTracker", "Violation", "close_frame", "first_word"]

from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
DATA_OPCODES = frozenset((CONTINUATION, TEXT, BINARY))
OPCODES = DATA_OPCODES | {CLOSE, PING, PONG}

FIN = 0x80
MASK = 0x80
RSV = 0x70
RSV_DEFLATE = 0x40  # RFC 7692 section 6: permessage-deflate owns RSV1 on a message's first frame

# The bytes of a header that are read before its length is known: two, and two of the
# extended length. A read that is no longer takes the slow way.
FIXED_HEADER = 4
MAX_CONTROL = 125  # RFC 6455 section 5.5
MAX_REASON = MAX_CONTROL - 2
MAX_LENGTH = 2**63 - 1  # RFC 6455 section 5.2: the most significant bit is 0

PROTOCOL_ERROR = 1002
MESSAGE_TOO_BIG = 1009
NO_STATUS = 1005  # RFC 6455 section 7.4.1: a Close without a code; never sent

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Violation:
    """A header that ends the connection: the close code and why."""

    code: int
    reason: str


# What a tracker knows of a stream that has not ended.
MOVING = (
    "plain", "_head", "_remaining", "_opcode", "_final", "_fragmented", "_message_size",
    "_close_payload", "messages",
)  # fmt: skip


class FrameTracker:
    """Follows one direction of a WebSocket.

    Args:
        masked: frames of this direction must be masked (client to server) or must
            not be (server to client), RFC 6455 section 5.1.
        rsv: reserved bits that negotiated extensions may use: 0, `RSV_DEFLATE`, or
            `RSV` for extensions that this module does not know.
        max_message: longest message in payload bytes over all its fragments; 0 is no limit.

    Attributes:
        messages: data messages completed so far.
        closed: a whole Close frame was seen; `close_code` and `close_reason` say which.
        plain: a message may begin here, and its length is not limited.
        violation: why the stream is illegal, or None.
    """

    __slots__ = (
        "_close_payload",
        "_final",
        "_fragmented",
        "_head",
        "_mask_bit",
        "_max_message",
        "_medium",
        "_message_size",
        "_opcode",
        "_remaining",
        "_rsv",
        "_short",
        "close_code",
        "close_reason",
        "closed",
        "messages",
        "plain",
        "violation",
    )

    def __init__(self, *, masked: bool, rsv: int = 0, max_message: int = 0) -> None:
        self._mask_bit = MASK if masked else 0
        self._short = 6 if masked else 2  # header bytes of a frame below 126 bytes
        self._medium = 8 if masked else 4  # header bytes of a frame below 65 536 bytes
        self._rsv = rsv
        self._max_message = max_message
        self.plain = not max_message
        self._head = b""
        self._remaining = 0
        self._opcode = 0
        self._final = False
        self._fragmented = False
        self._message_size = 0
        self._close_payload = b""
        self.messages = 0
        self.closed = False
        self.close_code = NO_STATUS
        self.close_reason = ""
        self.violation: Violation | None = None

    def export(self) -> dict[str, bool | int | bytes]:
        """The state of a stream that goes on, for `restore` in another process."""
        return {name: getattr(self, name) for name in MOVING}

    def restore(self, state: dict[str, bool | int | bytes]) -> None:
        """Go on where the exporting tracker, made with the same arguments, was."""
        for name in MOVING:
            setattr(self, name, state[name])

    @property
    def at_boundary(self) -> bool:
        """No frame is under way: a frame of one's own may be written here."""
        return not self._remaining and not self._head

    def feed(self, data: Bytes, size: int) -> int:
        """Take the next `size` bytes of `data`; return how many of them may pass."""
        if self.plain and size > FIXED_HEADER:
            # One whole final data frame, the shape of every audio message. `data` may
            # hold stale bytes behind `size`; a length read from them can't match.
            first = data[0]
            if first == 0x82 or first == 0x81 or (first & 0xBF in (0x82, 0x81) and self._rsv):
                second = data[1]
                length = second & 0x7F
                if length < 126:
                    total = length + self._short
                elif length == 126:
                    total = (data[2] << 8 | data[3]) + self._medium
                    if total < 126 + self._medium:
                        total = 0
                else:
                    total = 0
                if total == size and second & MASK == self._mask_bit:
                    self.messages += 1
                    return size
        position = 0
        while position < size and not self.closed and self.violation is None:
            if not (self._remaining or self._head or self._fragmented or self._max_message):
                position = self._skip_whole(data, position, size)
            if position < size:
                position = self._step(data, position, size)
        self.plain = self._is_plain()
        return position

    def _skip_whole(self, data: Bytes, position: int, size: int) -> int:
        """Pass over whole unfragmented data frames below 64 KiB; where the next thing begins.

        A burst after a stall is many of them in one read; each is judged as in `_judge`.
        """
        short, medium, mask_bit = self._short, self._medium, self._mask_bit
        messages = 0
        while position + 4 <= size:
            first, second = data[position], data[position + 1]
            if (first != 0x82 and first != 0x81) or second & MASK != mask_bit:
                break
            length = second & 0x7F
            if length < 126:
                end = position + short + length
            elif length == 126:
                length = data[position + 2] << 8 | data[position + 3]
                end = position + medium + length
                if length < 126:
                    break
            else:
                break
            if end > size:
                break
            position = end
            messages += 1
        self.messages += messages
        return position

    def cut(self, data: Bytes, size: int) -> int:
        """Take bytes up to the first frame boundary only; return how many.

        `at_boundary` then tells whether the boundary was reached.
        """
        position = 0
        while position < size and not self.at_boundary and self.violation is None:
            position = self._step(data, position, size)
        self.plain = self._is_plain()
        return position

    def _is_plain(self) -> bool:
        """Any data frame may begin here: nothing is pending and the stream has not ended."""
        ended = self.closed or self.violation is not None or self._max_message
        return self.at_boundary and not self._fragmented and not ended

    def _step(self, data: Bytes, position: int, size: int) -> int:
        """Take one piece of a frame, a header or payload bytes; return the new position."""
        if not self._remaining:
            return self._take_header(data, position, size)
        taken = min(self._remaining, size - position)
        self._remaining -= taken
        if self._opcode == CLOSE:
            self._close_payload += bytes(data[position : position + taken])
        if not self._remaining:
            self._end_frame()
        return position + taken

    def _take_header(self, data: Bytes, start: int, size: int) -> int:
        head = self._head
        position = start
        while True:
            need = self._header_size(head)
            missing = need - len(head)
            if missing <= 0:
                break
            piece = bytes(data[position : min(position + missing, size)])
            head += piece
            position += len(piece)
            if len(head) >= 2:
                self.violation = self._judge(head[0], head[1])
                if self.violation is not None:
                    return start
            if len(piece) < missing:
                self._head = head
                return position
        length = self._length(head)
        self.violation = self._judge_length(length, head)
        if self.violation is not None:
            return start
        self._head = b""
        self._begin_frame(head, length)
        return position

    @staticmethod
    def _header_size(head: bytes) -> int:
        if len(head) < 2:
            return 2
        length = head[1] & 0x7F
        extended = 0 if length < 126 else 2 if length == 126 else 8
        return 2 + extended + (4 if head[1] & MASK else 0)

    @staticmethod
    def _length(head: bytes) -> int:
        length = head[1] & 0x7F
        if length < 126:
            return length
        return int.from_bytes(head[2:4] if length == 126 else head[2:10], "big")

    def _judge(self, first: int, second: int) -> Violation | None:
        """What RFC 6455 forbids in the first two bytes of a header."""
        opcode = first & 0x0F
        reserved = first & RSV
        if reserved & ~self._rsv:
            return Violation(PROTOCOL_ERROR, "reserved bits without an extension")
        if reserved and self._rsv == RSV_DEFLATE and opcode not in (TEXT, BINARY):
            return Violation(PROTOCOL_ERROR, "compression bit on a frame that cannot carry it")
        if opcode not in OPCODES:
            return Violation(PROTOCOL_ERROR, "reserved opcode")
        if second & MASK != self._mask_bit:
            return Violation(PROTOCOL_ERROR, "mask missing" if self._mask_bit else "mask forbidden")
        if opcode not in DATA_OPCODES:
            if not first & FIN:
                return Violation(PROTOCOL_ERROR, "fragmented control frame")
            if second & 0x7F > MAX_CONTROL:
                return Violation(PROTOCOL_ERROR, "control frame over 125 bytes")
            if opcode == CLOSE and second & 0x7F == 1:
                return Violation(PROTOCOL_ERROR, "close frame of one byte")
        elif (opcode == CONTINUATION) != self._fragmented:
            return Violation(PROTOCOL_ERROR, "message out of sequence")
        return None

    def _judge_length(self, length: int, head: bytes) -> Violation | None:
        marker = head[1] & 0x7F
        if length > MAX_LENGTH:
            return Violation(PROTOCOL_ERROR, "length over 63 bits")
        if (marker == 126 and length < 126) or (marker == 127 and length < 65536):
            return Violation(PROTOCOL_ERROR, "length not in its shortest form")
        if head[0] & 0x0F in DATA_OPCODES and self._max_message:
            before = self._message_size if head[0] & 0x0F == CONTINUATION else 0
            if before + length > self._max_message:
                return Violation(MESSAGE_TOO_BIG, f"message over {self._max_message} bytes")
        return None

    def _begin_frame(self, head: bytes, length: int) -> None:
        self._opcode = head[0] & 0x0F
        self._final = bool(head[0] & FIN)
        self._remaining = length
        if self._opcode == CLOSE:
            self._close_payload = head[-4:] if self._mask_bit else b"\0\0\0\0"
        elif self._opcode in DATA_OPCODES:
            self._message_size = length + (self._message_size if self._fragmented else 0)
            self._fragmented = not self._final
        if not length:
            self._end_frame()

    def _end_frame(self) -> None:
        if self._opcode in DATA_OPCODES:
            self.messages += self._final
        elif self._opcode == CLOSE:
            mask, payload = self._close_payload[:4], self._close_payload[4:]
            clear = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
            if clear:
                self.close_code = int.from_bytes(clear[:2], "big")
                self.close_reason = clear[2:].decode("utf-8", "replace")
            self.closed = True


def first_word(size: int, *, masked: bool, opcode: int) -> bytes:
    """The first four bytes of a whole message's frame.

    Args:
        size: bytes of the frame with its header; 134 to 65 539, where those four tell it.
        opcode: `TEXT` or `BINARY`.
    """
    length = size - (8 if masked else 4)
    return bytes((FIN | opcode, 126 | (MASK if masked else 0))) + length.to_bytes(2, "big")


def close_frame(code: int, reason: str, mask: bytes | None) -> bytes:
    """A Close frame with `code` and as much of `reason` as fits (RFC 6455 section 5.5.1).

    Args:
        code: 1005 makes a Close without a code, which is what stands for it.
        mask: four random bytes for a frame toward a server, None toward a client.
    """
    text = reason.encode()[:MAX_REASON].decode("utf-8", "ignore").encode()
    payload = b"" if code == NO_STATUS else code.to_bytes(2, "big") + text
    if mask is None:
        return bytes((FIN | CLOSE, len(payload))) + payload
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((FIN | CLOSE, MASK | len(payload))) + mask + masked
