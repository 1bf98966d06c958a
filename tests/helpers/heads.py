"""Request heads through the front door: whole, in pieces, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h11

from relay.errors import Refusal
from relay.protocol.http1 import HeadBuffer, HeadLimits, Request, parse_request

# Small, so that a table can reach each of them.
LIMITS = HeadLimits(max_target=120, max_head=400, max_header_count=8)


@dataclass(frozen=True)
class Outcome:
    """The heads that were cut out, and the refusal that ended it as (status, cause)."""

    heads: tuple[bytes, ...]
    requests: tuple[Request, ...]
    refused: tuple[int, str] | None

    @staticmethod
    def of(heads: list[bytes], requests: list[Request], refusal: Refusal | None) -> Outcome:
        # A refused head leaves no place from which to go on: the connection has to end.
        assert refusal is None or refusal.close
        refused = (refusal.status, refusal.cause) if refusal else None
        return Outcome(tuple(heads), tuple(requests), refused)


def read(chunks: Iterable[bytes], limits: HeadLimits = LIMITS) -> Outcome:
    """Feed the chunks and take every head as soon as it can be taken."""
    buffer = HeadBuffer(limits)
    heads: list[bytes] = []
    requests: list[Request] = []
    try:
        for chunk in chunks:
            buffer.feed(chunk)
            while (head := buffer.next_head()) is not None:
                requests.append(parse_request(head))
                heads.append(head)
    except Refusal as refusal:
        return Outcome.of(heads, requests, refusal)
    return Outcome.of(heads, requests, None)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def rebuilt(request: Request) -> bytes:
    """The head written anew from its parsed values."""
    lines = [b"%s %s HTTP/%s" % (request.method, request.target, request.version)]
    lines += [b"%s: %s" % field for field in request.headers]
    return b"\r\n".join((*lines, b"", b""))


def by_h11(head: bytes) -> h11.Request:
    """The same head as h11 alone reads it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event
