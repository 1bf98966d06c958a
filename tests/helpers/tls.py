"""Certificates made on the spot, and daemons that show them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import trustme

from tests.helpers.daemon import Daemon, config_text, end_pumps, start_daemon

LONG_AGO, LAST_YEAR = datetime(2001, 1, 1), datetime(2021, 1, 1)
FAR_OFF, LATER = datetime(2101, 1, 1), datetime(2102, 1, 1)


class Authority:
    """Whoever signs certificates in a folder; `pem` is its own, to be trusted."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.pem = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def issue(
        self,
        name: str,
        *hosts: str,
        rsa: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Path:
        """A certificate with its key in one new file, NAME.pem; the key also in NAME.key."""
        leaf = self._ca.issue_cert(
            *(hosts or ("127.0.0.1",)),
            key_type=trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA,
            not_before=since,
            not_after=until,
        )
        path = self._folder / f"{name}.pem"
        leaf.private_key_and_cert_chain_pem.write_to_path(path)
        leaf.private_key_pem.write_to_path(path.with_suffix(".key"))
        return path

    def client(self, certificate: Path | None = None) -> ssl.SSLContext:
        """What a caller trusts who trusts this authority, and may show."""
        context = ssl.create_default_context(cafile=self.pem)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context


def secure_config(
    bots: list[str],
    *certificates: Path,
    tls: str = "",
    limits: str = "",
    agent: str = "",
    server: str = "",
) -> str:
    """The usual configuration with TLS on its public listener."""
    shown = ", ".join(f'{{ certificate = "{path}" }}' for path in certificates)
    text = config_text(bots, agent, limits, server)
    text = text.replace('bind = "127.0.0.1:0"', 'bind = "tls:127.0.0.1:0"', 1)
    return text.replace("[store]", f"[tls]\ncertificates = [{shown}]\n{tls}\n[store]", 1)


@contextmanager
def running_secure(folder: Path, config: str, trusted: ssl.SSLContext) -> Iterator[Daemon]:
    """A daemon with that configuration, whose callers speak TLS; ended with the block."""
    daemon = start_daemon(folder, config)
    daemon.tls = trusted
    try:
        yield daemon
    finally:
        if daemon.process.popen.poll() is None:
            daemon.process.end()
        end_pumps(daemon)
