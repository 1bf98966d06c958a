"""HTTP/1.1 read as strictly as the RFCs write it, and by nothing of the daemon's own code.

What a right sender writes is read; everything that is only tolerated is an error. It says
what a request or an answer is, where it ends, and what stands behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(%s) ((?:/|https?://)[\x21\x22\x24-\x7e]*|\*) HTTP/1\.([01])" % TOKEN)
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
FIELD = re.compile(rb"(%s):(?: ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*"
                   rb"[\x21-\x7e\x80-\xff])?)?)?" % TOKEN)  # fmt: skip
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._]+)(?::[0-9]{1,5})?")
SIZE = re.compile(rb"0|[1-9a-fA-F][0-9a-fA-F]{0,15}")
LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")


class NotStrict(Exception):
    """These bytes are not what a right sender writes."""


@dataclass(frozen=True)
class Message:
    """A request (method, target, minor version) or an answer (status, reason) with its body.

    Attributes:
        start: the parts of the first line.
        fields: with names in lower case.
        chunked: the body was framed by chunks.
        raw: all of it as it came.
    """

    start: tuple[bytes, ...]
    fields: Fields
    body: bytes
    chunked: bool = False
    raw: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def value(self, name: bytes) -> bytes:
        """The value of the only field of this name, b"" without one."""
        found = self.values(name)
        if len(found) > 1:
            raise NotStrict(f"{name!r} comes {len(found)} times")
        return found[0] if found else b""

    @property
    def status(self) -> int:
        return int(self.start[0])


def read_request(data: bytes) -> tuple[Message, bytes] | None:
    """The first request and what stands behind it; None when it is not whole."""
    found = _head(data, REQUEST_LINE)
    if found is None:
        return None
    head, rest = found
    if head.start[2] == b"1" or head.values(b"host"):
        host = head.value(b"host")
        if not HOST.fullmatch(host):
            raise NotStrict(f"Host {host!r}")
    return _whole(data, _body(head, rest))


def read_answer(data: bytes, method: bytes, *, closed: bool) -> tuple[Message, bytes] | None:
    """The first answer and what stands behind it; None when it is not whole."""
    return _whole(data, _answer(data, method, closed=closed))


def _whole(data: bytes, found: tuple[Message, bytes] | None) -> tuple[Message, bytes] | None:
    if found is None:
        return None
    message, rest = found
    return replace(message, raw=data[: len(data) - len(rest)]), rest


def _answer(data: bytes, method: bytes, *, closed: bool) -> tuple[Message, bytes] | None:
    found = _head(data, STATUS_LINE)
    if found is None:
        return None
    head, rest = found
    if head.status < 200 or head.status in (204, 304) or method == b"HEAD":
        if head.status < 200 or head.status == 204:
            _no_framing(head)
        return head, rest
    if head.values(b"content-length") or head.values(b"transfer-encoding"):
        return _body(head, rest)
    return (Message(head.start, head.fields, rest), b"") if closed else None


def read_answers(data: bytes, methods: list[bytes], *, closed: bool) -> tuple[list[Message], bytes]:
    """Every answer to these requests, interim ones too, and the bytes that are no whole answer."""
    found: list[Message] = []
    waiting = list(methods)
    while data:
        answer = read_answer(data, waiting[0] if waiting else b"GET", closed=closed)
        if answer is None:
            break
        message, data = answer
        found.append(message)
        if message.status >= 200 and waiting:
            waiting.pop(0)
    return found, data


def _head(data: bytes, first_line: re.Pattern[bytes]) -> tuple[Message, bytes] | None:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        if re.search(rb"(?<!\r)\n|\r(?!\n)(?!\Z)", data):
            raise NotStrict(f"a line end in {data[:200]!r}")
        return None
    first, *lines = head.split(b"\r\n")
    line = first_line.fullmatch(first)
    if line is None:
        raise NotStrict(f"the first line {first[:200]!r}")
    fields = []
    for text in lines:
        field = FIELD.fullmatch(text)
        if field is None:
            raise NotStrict(f"the field line {text[:200]!r}")
        fields.append((field[1].lower(), field[2] or b""))
    return Message(line.groups(), tuple(fields), b""), rest


def _no_framing(head: Message) -> None:
    if head.values(b"content-length") or head.values(b"transfer-encoding"):
        raise NotStrict(f"a framing that {head.start[0]!r} may not have")


def _body(head: Message, rest: bytes) -> tuple[Message, bytes] | None:
    length, coding = head.value(b"content-length"), head.value(b"transfer-encoding")
    if coding:
        if length or coding != b"chunked":
            raise NotStrict(f"Transfer-Encoding {coding!r}, Content-Length {length!r}")
        return _chunks(head, rest)
    if length and not LENGTH.fullmatch(length):
        raise NotStrict(f"Content-Length {length!r}")
    size = int(length or b"0")
    if len(rest) < size:
        return None
    return Message(head.start, head.fields, rest[:size]), rest[size:]


def _chunks(head: Message, rest: bytes) -> tuple[Message, bytes] | None:
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        if not SIZE.fullmatch(line):
            raise NotStrict(f"the chunk size {line[:50]!r}")
        size = int(line, 16)
        if size == 0:
            break
        if len(rest) < size + 2:
            return None
        if rest[size : size + 2] != b"\r\n":
            raise NotStrict(f"{rest[size : size + 2]!r} behind a chunk")
        body, rest = body + rest[:size], rest[size + 2 :]
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        if not line:
            return Message(head.start, head.fields, body, chunked=True), rest
        if not FIELD.fullmatch(line):
            raise NotStrict(f"the trailer {line[:200]!r}")
