"""Read the target of an HTTP request: its form, its path segments and its query.

Laws:
- The path is split at `/` before it is percent-decoded, so an escape can never
  make, join or hide a segment; an escaped separator is refused.
- What goes on to a bot is the caller's own bytes. The canonical form exists only
  to judge a path by, and judging it twice gives the same answer.
- A target that two parsers could read differently is refused, not repaired.
- A log line shows a segment because its shape says that it cannot be a secret,
  never because it was not recognised as one.

RFC 9112 section 3.2 (request targets), RFC 3986 section 6.2.2 (normal form).
"""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import unquote_to_bytes

import msgspec

from relay.errors import Refusal

__all__ = [
    "RESERVED_PATHS",
    "Target",
    "bad_escape",
    "canonical_path",
    "is_reserved",
    "parse_target",
    "redacted",
]

# Paths of a bot by which a session is started, ended or probed: whoever holds only
# a public key must not reach them through a session (docs/protocol.md).
RESERVED_PATHS = frozenset(
    {b"/bot", b"/ws", b"/readyz", b"/livez", b"/whatsapp", b"/pcc/capabilities"}
)

# A log line shows at most so much of a path; longer ones are cut.
MAX_SHOWN = 200

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Printable ASCII without `#`: what else stands in a URL must be percent-encoded.
_FOREIGN = re.compile(rb"[^\x21-\x7e]|#")
_ABSOLUTE = re.compile(rb"(?:https?|wss?)://([^/?]*)(.*)", re.IGNORECASE)
# Bytes that are a separator, or the end of a string, to some reader of paths.
_SEPARATOR = re.compile(rb"[/\\\x00]")

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_TO_NORMALISE = re.compile(rb"%[0-9A-Fa-f]{2}|%|[^\x21-\x7e]")

_ORIGIN = re.compile(rb"[A-Za-z][-A-Za-z0-9+.]*://[^/?#]*")
# A query also begins here when the caller has escaped its mark by mistake.
_QUERY = re.compile(rb"[?#]|%3F|%23", re.IGNORECASE)
# Shorter than a token's signature (43 characters) and than any payload; no API key, no
# user information, and none of the characters that would make a query of it.
_PLAIN = re.compile(rb"(?!(?:pk|sk|pcc)_)[-A-Za-z0-9._~%:,+*!()$']{1,40}")
_WORD = re.compile(rb"[a-z]{1,16}")
# `agent.organization`; a token's payload has capitals and more than 54 characters.
_SERVICE_HOST = re.compile(rb"[-a-z0-9]{1,54}\.[-a-z0-9]{1,64}")


class Target(msgspec.Struct, frozen=True, gc=False):
    """A request target that both sides of the relay read in the same way.

    Attributes:
        path: the path as it was sent, beginning with `/`, without the query.
        query: the query as it was sent, without `?`; empty when there is none.
        segments: the path split at `/`, then percent-decoded, without the empty one
            before the first `/`; a trailing slash gives a last empty segment.
        raw_segments: the same segments as they were sent.
    """

    path: bytes
    query: bytes
    segments: tuple[str, ...]
    raw_segments: tuple[bytes, ...]

    def parameters(self) -> tuple[tuple[bytes, bytes], ...]:
        """The query's pairs in order: names decoded (`+` is a space), values as sent.

        A piece without `=` has an empty value; empty pieces are left out.
        """
        pieces = (piece.partition(b"=") for piece in self.query.split(b"&") if piece)
        return tuple(
            (unquote_to_bytes(name.replace(b"+", b" ")), value) for name, _, value in pieces
        )


def parse_target(target: bytes, host: bytes | None) -> Target:
    """Read a request target in origin form, or in absolute form for this host.

    Args:
        target: the bytes between the method and the version.
        host: the value of the Host field; an absolute target must name the same.

    Raises:
        Refusal: 400, for any other form (RFC 9112 section 3.2), bytes that a URL
            cannot hold, escapes that are none, dot segments, escaped or reversed
            slashes, NUL, and paths that are not UTF-8.
    """
    _check_bytes(target)
    path, _, query = _origin_form(target, host).partition(b"?")
    if b"\\" in path:
        _refuse("backslash", "the path has a backslash; expected / between segments")
    raw_segments = tuple(path[1:].split(b"/"))
    return Target(path, query, tuple(map(_segment, raw_segments)), raw_segments)


def canonical_path(path: bytes) -> bytes:
    """The form in which reserved paths are judged (RFC 3986 section 6.2.2).

    Unreserved characters decoded, other escapes in upper case, a `%` that begins no
    escape and bytes outside printable ASCII escaped, slashes collapsed, dot segments
    resolved without leaving the root, no trailing slash except for the root itself.
    Total over all bytes, and a fixed point: the form of a form is that form.
    """
    kept: list[bytes] = []
    for segment in _TO_NORMALISE.sub(_normal_escape, path).split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    return b"/" + b"/".join(kept)


def is_reserved(path: bytes) -> bool:
    """Whether a path toward a bot is one of `RESERVED_PATHS`, however it is spelt."""
    return canonical_path(path) in RESERVED_PATHS


def redacted(path: bytes) -> str:
    """A path for a log line: printable ASCII, at most 200 characters, without secrets.

    Takes any bytes, a whole target that could not be parsed too; shows no query and
    no authority. A segment is shown when it is plain and at most 40 characters, or a
    service host; behind a segment `ws` only a word and a service host are shown,
    since a token, or a piece of one, may stand at any place there.
    """
    shown: list[str] = []
    behind_ws: list[re.Pattern[bytes]] | None = None
    for segment in _QUERY.split(_without_origin(path), maxsplit=1)[0].split(b"/"):
        if not segment:
            shown.append("")
            continue
        if behind_ws is None:
            visible = _PLAIN.fullmatch(segment) or _SERVICE_HOST.fullmatch(segment)
            if unquote_to_bytes(segment).lower() == b"ws":
                behind_ws = [_SERVICE_HOST, _WORD]
        else:
            visible = behind_ws.pop().fullmatch(segment) if behind_ws else None
        shown.append(segment.decode("ascii") if visible else "[redacted]")
    text = "/".join(shown)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def bad_escape(data: bytes) -> int | None:
    """The place of the first `%` without two hexadecimal digits behind it, if any."""
    found = _BAD_ESCAPE.search(data)
    return found.start() if found else None


def _check_bytes(target: bytes) -> None:
    """Refuse bytes that no URL holds, wherever they stand."""
    foreign = _FOREIGN.search(target)
    if foreign is not None:
        _refuse(
            "byte",
            f"byte {foreign.start()} of the request target is {_name_of(foreign[0][0])}; "
            "expected printable ASCII, everything else percent-encoded",
        )
    at = bad_escape(target)
    if at is not None:
        _refuse(
            "percent",
            f"the % at byte {at} of the request target has no two hexadecimal digits "
            "behind it; a % of its own is written %25",
        )


def _name_of(byte: int) -> str:
    if byte == 0x20:
        return "a space"
    if byte == 0x23:
        return "a #, which begins a fragment"
    return "a control character" if byte < 0x80 else "not ASCII"


def _origin_form(target: bytes, host: bytes | None) -> bytes:
    """The target from its path on, for the two forms that are served here."""
    if target.startswith(b"/"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        found = "*" if target == b"*" else "neither a path nor a URL"
        _refuse("form", f"the request target is {found}; expected a path that begins with /")
    authority, rest = absolute[1], absolute[2]
    # RFC 9110 section 4.2.4: user information in a target is a mistake or an attack.
    if not authority or b"@" in authority or host is None or authority.lower() != host.lower():
        _refuse("host", "the URL in the request line and the Host field name different hosts")
    # RFC 9112 section 3.2.2 with 3.2.1: an empty path means the root.
    return bytes(rest if rest.startswith(b"/") else b"/" + rest)


def _segment(raw: bytes) -> str:
    """One path segment, decoded; refused when it could be read as more or less than one."""
    if b"%" not in raw and raw not in (b".", b".."):
        return raw.decode("ascii")  # a slash, a backslash and NUL are no longer in it
    decoded = unquote_to_bytes(raw)
    if _SEPARATOR.search(decoded):
        _refuse("separator", "the path has an escaped slash, backslash or NUL; none may be in it")
    if decoded in (b".", b".."):
        _refuse("dot_segment", "the path has a segment . or ..; expected the path it leads to")
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("not_utf8", "the path, percent-decoded, is not UTF-8")


def _refuse(what: str, reason: str) -> NoReturn:
    raise Refusal(400, reason, cause=f"target_{what}") from None


def _normal_escape(found: re.Match[bytes]) -> bytes:
    """The normal spelling of one escape, or of one byte that must be escaped."""
    text = found[0]
    byte = int(text[1:], 16) if len(text) == 3 else text[0]
    return bytes((byte,)) if byte in _UNRESERVED else b"%%%02X" % byte


def _without_origin(path: bytes) -> bytes:
    """The path of an absolute target, whose authority may hold a password."""
    origin = _ORIGIN.match(path)
    return path[origin.end() :] if origin else path
