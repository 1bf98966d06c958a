"""A small name server on loopback, UDP, whose table a test changes while it runs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

# How long its thread is waited for at the end; it is there at once when all is well.
PATIENCE = 10.0
MAX_QUESTION = 4096

Key = tuple[str, str]


class NameServer:
    """Answers from `table`: (name, type) -> records as a zone file writes them.

    A name without any record does not exist (NXDOMAIN).

    Attributes:
        ttl: of every record.
        rcode: of every answer; other than NOERROR means no records.
        failing: names that are answered SERVFAIL.
        silent: says nothing at all.
        asked: the questions so far.
    """

    def __init__(self) -> None:
        self.table: dict[Key, list[str]] = {}
        self.ttl = 60
        self.rcode = dns.rcode.NOERROR
        self.failing: set[str] = set()
        self.silent = False
        self.asked: list[Key] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """End it; questions are not answered any more."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._socket.getsockname())
        self._thread.join(PATIENCE)
        self._socket.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(MAX_QUESTION)
            if not data:
                return
            answer = self._answer(dns.message.from_wire(data))
            if not self.silent:
                self._socket.sendto(answer, peer)

    def _answer(self, asked: dns.message.Message) -> bytes:
        (question,) = asked.question
        name, kind = question.name.to_text(omit_final_dot=True), question.rdtype
        self.asked.append((name, dns.rdatatype.to_text(kind)))
        answer = dns.message.make_response(asked)
        answer.flags |= dns.flags.RA
        answer.set_rcode(dns.rcode.SERVFAIL if name in self.failing else self.rcode)
        table = dict(self.table)
        if answer.rcode() == dns.rcode.NOERROR:
            records = table.get(self.asked[-1], [])
            if records:
                # Twice the same record is sent twice, as some servers do.
                answer.answer = [
                    dns.rrset.from_text(question.name, self.ttl, "IN", kind, record)
                    for record in records
                ]
            elif all(name != known for known, _ in table):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire(max_size=65535)


@contextmanager
def name_server() -> Iterator[NameServer]:
    """A name server that knows no name yet."""
    server = NameServer()
    try:
        yield server
    finally:
        server.close()
