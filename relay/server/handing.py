"""The old process of a restart in place, once the new one is the node.

What reaches this process still, or is left in it, goes to the new one (`Successor`).
`Front.successor` is set from that moment on; whoever would begin something that belongs to
the node looks at it first.
"""

from __future__ import annotations

__all__ = ["Moved", "Successor", "restarting"]

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from relay.errors import Refusal
from relay.policy.admission import StartRequest
from relay.policy.sessions import Session
from relay.pump.channel import MAX_MESSAGE, Adopt, Hold
from relay.server.succession import (
    KEPT_AT_ONCE,
    Begin,
    Carried,
    Carry,
    Client,
    Go,
    Kept,
    Role,
    Serving,
    Settle,
    Talk,
    TalkEnded,
    Wait,
)

# Of a message with a client's bytes: names, numbers and the peer's address.
MESSAGE_ROOM = 1024
# The new process asks its pumps first, which may take `relay.server.pumps.ASK_TIMEOUT`.
ANSWER_TIMEOUT = 15.0


class Moved(Refusal):
    """No answer: the request is begun anew by the next process, which gets its connection.

    Args:
        session: the session that it had without a token.

    Attributes:
        body: what has been taken of the request's body.
    """

    def __init__(self, session: str | None = None) -> None:
        super().__init__(503, "it goes on in the next process", cause="moved")
        self.session = session
        self.body = b""


def restarting() -> Refusal:
    """503 for a request that the next process was to serve, which is gone."""
    return Refusal(
        503,
        "the daemon is just being restarted; try again",
        cause="restarting",
        headers=((b"retry-after", b"1"),),
        close=True,
    )


@dataclass(slots=True)
class Question:
    """Whether the new process carries a call; no answer is one that it has died."""

    session: str
    answered: trio.Event = field(default_factory=trio.Event)
    taken: bool = False


class Successor:
    """The new process, as the old one sees it.

    Attributes:
        serving: it accepts connections.
        ended: it is gone.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._questions: dict[str, Question] = {}
        self._busy = 0
        self._gone = trio.Event()
        self.serving = trio.Event()
        self.ended = trio.Event()

    async def run(self) -> None:
        """Hear what it says until it is gone."""
        try:
            while True:
                message = await self._talk.from_new()
                if isinstance(message, Serving):
                    self.serving.set()
                elif isinstance(message, Carried) and message.tunnel in self._questions:
                    question = self._questions[message.tunnel]
                    question.taken = message.taken
                    question.answered.set()
        except TalkEnded:
            self._end()
        finally:
            self._talk.close()

    def _end(self) -> None:
        self.ended.set()
        for question in self._questions.values():
            question.answered.set()

    async def go(self, kept: Collection[str], lock: int) -> None:
        """Make it the node; nothing else is sent before.

        Args:
            kept: sessions that this process still attaches, or relays itself.
            lock: the locked file of the runtime directory.

        Raises:
            TalkEnded: it is not, since it has died.
        """
        try:
            for some in _batches(kept):
                await self._talk.send(Kept(some))
            await self._talk.send(Go(), lock)
        finally:
            self._gone.set()

    def attaching(self) -> set[str]:
        """Sessions that wait for the new process to carry them."""
        return {question.session for question in self._questions.values()}

    def is_busy(self) -> bool:
        """Whether something is on its way to it."""
        return self._busy > 0

    async def client(
        self, role: Role, sock: int, peer: str, data: bytes, session: str | None
    ) -> bool:
        """Give it a connection, and what has come from there without an answer.

        Returns:
            False when it can't have it.
        """
        if len(data) > MAX_MESSAGE - MESSAGE_ROOM:
            return False
        try:
            with self._doing():
                await self._gone.wait()
                await self._talk.send(Client(role, peer, data, session), sock)
        except TalkEnded:
            return False
        return True

    async def adopt(self, message: Adopt, client: int, bot: int, *, frames: bool = False) -> None:
        """Give it two descriptors to relay between; the caller closes its own.

        Raises:
            Refusal: 503, nobody relays them.
        """
        await self._ask(message.tunnel, message.session, Carry(message, frames), client, bot)

    async def hold(self, message: Hold, bot: int) -> None:
        """The same for a request that has been sent to a bot, and its one descriptor."""
        await self._ask(message.tunnel, message.session, Wait(message), bot)

    async def _ask(self, tunnel: str, session: str, message: Carry | Wait, *fds: int) -> None:
        question = self._questions[tunnel] = Question(session)
        try:
            with self._doing(), trio.move_on_after(ANSWER_TIMEOUT):
                await self._gone.wait()
                await self._talk.send(message, *fds)
                await question.answered.wait()
        except TalkEnded:
            pass
        finally:
            del self._questions[tunnel]
        if not question.taken:
            raise Refusal(
                503,
                "the daemon is just being restarted and can't take the call; try again",
                cause="no_pump",
                headers=((b"retry-after", b"1"),),
            )

    async def begin(self, session: Session, request: StartRequest) -> None:
        """Have it start the bot of a session over HTTP."""
        file = os.memfd_create("relay-start", os.MFD_CLOEXEC)
        try:
            os.write(file, msgspec.msgpack.encode(request))
            with self._doing():
                await self._gone.wait()
                await self._talk.send(Begin(session), file)
        except TalkEnded:
            pass  # whoever is the node next finds the session without a bot
        finally:
            os.close(file)

    async def settle(self, session: str, instance: str, agent: str, *, deaf: bool) -> None:
        """Have it free an instance when that has settled."""
        try:
            with self._doing():
                await self._gone.wait()
                await self._talk.send(Settle(session, instance, agent, deaf))
        except TalkEnded:
            pass  # whoever is the node next finds the lease of a session that is over

    @contextmanager
    def _doing(self) -> Iterator[None]:
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1


def _batches(names: Collection[str]) -> Iterator[list[str]]:
    every = list(names)
    return (every[at : at + KEPT_AT_ONCE] for at in range(0, len(every), KEPT_AT_ONCE))
