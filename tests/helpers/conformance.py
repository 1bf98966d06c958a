"""Cases of HTTP as data: what is sent, and what has to become of it.

In the bytes `@S` stands for the path of the session, `@K` for the field line of its key with
its line end, and `@E` for a whole request that a smuggler would want the bot to see.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HOST = b"Host: a.example\r\n"
SMUGGLED = b"GET @S/smuggled HTTP/1.1\r\nHost: a.example\r\n@K\r\n"
# What is sent behind every case: whether the connection goes on, and from the right byte.
PROBE = b"GET @S/next HTTP/1.1\r\nHost: a.example\r\n@KConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """A request as the bot must see it.

    Attributes:
        target: behind the session's path, as it was sent.
        chunked: it has its body in chunks; otherwise a length, or none.
        fields: these, with these values, once each.
        without: none of these.
    """

    method: bytes
    target: bytes
    body: bytes = b""
    chunked: bool = False
    fields: tuple[tuple[bytes, bytes], ...] = ()
    without: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What becomes of the bytes of a case.

    Attributes:
        refused: status and cause of the daemon's own answer; the last one of the case.
        seen: every request that the bot sees.
        goes_on: the connection takes a further request.
    """

    refused: tuple[int, str] | None = None
    seen: tuple[Seen, ...] = ()
    goes_on: bool = False


def no(status: int, cause: str, *seen: Seen) -> Outcome:
    """Refused, and the connection ends; the bot has seen what came in front of it."""
    return Outcome((status, cause), seen)


def no_but_on(status: int, cause: str, *seen: Seen) -> Outcome:
    """Refused, and the connection goes on."""
    return Outcome((status, cause), seen, goes_on=True)


def sees(
    method: bytes = b"GET",
    target: bytes = b"/x",
    body: bytes = b"",
    *fields: tuple[bytes, bytes],
    chunked: bool = False,
    without: tuple[bytes, ...] = (),
) -> Outcome:
    """The bot sees this one request, and the connection goes on."""
    return Outcome(seen=(Seen(method, target, body, chunked, fields, without),), goes_on=True)


def see(*seen: Seen, goes_on: bool = True) -> Outcome:
    return Outcome(seen=seen, goes_on=goes_on)


# The client has left, or is taken for it: no answer, and no whole request at the bot.
GONE = Outcome()


@dataclass(frozen=True)
class Case:
    """Bytes of a client.

    Attributes:
        section: of the RFC with this number.
        ends: the client shuts its side behind the bytes; otherwise `PROBE` stands there.
        exception: why a peer may refuse what is accepted here.
    """

    name: str
    section: str
    send: bytes
    outcome: Outcome
    ends: bool = False
    exception: str = ""

    @property
    def id(self) -> str:
        return f"{self.section} {self.name}"


def request(line: bytes = b"GET @S/x", *lines: bytes, body: bytes = b"") -> bytes:
    """A request with Host and key that has these field lines too."""
    head = b"".join(each + b"\r\n" for each in lines)
    return b"%s HTTP/1.1\r\n%s@K%s\r\n%s" % (line, HOST, head, body)


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return request(b"POST @S/x", *lines, body=body)


def chunked(body: bytes) -> bytes:
    """A request whose body is these bytes, whatever they are."""
    return post(b"Transfer-Encoding: chunked", body=body)


@dataclass(frozen=True)
class Gets:
    """An answer as the client must get it.

    Attributes:
        interim: status codes that come first.
        whole: it has an end that can be seen; otherwise the connection breaks off in it.
        fields, without: as in `Seen`.
    """

    status: int
    body: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    without: tuple[bytes, ...] = ()
    interim: tuple[int, ...] = ()
    whole: bool = True


@dataclass(frozen=True)
class AnswerCase:
    """Bytes of a bot.

    Attributes:
        method: of the request that it answers; another one follows on the same connection.
        gets: the answer that the client gets, or the cause of a 502.
        closes: the bot closes behind them.
        interim: status codes that the client gets before the 502.
    """

    name: str
    section: str
    says: bytes
    gets: Gets | str
    method: bytes = b"GET"
    closes: bool = False
    interim: tuple[int, ...] = field(default=())

    @property
    def id(self) -> str:
        return f"{self.section} {self.name}"
