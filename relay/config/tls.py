"""Turns `[tls]` into what callers of a TLS listener meet; the files that it names are read here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relay.config.model import TLS_PREFIX, Bind
from relay.config.reading import Problems, read_table
from relay.config.tables import CertificateTable, TlsTable
from relay.tls import Certificate, ServerTls, read_certificate, server_tls

__all__ = ["check_tls"]

# One for each customer's domain of a large installation; each is a file to read at a reload.
MAX_CERTIFICATES = 100


def check_tls(
    problems: Problems, raw: dict[str, object], binds: Sequence[Bind], base: Path
) -> ServerTls | None:
    """What `[tls]` gives; None where there is no such table, or when a problem was added."""
    table = read_table(problems, "tls", raw, TlsTable)
    wanted = any(bind.tls for bind in binds)
    where = "tls.certificates"
    if problems.has(where):
        return None
    if wanted and not table.certificates:
        problems.add(where, f'none given, expected one at least since bind has "{TLS_PREFIX}"')
    if raw and not wanted:
        problems.add("tls", f'no listener is for it, expected "{TLS_PREFIX}host:port" in bind')
    if len(table.certificates) > MAX_CERTIFICATES:
        found = len(table.certificates)
        problems.add(where, f"found {found}, expected at most {MAX_CERTIFICATES}")
        return None
    read = [
        _certificate(problems, f"{where}[{number}]", item, base)
        for number, item in enumerate(table.certificates)
    ]
    certificates = [each for each in read if each is not None]
    if not certificates:
        return None
    ca = None if table.client_ca is None else base / table.client_ca
    try:
        return server_tls(certificates, ca, table.client_certificates)
    except ValueError as error:
        problems.add("tls.client_ca", str(error))
        return None


def _certificate(problems: Problems, where: str, raw: object, base: Path) -> Certificate | None:
    table = read_table(problems, where, raw, CertificateTable)
    if table.certificate is None:
        problems.add(f"{where}.certificate", "not given, expected a file in PEM form")
        return None
    try:
        return read_certificate(base / table.certificate, base / (table.key or table.certificate))
    except ValueError as error:
        problems.add(where, str(error))
        return None
