"""nginx and HAProxy as peers in front of a recording origin: what they make of the same bytes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.targets.base import find, free_ports
from tests.helpers.conformance import Case
from tests.helpers.conformance_run import converse, sent_bytes
from tests.helpers.daemon import PATIENCE, wait_until
from tests.helpers.recording_origin import RecordingOrigin

# Both close what is not whole after two seconds, so that no case waits for long. They
# check HTTP and nothing else; bodies stream, since that is what is compared.
NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_header_timeout 2s;
    client_body_timeout 2s;
    keepalive_timeout 2s;
    lingering_close off;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_read_timeout 2s;
        }}
    }}
}}
"""
HAPROXY = """\
defaults
    mode http
    http-reuse always
    timeout connect 2s
    timeout client 2s
    timeout http-request 2s
    timeout server 2s
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    server origin 127.0.0.1:{origin}
"""
PROGRAMS = {"nginx": NGINX, "haproxy": HAPROXY}
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy"}
STATUS = re.compile(rb"HTTP/1\.[01] ([2-5][0-9]{2}) ")
# Where a peer's session would be; it has none and passes everything on.
BASE = b"/v1/public/bot/sessions/00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Made:
    """What a program made of a case.

    Attributes:
        statuses: of its final answers.
        seen: how many requests of the case its origin saw, or pieces that are none.
        odd: the origin saw bytes that a strict reader does not read: passed on as they were.
        answered: each request got an answer, the probe too where it should.
    """

    statuses: tuple[int, ...]
    seen: int
    odd: bool
    answered: bool

    @property
    def refuses(self) -> bool:
        """An error, or an end without an answer to all that was asked."""
        return not self.odd and (not self.answered or any(each >= 400 for each in self.statuses))


def missing(name: str) -> str | None:
    """Why a program cannot be run here."""
    if find(name) is None:
        return f"{name} is not installed: apt-get install {PACKAGES[name]}"
    return None


def version(name: str) -> str:
    """The program's version, as it says itself."""
    command = [str(find(name)), "-v"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"[0-9]+\.[0-9.]*[0-9]", done.stdout + done.stderr)
    assert found is not None
    return found[0]


@contextmanager
def peer(name: str, folder: Path, origin: RecordingOrigin) -> Iterator[int]:
    """A program that listens on the port that is given."""
    (port,) = free_ports(1)
    config = folder / f"{name}.conf"
    config.write_text(PROGRAMS[name].format(folder=folder, port=port, origin=origin.port))
    words = ["-p", str(folder), "-c", str(config)] if name == "nginx" else ["-f", str(config)]
    log = folder / f"{name}.out"
    with log.open("wb") as out:
        command = [str(find(name)), *words]
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, f"{name} listens")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def made_of(case: Case, port: int, origin: RecordingOrigin, base: bytes = BASE) -> Made:
    """Send a case and look from both sides."""
    origin.take()
    data = converse(port, sent_bytes(case, base), ends=case.ends, patience=5)
    record, outcome = origin.take(), case.outcome
    statuses = tuple(int(found) for found in STATUS.findall(data))
    asked = len(outcome.seen) + bool(outcome.refused)
    # Who takes what is refused here answers the probe, if it has not taken that for a body.
    probed = not case.ends and outcome.goes_on
    seen = [each for each in record.requests if not each.start[1].endswith(b"/next")]
    return Made(statuses, len(seen), bool(record.wrong), len(statuses) >= asked + probed)
