"""A receiver of webhooks that does what a test wants: a server in threads of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Receiver", "Told", "receiving"]

# How long a slow answer waits for the test's end at most.
PATIENCE = 20.0


@dataclass(frozen=True)
class Told:
    """One delivery, or an attempt."""

    path: str
    fields: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.fields["webhook-id"]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """What came, and how to answer: a status, `slow` (none at all), `endless` (a 200), or
    `held` (a 200 when `gate` is set).

    Attributes:
        answers: of the next attempts, in order; 200 when there is none left.
        retry_after: the field of this name in every answer, if it is to have one.
        over: set at the end, for answers that wait.
    """

    url: str = ""
    told: list[Told] = field(default_factory=list)
    answers: list[int | str] = field(default_factory=list)
    retry_after: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ids(self) -> list[str]:
        return [each.id for each in self.told]

    def types(self) -> list[str]:
        return [each.json()["type"] for each in self.told]


@contextmanager
def receiving(*answers: int | str) -> Iterator[Receiver]:
    """A receiver on loopback."""
    receiver = Receiver(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            fields = {name.lower(): value for name, value in self.headers.items()}
            with receiver.lock:
                answer = receiver.answers.pop(0) if receiver.answers else 200
                receiver.told.append(Told(self.path, fields, body))
            if answer == "slow":
                receiver.over.wait(PATIENCE)
                return
            if answer == "held":
                receiver.gate.wait(PATIENCE)
            self.send_response(200 if isinstance(answer, str) else answer)
            self.send_header("location", "/elsewhere")
            if receiver.retry_after:
                self.send_header("retry-after", receiver.retry_after)
            self.end_headers()
            try:
                while answer == "endless" and not receiver.over.is_set():
                    self.wfile.write(b"and so on " * 1000)
            except OSError:
                pass  # as it should be: nobody reads it

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # a crowd that comes at once is let in
        daemon_threads = False  # joined by `server_close`

    server = Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook?key=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
