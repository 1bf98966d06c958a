"""What two control processes say to each other in a restart in place: messages with descriptors.

The old process starts the new one and keeps the other end of a Unix socket pair of type
SEQPACKET, like a pump's channel (`pump.channel`). The talk has two parts. Until `Go` the
old process is the node and the new one only gets ready. From `Go` on the new one is; the
old one finishes what only it can finish, and asks the new one for the rest.

Direction    messages
to the new   Listening (with a socket) for each, Offer; Kept, Go (with the locked file); then
             Client (with a connection), Carry (with client and bot), Wait (with a bot),
             Begin (with a file), Settle
to the old   Ready or Failed; Serving; Carried answers Carry and Wait
"""

from __future__ import annotations

__all__ = [
    "KEPT_AT_ONCE",
    "VERSION",
    "Begin",
    "Carried",
    "Carry",
    "Client",
    "Failed",
    "Go",
    "Kept",
    "Listening",
    "Offer",
    "Ready",
    "Role",
    "Serving",
    "Settle",
    "Talk",
    "TalkEnded",
    "ToNew",
    "ToOld",
    "Wait",
    "pair",
]

import errno
import os
import socket
from typing import Literal, TypeVar

import msgspec
import trio

from relay.policy.sessions import Session
from relay.pump import channel
from relay.pump.channel import Adopt, Hold

# Raised when a message changes so that the other side would misread it. A new process of
# another version says so and leaves; the old one goes on.
VERSION = 1
# Names of sessions in one message: a UUID each, so that it stays far below a message's bound.
KEPT_AT_ONCE = 1000
# Too many descriptors are on their way to a process that does not take them; after so many
# seconds it may have taken some.
CROWDED_WAIT = 0.01

Role = Literal["public", "admin"]
T = TypeVar("T")


class Listening(msgspec.Struct, frozen=True, tag=True):
    """A listening socket; `bind` is the setting that it is there for."""

    role: Role
    bind: str


class Offer(msgspec.Struct, frozen=True, tag=True):
    """What the node is that may be taken over; all sockets came before.

    Attributes:
        release, pid: of the old process.
        place: its runtime directory, by device and number.
        store, schema: its store's file, and the version of its tables.
    """

    version: int
    release: str
    pid: int
    place: tuple[int, int]
    store: str
    schema: int


class Kept(msgspec.Struct, frozen=True, tag=True):
    """Sessions that the old process still attaches, or relays itself."""

    sessions: list[str]


class Go(msgspec.Struct, frozen=True, tag=True):
    """The node is the new process's."""


class Client(msgspec.Struct, frozen=True, tag=True):
    """A client's connection between two requests, or with one that is to be begun anew.

    Attributes:
        data: the first bytes that have no answer yet.
        session: the session that its request had without a token.
    """

    role: Role
    peer: str
    data: bytes
    session: str | None


class Carry(msgspec.Struct, frozen=True, tag=True):
    """A call whose bot has answered, to be relayed by a pump or message by message."""

    adopt: Adopt
    frames: bool


class Wait(msgspec.Struct, frozen=True, tag=True):
    """A `POST /bot` that has been sent, for a pump."""

    hold: Hold


class Carried(msgspec.Struct, frozen=True, tag=True):
    """The answer to Carry and Wait: whether somebody relays it."""

    tunnel: str
    taken: bool


class Begin(msgspec.Struct, frozen=True, tag=True):
    """A session over HTTP whose bot is to be started; the request is in the file."""

    session: Session


class Settle(msgspec.Struct, frozen=True, tag=True):
    """An instance is to be freed when it has settled."""

    session: str
    instance: str
    agent: str
    deaf: bool


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The new process could take over now."""

    release: str
    pid: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It can't, and leaves."""

    reason: str


class Serving(msgspec.Struct, frozen=True, tag=True):
    """It accepts connections."""


ToNew = Listening | Offer | Kept | Go | Client | Carry | Wait | Begin | Settle
ToOld = Ready | Failed | Serving | Carried

_to_new = msgspec.msgpack.Decoder(ToNew)
_to_old = msgspec.msgpack.Decoder(ToOld)


class TalkEnded(Exception):
    """The other process has closed its end, is gone, or says what nobody understands."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a talk."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, channel.MAX_MESSAGE)
    return ends


class Talk:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._writing = trio.Lock()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            if trio.lowlevel.in_trio_run():
                trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def say(self, message: ToNew | ToOld, *fds: int) -> None:
        """Send a message that surely fits into the socket's buffer.

        Raises:
            TalkEnded
        """
        try:
            channel.send(self._sock, message, fds)
        except OSError as error:
            raise TalkEnded from error

    async def send(self, message: ToNew | ToOld, *fds: int) -> None:
        """Send a message when the other side has room for it.

        Raises:
            TalkEnded
        """
        async with self._writing:
            while True:
                try:
                    channel.send(self._sock, message, fds)
                    return
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    if error.errno != errno.ETOOMANYREFS:
                        raise TalkEnded from error
                    await trio.sleep(CROWDED_WAIT)

    async def _writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._sock)
        except (OSError, trio.ClosedResourceError) as error:
            raise TalkEnded from error

    def hear(self) -> tuple[ToNew, list[int]]:
        """What the old process has said before this one was started.

        Raises:
            TalkEnded
        """
        payload, fds = self._read()
        return self._decoded(_to_new, payload, fds), fds

    async def from_old(self) -> tuple[ToNew, list[int]]:
        """The old process's next message, with its descriptors.

        Raises:
            TalkEnded
        """
        payload, fds = await self._wait()
        return self._decoded(_to_new, payload, fds), fds

    async def from_new(self) -> ToOld:
        """The new process's next message; it sends no descriptors.

        Raises:
            TalkEnded
        """
        payload, fds = await self._wait()
        message: ToOld = self._decoded(_to_old, payload, fds)
        _close(fds)
        return message

    async def _wait(self) -> tuple[bytes, list[int]]:
        try:
            await trio.lowlevel.wait_readable(self._sock)
        except (OSError, trio.ClosedResourceError) as error:
            raise TalkEnded from error
        return self._read()

    def _read(self) -> tuple[bytes, list[int]]:
        try:
            payload, fds = channel.receive(self._sock)
        except OSError as error:
            raise TalkEnded from error
        if not payload:
            raise TalkEnded
        return payload, fds

    @staticmethod
    def _decoded(decoder: msgspec.msgpack.Decoder[T], payload: bytes, fds: list[int]) -> T:
        try:
            return decoder.decode(payload)
        except msgspec.DecodeError as error:
            _close(fds)
            raise TalkEnded from error


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
