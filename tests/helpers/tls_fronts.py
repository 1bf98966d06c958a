"""The recipes of examples/deploy/tls, each run in front of a daemon with a certificate of its own.

Of a recipe nothing is changed but where it listens, where relay is, and where files lie.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from bench.targets.base import find, free_ports
from tests.helpers.daemon import PATIENCE, wait_until
from tests.helpers.wire import Wire

RECIPES = Path(__file__).parents[2] / "examples" / "deploy" / "tls"
HOST = "voice.example.com"
# A caller's own address, to be told from the proxy's.
CALLER = "127.0.0.5"
PROGRAMS = {
    "nginx.conf": "nginx",
    "haproxy.cfg": "haproxy",
    "haproxy-tcp.cfg": "haproxy",
    "Caddyfile": "caddy",
}
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass
class Front:
    """A running recipe.

    Attributes:
        trust: verifies its certificate.
    """

    recipe: str
    port: int
    admin_port: int
    config: Path
    process: subprocess.Popen[bytes]
    trust: ssl.SSLContext
    log: Path

    def socket(self, source: str = CALLER) -> socket.socket:
        address = ("127.0.0.1", self.port)
        return socket.create_connection(address, PATIENCE, source_address=(source, 0))

    def call(self, target: str, token: str) -> ClientConnection:
        """A call without pings, so that its silence is silence."""
        return connect(
            f"wss://{HOST}:{self.port}{target}",
            sock=self.socket(),
            ssl=self.trust,
            server_hostname=HOST,
            additional_headers={"Authorization": f"Bearer {token}"},
            ping_interval=None,
            compression=None,
            proxy=None,
            open_timeout=PATIENCE,
        )

    def wire(self, source: str = CALLER) -> Wire:
        return TlsWire(self, source)

    def reload(self) -> None:
        """As an operator does it; returns when it has been asked for."""
        if self.recipe == "Caddyfile":
            where = ["--address", f"127.0.0.1:{self.admin_port}"]
            # The same text would be no reload.
            self.config.write_text(self.config.read_text() + "\n# again\n")
            command = ["caddy", "reload", "--force", "--config", str(self.config), *where]
            subprocess.run(
                [*command, "--adapter", "caddyfile"], check=True, capture_output=True, timeout=30
            )
        else:
            master = signal.SIGHUP if self.recipe == "nginx.conf" else signal.SIGUSR2
            self.process.send_signal(master)


class TlsWire(Wire):
    """A TLS connection on which the test writes bytes and reads answers."""

    def __init__(self, front: Front, source: str) -> None:
        self.sock: Any = front.trust.wrap_socket(front.socket(source), server_hostname=HOST)
        self.file = self.sock.makefile("rb")


def missing(recipe: str) -> str | None:
    """Why a recipe cannot be run here."""
    if find(PROGRAMS[recipe]) is None:
        return f"{PROGRAMS[recipe]} is not installed"
    return None if shutil.which("openssl") else "openssl is not installed"


def certificate(folder: Path) -> ssl.SSLContext:
    """A self-signed certificate with its key, in the files that the recipes name; who trusts it."""
    chain, key = folder / "fullchain.pem", folder / "privkey.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-keyout", str(key), "-out", str(chain)]
    command += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    (folder / "haproxy.pem").write_text(chain.read_text() + key.read_text())
    return ssl.create_default_context(cafile=str(chain))


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The text with each of these put in place of what must be there."""
    for old, new in pairs:
        assert old in text, f"the recipe has no {old!r}"
        text = text.replace(old, new)
    return text


def configured(recipe: str, folder: Path, port: int, admin_port: int, relay: int) -> str:
    """A recipe for this machine."""
    text = (RECIPES / recipe).read_text()
    text = replaced(text, ("127.0.0.1:8080", f"127.0.0.1:{relay}"))
    if recipe == "nginx.conf":
        paths = "".join(f"\n    {name}_temp_path {folder}/{name};" for name in TEMPORARY)
        return replaced(
            text,
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("        listen [::]:443 ssl so_keepalive=on;\n", ""),
            ("/etc/ssl/relay", str(folder)),
            ("/var/log/nginx", str(folder)),
            ("/run/nginx.pid", f"{folder}/nginx.pid"),
            ("worker_rlimit_nofile 65536;\n", ""),
            ("http {", f"http {{{paths}"),
        )
    if recipe == "Caddyfile":
        own = f"\tbind 127.0.0.1\n\ttls {folder}/fullchain.pem {folder}/privkey.pem\n"
        return replaced(
            text,
            (
                "\tgrace_period",
                f"\tadmin 127.0.0.1:{admin_port}\n\tauto_https disable_redirects\n\tgrace_period",
            ),
            (f"{HOST} {{\n", f"https://{HOST}:{port} {{\n{own}"),
        )
    return replaced(
        text,
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/ssl/relay", str(folder)),
        ("maxconn 16384", "maxconn 1024"),  # descriptors that a test may not have
    )


def command_of(recipe: str, folder: Path, config: Path) -> list[str]:
    program = str(find(PROGRAMS[recipe]))
    if recipe == "nginx.conf":
        return [program, "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
    if recipe == "Caddyfile":
        return [program, "run", "--config", str(config), "--adapter", "caddyfile"]
    return [program, "-W", "-db", "-f", str(config)]


@contextmanager
def front_of(recipe: str, folder: Path, relay: int, *changes: tuple[str, str]) -> Iterator[Front]:
    """A recipe in front of the daemon at this port, ended with all of its processes.

    Args:
        changes: of its text, for what a test wants to be different.
    """
    trust = certificate(folder)
    port, admin_port = free_ports(2)
    config = folder / recipe
    config.write_text(replaced(configured(recipe, folder, port, admin_port, relay), *changes))
    log = folder / "output"
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command_of(recipe, folder, config),
            stdout=out,
            stderr=out,
            env={**os.environ, **homes},
            start_new_session=True,
        )
    front = Front(recipe, port, admin_port, config, process, trust, log)

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, f"{recipe} listens")
        yield front
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
