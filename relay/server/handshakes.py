"""TLS handshakes of callers: bounded in time, in number, and in what each takes of the loop.

Laws
1. What is no handshake costs no more than a look at its first bytes.
2. No more than `max_handshakes` are under way: the oldest makes room, which among honest
   ones is about to be done, and in a flood is one that goes slowly.
3. One that has begun goes by the certificates that were in force then.
"""

from __future__ import annotations

__all__ = ["CAUSES", "HandshakeFailed", "Handshakes"]

import contextlib
import socket
import ssl
from collections.abc import Callable

import trio

from relay.errors import RelayError
from relay.server.rules import Rules
from relay.server.secure import DROP_SIZE, TlsSocket, TlsStream, detached, shake_hands, wrap
from relay.tls import words_of

# The first byte of a record that holds a handshake (RFC 8446 section 5.1).
HANDSHAKE = 22
# Every cause of a failure, with what OpenSSL says where it is the one that judges.
CAUSES: dict[str, tuple[str, ...]] = {
    "plain_http": (),
    "not_tls": (),
    "tls_left": (),
    "tls_timeout": (),
    "tls_crowded": (),
    "tls_version": ("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION"),
    "tls_no_cipher": ("NO_SHARED_CIPHER", "NO_SUITABLE_KEY_SHARE", "NO_SHARED_GROUPS"),
    "tls_client_certificate": ("CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    "tls_refused": (),
    "tls_malformed": (),
}
CAUSE_OF = {reason: cause for cause, reasons in CAUSES.items() for reason in reasons}


class HandshakeFailed(RelayError):
    """No TLS came about.

    Attributes:
        cause: one of `CAUSES`.
        plain: nothing but a look was taken: the connection is as it was.
    """

    def __init__(self, cause: str, text: str, *, plain: bool = False) -> None:
        super().__init__(text)
        self.cause = cause
        self.plain = plain


class Handshakes:
    """Those of all listeners.

    Args:
        rules: certificates and limits.
        done: told the version of each handshake that has succeeded.
    """

    def __init__(self, rules: Rules, done: Callable[[str], None]) -> None:
        self._rules = rules
        self._done = done
        self._turn = trio.Lock()
        self._under_way: dict[trio.CancelScope, None] = {}  # the oldest first

    async def secure(self, stream: trio.SocketStream) -> TlsStream:
        """The connection with TLS; only a failure that is `plain` leaves it as it was.

        Raises:
            HandshakeFailed
        """
        limits = self._rules.limits
        scope = trio.CancelScope(deadline=trio.current_time() + limits.handshake_timeout)
        while len(self._under_way) >= limits.max_handshakes:
            self._give_up(next(iter(self._under_way)))
        self._under_way[scope] = None
        try:
            with scope:
                return await self._shake(stream)
        finally:
            self._under_way.pop(scope, None)
        if trio.current_time() >= scope.deadline:
            took = f"it took longer than {limits.handshake_timeout:g} s"
            raise HandshakeFailed("tls_timeout", took)
        raise HandshakeFailed("tls_crowded", "it had to make room for others")

    def give_up(self) -> None:
        """End those under way: the daemon serves nobody new."""
        for scope in list(self._under_way):
            self._give_up(scope)

    def _give_up(self, scope: trio.CancelScope) -> None:
        del self._under_way[scope]
        scope.cancel()

    async def _shake(self, stream: trio.SocketStream) -> TlsStream:
        await _look(stream)
        tls = self._rules.tls
        if tls is None:  # the configuration has changed since this caller was accepted
            raise HandshakeFailed("tls_left", "there is no TLS any more")
        sock: TlsSocket | None = None
        try:
            sock = wrap(detached(stream), tls.context)
            await shake_hands(sock, self._turn)
        except OSError as error:
            raise _failure(error) from None
        else:
            self._done(sock.version() or "unknown")
            secured, sock = TlsStream(sock), None
            return secured
        finally:
            if sock is not None:
                _let_go(sock)


async def _look(stream: trio.SocketStream) -> None:
    """Raise HandshakeFailed unless the first bytes can be those of a handshake."""
    try:
        first = await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        first = b""
    if not first:
        raise HandshakeFailed("tls_left", "it was closed")
    if first[0] == HANDSHAKE:
        return
    if first.isalpha():
        raise HandshakeFailed("plain_http", "expected TLS, found HTTP", plain=True)
    await stream.socket.recv(DROP_SIZE)  # so that its sender sees an end and no reset
    raise HandshakeFailed("not_tls", "expected TLS, found something else")


def _let_go(sock: TlsSocket) -> None:
    """Close it; what has come is read first, so that no reset overtakes what OpenSSL has said."""
    with contextlib.suppress(OSError):
        socket.socket.recv(sock, DROP_SIZE)
    sock.close()


def _failure(error: OSError) -> HandshakeFailed:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if isinstance(error, ssl.SSLEOFError) or not reason:
        return HandshakeFailed("tls_left", "it was closed in the midst of the handshake")
    told = "ALERT" in reason  # the caller does not like what it was shown
    cause = CAUSE_OF.get(reason, "tls_refused" if told else "tls_malformed")
    return HandshakeFailed(cause, words_of(error))
