"""One-time tokens: mint them, verify them, and find them in a request.

A token is `payload "." signature`, both base64url without padding (RFC 4648 section
5). The payload is compact JSON with its members in one order, so that it is a regular
language: one pattern reads it and guards what is minted. No JSON parser ever sees what
a stranger sent, and two different texts are never the same token, which the store of
used tokens relies on.

Laws:
- What `mint` returns verifies until it expires, for its service host and key only.
- Nothing else verifies: any changed character is a malformed token or a wrong signature.
- Before the signature holds, the payload decides nothing but which key to try.

Use of a token (once) is the session store's matter; nothing here remembers.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from relay.errors import Refusal
from relay.policy.catalog import AGENT_NAME, ORGANIZATION_NAME, TokenKey
from relay.policy.signing import SIGNATURE_SIZE, equal, sign

__all__ = [
    "MAX_TOKEN",
    "TOKEN_TTL",
    "Claims",
    "find_carrier",
    "inspect",
    "key_matches",
    "mint",
    "verify",
]

# Seconds from minting to expiry: five minutes, as the public contract says.
TOKEN_TTL = 300
# Characters. The longest token that the patterns below allow has 512 or fewer, and a
# URL that carries it with a body stays well within a request line.
MAX_TOKEN = 512

_SIGNATURE_LENGTH = (SIGNATURE_SIZE * 4 + 2) // 3
_TOKEN = re.compile(rf"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{{{_SIGNATURE_LENGTH}}})")
# The members' bounds leave room for the longest names, a UUID, a date until the year
# 2286, 64 characters of nonce and as many of key id within `MAX_TOKEN`.
_PAYLOAD = re.compile(
    rf'\{{"sh":"({AGENT_NAME.pattern}\.{ORGANIZATION_NAME.pattern})"'
    r',"sid":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"'
    r',"exp":(0|[1-9][0-9]{0,9})'
    r',"nonce":"([A-Za-z0-9_-]{1,64})"'
    r',"kid":"([A-Za-z0-9._-]{1,64})"\}'
)
# RFC 9110 section 11.4: the scheme in any case, spaces, then the credentials.
_BEARER = re.compile(rb"bearer +(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says.

    Attributes:
        service_host: `agent.organization`, the only one that the token opens.
        session_id: UUID in lower case.
        expires: Unix seconds from which on the token is refused.
        nonce: makes two tokens of one session differ; letters, digits, `_` and `-`.
        key_id: names the key that signed; letters, digits, `_`, `-` and `.`.
    """

    service_host: str
    session_id: str
    expires: int
    nonce: str
    key_id: str


def mint(claims: Claims, key: TokenKey) -> str:
    """The token for these claims: characters of `[A-Za-z0-9_.-]`, at most `MAX_TOKEN`.

    Raises:
        ValueError: claims that no token can hold, or another key than they name; the
            mistake of a caller in this program, never of one on the network.
    """
    payload = (
        f'{{"sh":"{claims.service_host}","sid":"{claims.session_id}","exp":{claims.expires:d}'
        f',"nonce":"{claims.nonce}","kid":"{claims.key_id}"}}'
    )
    if key.id != claims.key_id or _PAYLOAD.fullmatch(payload) is None:
        raise ValueError(f"no token can hold these claims with key {key.id!r}: {claims!r}")
    signed = _encode(payload.encode("ascii"))
    return f"{signed}.{_encode(sign(key.secret, signed.encode('ascii')))}"


def verify(token: str, keys: Sequence[TokenKey], service_host: str, now: float) -> Claims:
    """Check a token's form, signature, expiry and scope, in this order.

    Args:
        token: as the caller presented it.
        keys: the organization's keys, any of which may have signed.
        service_host: where the caller wants to go.
        now: Unix seconds; the token holds while this is less than its expiry.

    Returns:
        The claims, all of them signed.

    Raises:
        Refusal: 403, with the cause that says which check failed.
    """
    signed, signature, claims = _parse(token)
    key = next((key for key in keys if key.id == claims.key_id), None)
    if key is None:
        _refuse("unknown_key", "the token was signed with a key that is not, or no longer, in use")
    if not equal(sign(key.secret, signed), signature):
        _refuse("bad_signature", "the token's signature is wrong; use the token as /start gave it")
    if not now < claims.expires:
        _refuse("expired", "the token has expired; ask /start for a new one")
    if claims.service_host != service_host:
        _refuse("wrong_scope", "the token is for another agent; ask /start of this one")
    return claims


def inspect(token: str) -> dict[str, object]:
    """A token's claims by name, NOT verified: for an operator's eyes only.

    Raises:
        Refusal: 403 `token_malformed`.
    """
    _, _, claims = _parse(token)
    return asdict(claims)


def find_carrier(
    authorization: Sequence[bytes], query: Sequence[bytes], path_token: str | None
) -> str | None:
    """The token that a request presents: of the header, else the query, else the path.

    The first that is there decides, valid or not. One that is empty, and an
    Authorization of another scheme than Bearer, are not there.

    Args:
        authorization: the values of all Authorization fields.
        query: the values of all `token` parameters, as sent (still percent-encoded).
        path_token: the path segment behind the service host, decoded.

    Raises:
        Refusal: 400 for a repeated field or parameter, whichever would decide.
    """
    if len(authorization) > 1:
        reason = f"the request has {len(authorization)} Authorization fields; expected at most one"
        raise Refusal(400, reason, cause="authorization_repeated")
    if len(query) > 1:
        reason = f"the query has {len(query)} token parameters; expected at most one"
        raise Refusal(400, reason, cause="token_repeated")
    bearer = _BEARER.fullmatch(authorization[0].strip(b" \t")) if authorization else None
    # Latin-1 maps every byte; what is not of a token's alphabet is malformed later on.
    in_header = bearer[1].decode("latin-1") if bearer else ""
    in_query = unquote_to_bytes(query[0]).decode("latin-1") if query else ""
    return in_header or in_query or path_token or None


def key_matches(presented: bytes, keys: Sequence[str]) -> bool:
    """Whether an API key is one of these; every one is compared, found or not."""
    found = False
    for key in keys:
        found |= equal(presented, key.encode("utf-8"))
    return found


def _parse(token: str) -> tuple[bytes, bytes, Claims]:
    """Split a token into its signed text, its signature and what the payload claims."""
    parts = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if parts is None:
        _refuse_form()
    payload = _PAYLOAD.fullmatch(_decode(parts[1]).decode("latin-1"))
    if payload is None:
        _refuse_form()
    service_host, session_id, expires, nonce, key_id = payload.groups()
    claims = Claims(service_host, session_id, int(expires), nonce, key_id)
    return parts[1].encode("ascii"), _decode(parts[2]), claims


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Decode base64url; only the spelling that `_encode` writes is taken."""
    if len(text) % 4 == 1:
        _refuse_form()
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(data) != text:
        _refuse_form()
    return data


def _refuse_form() -> NoReturn:
    _refuse("malformed", "this is not a token of this service; use the token as /start gave it")


def _refuse(what: str, reason: str) -> NoReturn:
    raise Refusal(403, reason, cause=f"token_{what}")
