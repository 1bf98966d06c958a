"""TLS as it is configured: what the public listener shows callers, and whom bots are to be.

All of it comes from PEM files that are read and judged once, so that nothing is left to
fail when a caller comes. Versions and ciphers are those of docs/deployment.md, "TLS".
"""

from __future__ import annotations

__all__ = [
    "Certificate",
    "SSLError",
    "ServerTls",
    "day",
    "read_ca",
    "read_certificate",
    "server_tls",
    "toward_bots",
    "words_of",
]

import hashlib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from ssl import SSLError
from typing import Literal

Clients = Literal["none", "optional", "required"]

# A chain of four certificates is some 8 KiB, all public authorities together 250 KiB.
MAX_FILE = 1024 * 1024
# TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 section 4.2);
# all suites of TLS 1.3 are of that kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
PROTOCOLS = ["http/1.1"]
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL 1.1.0 and later, to which `ssl` gives no name: dates
# are judged here, with a message that tells them.
NO_CHECK_TIME = 0x200000
# OpenSSL's words for a key that is another certificate's, of the same kind or another one.
OTHERS_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
# Turns of a handshake in memory; it needs three.
TURNS = 6


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, ready for callers.

    Attributes:
        file, key: where they stand.
        names: whom it is for: host names in lower case, `*.` in front for any one label, and
            addresses.
        expires: unix seconds.
        digest: of both files' content.
    """

    file: str
    key: str
    names: tuple[str, ...]
    expires: float
    digest: bytes = field(repr=False)
    context: ssl.SSLContext = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What callers of a TLS listener meet.

    Attributes:
        certificates: the first one is for callers who name none of the others.
        client_ca: the file with whom certificates of callers are to be from; "" for none.
        clients: whether callers are asked for a certificate.
        client_digest: of the content of `client_ca`.
    """

    certificates: tuple[Certificate, ...]
    client_ca: str = ""
    clients: Clients = "none"
    client_digest: bytes = field(default=b"", repr=False)

    @property
    def ends(self) -> dict[str, float]:
        """When each certificate ends, in unix seconds, by its file."""
        return {each.file: each.expires for each in self.certificates}

    @property
    def context(self) -> ssl.SSLContext:
        """For new connections; it finds the certificate for the name that a caller asks for."""
        return self.certificates[0].context


def read_certificate(path: Path, key: Path) -> Certificate:
    """A certificate (with its chain) and its key, which may stand in the same file.

    Raises:
        ValueError: they can't be used now; the text says of which file and why.
    """
    chain, private = _read(path), _read(key)
    if "-----BEGIN CERTIFICATE-----" not in chain:
        raise ValueError(f"expected a certificate in PEM form, found none in {path}")
    if "PRIVATE KEY-----" not in private:
        raise ValueError(f"expected a private key in PEM form, found none in {key}")
    context = _server_context()
    try:
        context.load_cert_chain(path, key, password=partial(_ask_nobody, key))
    except ssl.SSLError as error:
        if error.reason in OTHERS_KEY:
            raise ValueError(f"the key in {key} does not belong to the certificate") from None
        raise ValueError(f"{path} with {key} can't be used: {words_of(error)}") from None
    names, since, expires = _inspect(path, chain, context)
    now = time.time()
    if now < since:
        raise ValueError(f"{path} is not yet valid, but from {day(since)} on")
    if now >= expires:
        raise ValueError(f"{path} has expired on {day(expires)}")
    digest = hashlib.sha256(chain.encode() + b"\0" + private.encode()).digest()
    return Certificate(str(path), str(key), names, expires, digest, context)


def server_tls(
    certificates: Sequence[Certificate], client_ca: Path | None, clients: Clients
) -> ServerTls:
    """What callers meet who may choose among certificates, of which there is one at least.

    Raises:
        ValueError: `client_ca` can't be used.
    """
    by_name: dict[str, ssl.SSLContext] = {}
    for each in certificates:
        for name in each.names:
            by_name.setdefault(name, each.context)

    def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked = (name or "").lower()
        found = by_name.get(asked) or by_name.get("*." + asked.partition(".")[2])
        if found is not None:
            sock.context = found

    trusted = read_ca(client_ca) if client_ca is not None else ""
    for each in certificates:
        if trusted:
            each.context.load_verify_locations(cadata=trusted)
            each.context.verify_mode = (
                ssl.CERT_REQUIRED if clients == "required" else ssl.CERT_OPTIONAL
            )
    certificates[0].context.sni_callback = choose
    return ServerTls(
        tuple(certificates),
        str(client_ca or ""),
        clients if trusted else "none",
        hashlib.sha256(trusted.encode()).digest(),
    )


def read_ca(path: Path) -> str:
    """The certificates of authorities, as PEM text.

    Raises:
        ValueError: there are none that could be used.
    """
    text = _read(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"expected certificates in PEM form, found none in {path}") from None
    return text


@lru_cache(maxsize=64)
def toward_bots(ca: str) -> ssl.SSLContext:
    """For connections to bots, whose certificates must be good and for the name that is asked.

    Args:
        ca: the authorities that are believed, as PEM text; "" for those of the system.
    """
    context = ssl.create_default_context(cadata=ca or None)
    _harden(context)
    return context


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    return context


def _harden(context: ssl.SSLContext) -> None:
    """What holds on both sides; compression is off in `ssl` already."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(PROTOCOLS)


def _inspect(
    path: Path, chain: str, server: ssl.SSLContext
) -> tuple[tuple[str, ...], float, float]:
    """Names and dates of a certificate: what a client learns of it in a handshake.

    `ssl` reads certificates of peers only, so a client is made that trusts this very one.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    try:
        client.load_verify_locations(cadata=chain)
        known = _shake_in_memory(client, server)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{path} can't be used: {words_of(error)}") from None
    names = [str(name).lower() for kind, name in known.get("subjectAltName", ())]  # type: ignore
    since = ssl.cert_time_to_seconds(str(known["notBefore"]))
    return tuple(names), since, ssl.cert_time_to_seconds(str(known["notAfter"]))


def _shake_in_memory(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, object]:
    """What the client then knows of the server's certificate."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up)
    answering = server.wrap_bio(up, down, server_side=True)
    for turn in range(TURNS):
        try:
            (answering if turn % 2 else asking).do_handshake()
        except ssl.SSLWantReadError:
            pass
    return dict(asking.getpeercert() or {})


def _read(path: Path) -> str:
    """A file's text without what is not ASCII: that is no PEM, but a comment beside it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ValueError(f"{path} cannot be read ({reason})") from None
    if len(content) > MAX_FILE:
        raise ValueError(f"{path} is longer than {MAX_FILE} bytes, expected PEM")
    return content.decode("ascii", "ignore")


def _ask_nobody(key: Path) -> str:
    """For a password OpenSSL would ask whoever sits at the terminal."""
    raise ValueError(f"the key in {key} is encrypted, expected one without a password")


def words_of(error: Exception) -> str:
    """OpenSSL's own words, without where in its source they are."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else "it is malformed"


def day(seconds: float) -> str:
    """A moment for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
