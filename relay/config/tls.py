"""TLS on both sides: what callers of a TLS listener meet, and who bots with TLS are to be.

The files that are named are read and judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relay.config.model import TLS_PREFIX, Bind
from relay.config.reading import Problems, read_table
from relay.config.tables import AgentTable, CertificateTable, TlsTable
from relay.config.values import parse_host
from relay.policy.catalog import Trust
from relay.tls import Certificate, ServerTls, read_ca, read_certificate, server_tls

__all__ = ["check_tls", "check_trust"]

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
    if "client_certificates" in raw and table.client_ca is None:
        problems.add("tls.client_certificates", "only with client_ca, which says from whom")
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


def check_trust(problems: Problems, where: str, table: AgentTable, base: Path) -> Trust:
    """Who an agent's bots with TLS are to be."""
    schemes = [entry.lower().partition("://")[0] for entry in table.instances or ()]
    if not any(scheme.endswith("https") for scheme in schemes):
        for key in ("bot_ca", "bot_name"):
            if getattr(table, key) is not None:
                problems.add(f"{where}.{key}", "only for instances with https")
        return Trust()
    name, ca = table.bot_name, ""
    if name is None:
        name = _named(problems, where, table)
    else:
        name = problems.parse(f"{where}.bot_name", name, parse_host) or ""
    if table.bot_ca is not None:
        try:
            ca = read_ca(base / table.bot_ca)
        except ValueError as error:
            problems.add(f"{where}.bot_ca", str(error))
    return Trust(ca, name)


def _named(problems: Problems, where: str, table: AgentTable) -> str:
    """What certificates of bots are for whose addresses come from a name; "" for the others'."""
    entries = [entry.lower() for entry in table.instances or () if "https://" in entry.lower()]
    found = [entry for entry in entries if entry.startswith("dns+")]
    names = {entry.partition("://")[2].partition(":")[0].strip("/.") for entry in found}
    if len(names) > 1 or (names and len(found) < len(entries)):
        problems.add(
            f"{where}.bot_name",
            "not given, expected the name in the certificates of all bots, since their entries"
            " in instances do not tell one",
        )
    return names.pop() if names else ""


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
