"""The hand-over between the control process and a pump: messages with descriptors.

A Unix socket of type SEQPACKET keeps message boundaries and delivers a message
with its descriptors whole or not at all, so there is no framing and no partial
state on either side (unix(7)). Messages are msgpack; the type is a tag.

Direction    messages
to a pump    Adopt (with two descriptors: client, bot), Hold (with one: bot), End, EndAll,
             Recorded, Ask, Look, Quit
to control   Taken or Refused (for an Adopt or a Hold), Live (one per tunnel), Finished (until
             Recorded), Ready (after the others), BotEnded (answered by an End), View (answers Look)
"""

from __future__ import annotations

__all__ = [
    "GAP_CLASSES",
    "MAX_EARLY",
    "MAX_MESSAGE",
    "MAX_NAME",
    "MAX_TUNNELS",
    "NOTABLE_GAP",
    "TURN_CLASSES",
    "VERSION",
    "Adopt",
    "Ask",
    "BotEnded",
    "End",
    "EndAll",
    "Figures",
    "Finished",
    "Hold",
    "Live",
    "Look",
    "Quit",
    "Ready",
    "Recorded",
    "Refused",
    "Taken",
    "ToControl",
    "ToPump",
    "Totals",
    "View",
    "decode_to_control",
    "decode_to_pump",
    "gap_class",
    "receive",
    "send",
]

import array
import os
import socket
from typing import Annotated, Literal

import msgspec

KIB = 1024

# Raised when a message changes so that the other side would misread it: a pump outlives
# the control process that started it, and may meet a newer one.
VERSION = 3

# Early bytes of one side that ride along with an Adopt. A caller has no reason to
# send before the 101, a bot little; one handshake read of each side fits.
MAX_EARLY = 48 * KIB
# A whole message: the 101, early bytes of both sides, the rest. Below Linux's default
# of 208 KiB for a Unix socket's send buffer, which bounds a SEQPACKET message.
MAX_MESSAGE = 160 * KIB
# Descriptors a message may carry: client and bot.
MAX_DESCRIPTORS = 2
RIGHTS_SPACE = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
# Characters of a tunnel's or a session's name (a UUID has 36), so that every report
# about it fits into a message.
MAX_NAME = 256

# Calls that one pump holds at most, however many descriptors it may have: 200 MiB of state.
MAX_TUNNELS = 100_000

# Gaps from this long on are counted by their length, each class twice the one before:
# 32 ms is more than one message of a 20 ms stream missing, the last class is over 4 s.
NOTABLE_GAP = 0.032
GAP_CLASSES = 8

# Turns are counted by their length, each class twice the one before: the first is below
# 64 us, some messages' worth of work, the last over 32 ms, which a listener may hear.
SHORT_TURN = 0.000064
TURN_CLASSES = 11

Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]


class Figures(msgspec.Struct, frozen=True):
    """What one direction carried: bytes and messages, times in seconds.

    Attributes:
        largest_gap: between two reads.
        gaps: how many gaps lasted 32 ms to 64 ms, twice as long, and so on; empty for none.
        held_time, longest_hold: in which the other side did not take what was read.
        quiet: since the last read.
    """

    bytes: int = 0
    messages: int = 0
    largest_gap: float = 0.0
    held_time: float = 0.0
    gaps: tuple[int, ...] = ()
    longest_hold: float = 0.0
    quiet: float = 0.0


def gap_class(gap: float) -> int:
    """Which of the `GAP_CLASSES` a notable gap belongs to."""
    return min(int(gap / NOTABLE_GAP).bit_length(), GAP_CLASSES) - 1


class Adopt(msgspec.Struct, frozen=True, tag=True):
    """An established pair, with every byte already read from either side.

    Attributes:
        tunnel: a name that is unique over the pump's life. What carries a session bears the
            session's name, a side tunnel one of its own.
        session: the session that this tunnel carries, or belongs to.
        preface: goes to the client first and is no frame: the 101 response.
        from_client: frames read from the client, for the bot.
        from_bot: frames read from the bot, for the client.
        rsv: reserved bits that the negotiated extensions may use.
        max_message: longest message in bytes, 0 for no limit.
        max_seconds: longest life of the tunnel, 0 for no limit.
        idle_seconds: longest time without a data message in either direction, 0 for no limit.
        ping_seconds: between two pings to the client, 0 for none.
        close_timeout: seconds that a Close waits for its answer.
        watched: the control process sees how the bot's process ends (see BotEnded).
    """

    tunnel: Name
    session: Name
    preface: bytes = b""
    from_client: bytes = b""
    from_bot: bytes = b""
    rsv: int = 0
    max_message: int = 0
    max_seconds: float = 0.0
    idle_seconds: float = 0.0
    ping_seconds: float = 0.0
    close_timeout: float = 5.0
    watched: bool = False


class Hold(msgspec.Struct, frozen=True, tag=True):
    """A request that the bot answers when its session is over; it has been sent whole.

    Attributes:
        tunnel, session, max_seconds: as for Adopt.
    """

    tunnel: Name
    session: Name
    max_seconds: float = 0.0


class End(msgspec.Struct, frozen=True, tag=True):
    """End one tunnel with a Close, for the reason given."""

    tunnel: str
    why: Literal["stop", "drain", "session ended", "bot ended", "bot lost"]


class EndAll(msgspec.Struct, frozen=True, tag=True):
    """End every tunnel, because the node stops (Close 1012)."""


class Recorded(msgspec.Struct, frozen=True, tag=True):
    """These reports are in the store; the pump may forget them."""

    tunnels: list[str]


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Send Live for every tunnel, every report not yet recorded, then Ready."""


class Look(msgspec.Struct, frozen=True, tag=True):
    """Answer with Views: the last one has totals, together they have at most `most` calls."""

    most: int


class Quit(msgspec.Struct, frozen=True, tag=True):
    """Exit as soon as no tunnel is left and every report is recorded."""


class Taken(msgspec.Struct, frozen=True, tag=True):
    """The sockets of this tunnel are the pump's; nothing has been written to them before."""

    tunnel: str
    session: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """This tunnel was not taken: no room for it, or its descriptors did not come through."""

    tunnel: str
    session: str


class Live(msgspec.Struct, frozen=True, tag=True):
    """A tunnel as it stands."""

    tunnel: str
    session: str
    seconds: float
    from_client: Figures
    from_bot: Figures


class Finished(msgspec.Struct, frozen=True, tag=True):
    """A tunnel that has ended: the one cause, the close code, what it carried."""

    tunnel: str
    session: str
    cause: str
    code: int | None
    reason: str
    seconds: float
    from_client: Figures
    from_bot: Figures


class Totals(msgspec.Struct, frozen=True, tag=True):
    """What a pump has done since its start.

    Attributes:
        turns: wake-ups. turn_classes: how many lasted up to 64 us, twice as long, and so on.
        busy, longest_turn: seconds of work in turns.
        tunnels, closing: there now, and how many of them have begun to end.
        adopted: since the start.
        from_client, from_bot: what tunnels have carried, those that live included.
    """

    turns: int
    busy: float
    longest_turn: float
    tunnels: int
    closing: int
    adopted: int
    turn_classes: tuple[int, ...]
    from_client: Figures
    from_bot: Figures


class View(msgspec.Struct, frozen=True, tag=True):
    """A part of what a Look has found; the part with totals is the last."""

    calls: list[Live]
    totals: Totals | None


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The answer to Ask is complete.

    Attributes:
        lost: reports that had to be forgotten, since the table was full.
        version: of these messages, as the pump speaks them.
        capacity: tunnels and holds that the pump takes at most.
    """

    lost: int = 0
    version: int = VERSION
    capacity: int = MAX_TUNNELS


class BotEnded(msgspec.Struct, frozen=True, tag=True):
    """A watched bot closed its connection without a Close. Has its process failed?

    The tunnel waits a moment for an End that tells, "bot ended" or "bot lost".
    """

    tunnel: str
    session: str


ToPump = Adopt | Hold | End | EndAll | Recorded | Ask | Look | Quit
ToControl = Taken | Refused | Live | Finished | Ready | BotEnded | View

_encoder = msgspec.msgpack.Encoder()
_to_pump = msgspec.msgpack.Decoder(ToPump)
_to_control = msgspec.msgpack.Decoder(ToControl)


def send(sock: socket.socket, message: msgspec.Struct, fds: tuple[int, ...] = ()) -> None:
    """Send one message whole, without waiting.

    Raises:
        BlockingIOError: the other side's queue is full.
        OSError: the other side is gone.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_MESSAGE:
        raise ValueError(f"message of {len(payload)} bytes, at most {MAX_MESSAGE}")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([payload], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message and its descriptors, without waiting; b"" is end of stream.

    The descriptors belong to the caller and are not inherited by children. A message
    that came with more than it may carry, or that this process has no room for, comes
    without any.

    Raises:
        BlockingIOError: there is none.
        OSError: the other side is gone.
    """
    # Not socket.recv_fds: CPython's does not pass the flags on, up to 3.11 at least.
    payload, ancillary, flags, _address = sock.recvmsg(
        MAX_MESSAGE, RIGHTS_SPACE, socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for _level, _type, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if fds and (flags & socket.MSG_CTRUNC or not payload):
        for fd in fds:
            os.close(fd)
        return payload, []
    return payload, fds.tolist()


def decode_to_pump(payload: bytes) -> ToPump:
    """Raises msgspec.DecodeError for anything but a message to a pump."""
    message: ToPump = _to_pump.decode(payload)
    return message


def decode_to_control(payload: bytes) -> ToControl:
    """Raises msgspec.DecodeError for anything but a message to the control process."""
    message: ToControl = _to_control.decode(payload)
    return message
