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
   whole final data frame. Many in a read, or large ones, are passed over by
   `_pass_over`; all else goes through `_step`, a frame piece at a time. Who knows by
   `first_word` that a read is one whole frame, while the tracker is `plain`, need not
   call `feed` but counts the message.
"""

from __future__ import annotations

__all__ = ["FrameTracker"]

from relay.protocol.frame_headers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTINUES,
    CONTROL,
    DATA_OPCODES,
    ENDS,
    FIN,
    FIXED_HEADER,
    LEAST_LONG,
    MASK,
    MAX_CONTROL,
    MAX_LENGTH,
    MESSAGE_TOO_BIG,
    NO_STATUS,
    OPCODES,
    OPENS,
    OTHER,
    PROTOCOL_ERROR,
    RSV,
    RSV_DEFLATE,
    STARTS,
    STARTS_DEFLATE,
    TEXT,
    Bytes,
    Violation,
    header_size,
    payload_length,
)

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
        frames: begun so far.
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
        "close_code",
        "close_reason",
        "closed",
        "frames",
        "messages",
        "plain",
        "violation",
    )

    def __init__(self, *, masked: bool, rsv: int = 0, max_message: int = 0) -> None:
        self._mask_bit = MASK if masked else 0
        # Header bytes of a frame from 126 to 65 535 bytes; a shorter one has two less.
        self._medium = 8 if masked else 4
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
        self.messages = self.frames = 0
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
                    total = length + self._medium - 2
                elif length == 126:
                    total = (data[2] << 8 | data[3]) + self._medium
                    if total < 126 + self._medium:
                        total = 0
                else:
                    total = 0
                if total == size and second & MASK == self._mask_bit:
                    self.frames += 1
                    self.messages += 1
                    return size
        position = 0
        while position < size and not self.closed and self.violation is None:
            under_way = self._remaining and self._opcode >= CLOSE
            if not (under_way or self._head or self._max_message):
                position = self._pass_over(data, position, size)
            if position < size:
                position = self._step(data, position, size)
        self.plain = self._is_plain()
        return position

    def _pass_over(self, data: Bytes, position: int, size: int) -> int:
        """Pass over the rest of a data frame and over frames behind it; where another thing begins.

        Bulk is few frames in a read, a burst after a stall or a flood many. Each header is judged
        as in `_judge`; what is left is Close, the forbidden, and headers that are not whole.
        """
        position += self._remaining
        if position > size:
            self._remaining = position - size
            return size
        if self._remaining:
            self._remaining = 0
            self._end_frame()
        medium, mask_bit = self._medium, self._mask_bit
        starts = STARTS_DEFLATE if self._rsv == RSV_DEFLATE else STARTS
        firsts = CONTINUES if self._fragmented else starts
        messages = others = 0
        while position + FIXED_HEADER <= size:
            first, second = data[position], data[position + 1]
            kind = firsts[first]
            if kind == OTHER or second & MASK != mask_bit:
                break
            length = second & 0x7F
            payload = position + medium
            if length < 126:
                payload -= 2
            elif kind == CONTROL:
                break
            elif length == 126:
                length = data[position + 2] << 8 | data[position + 3]
                if length < 126:
                    break
            else:
                payload += 6
                length = int.from_bytes(data[position + 2 : position + 10], "big")
                if not LEAST_LONG <= length <= MAX_LENGTH:
                    break
            end = payload + length
            if end > size:
                if payload <= size and kind != CONTROL:
                    self._opcode, self._final = first & 0x0F, kind == ENDS
                    self._remaining = end - size
                    firsts = starts if kind == ENDS else CONTINUES
                    position = size
                    others += 1
                break
            position = end
            if kind == ENDS:
                messages += 1
                firsts = starts
            else:
                others += 1
                if kind == OPENS:
                    firsts = CONTINUES
        self._fragmented = firsts is CONTINUES
        self.frames += messages + others
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
            need = header_size(head)
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
        length = payload_length(head)
        self.violation = self._judge_length(length, head)
        if self.violation is not None:
            return start
        self._head = b""
        self._begin_frame(head, length)
        return position

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
        self.frames += 1
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
