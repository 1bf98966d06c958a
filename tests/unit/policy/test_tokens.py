"""Tables of tokens: what is minted, each refusal with its cause, and the carriers."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace

import pytest

from relay.errors import Refusal
from relay.policy.catalog import TokenKey
from relay.policy.signing import sign
from relay.policy.tokens import (
    MAX_TOKEN,
    TOKEN_TTL,
    Claims,
    find_carrier,
    inspect,
    key_matches,
    mint,
    verify,
)

HOST = "my-agent.my-org"
SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOW = 1_800_000_000
KEY = TokenKey("2026-11", b"k" * 32)
OLD_KEY = TokenKey("2026-10", b"o" * 32)
CLAIMS = Claims(HOST, SESSION, NOW + TOKEN_TTL, "n0nce_-", KEY.id)
TOKEN = mint(CLAIMS, KEY)
PAYLOAD = (
    b'{"sh":"my-agent.my-org","sid":"0f8fad5b-d9cb-469f-a165-70867728950e"'
    b',"exp":1800000300,"nonce":"n0nce_-","kid":"2026-11"}'
)


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(payload: bytes, key: TokenKey = KEY) -> str:
    """A token with a right signature over any payload."""
    text = encode(payload)
    return f"{text}.{encode(sign(key.secret, text.encode()))}"


def cause_of(
    token: str, host: str = HOST, now: float = NOW, keys: tuple[TokenKey, ...] = (KEY,)
) -> str:
    with pytest.raises(Refusal) as caught:
        verify(token, keys, host, now)
    assert caught.value.status == 403
    assert token not in caught.value.reason or not token
    return caught.value.cause


def test_the_form_of_a_token() -> None:
    payload, _, signature = TOKEN.partition(".")
    assert urlsafe_b64decode(payload + "=" * (-len(payload) % 4)) == PAYLOAD
    assert json.loads(PAYLOAD) == {
        "sh": HOST,
        "sid": SESSION,
        "exp": NOW + TOKEN_TTL,
        "nonce": "n0nce_-",
        "kid": "2026-11",
    }
    assert len(signature) == 43
    assert signed(PAYLOAD) == TOKEN


def test_a_minted_token_verifies_and_shows_its_claims() -> None:
    assert verify(TOKEN, [KEY], HOST, NOW) == CLAIMS
    assert inspect(TOKEN) == {
        "service_host": HOST,
        "session_id": SESSION,
        "expires": NOW + TOKEN_TTL,
        "nonce": "n0nce_-",
        "key_id": "2026-11",
    }


def test_any_of_the_keys_may_have_signed() -> None:
    old = mint(replace(CLAIMS, key_id=OLD_KEY.id), OLD_KEY)
    assert verify(old, [KEY, OLD_KEY], HOST, NOW).key_id == OLD_KEY.id
    assert verify(TOKEN, [OLD_KEY, KEY], HOST, NOW).key_id == KEY.id


def test_the_longest_names_fit() -> None:
    key = TokenKey("k" * 64, b"k" * 32)
    claims = Claims(f"{'a' * 54}.{'b' * 64}", SESSION, 9_999_999_999, "n" * 64, key.id)
    token = mint(claims, key)
    assert len(token) <= MAX_TOKEN
    assert verify(token, [key], claims.service_host, NOW) == claims


@pytest.mark.parametrize(
    ("now", "valid"),
    [(NOW, True), (NOW + 299.999, True), (NOW + 300, False), (NOW + 300.001, False), (0.0, True)],
)
def test_a_token_holds_while_now_is_before_its_expiry(now: float, valid: bool) -> None:
    if valid:
        assert verify(TOKEN, [KEY], HOST, now) == CLAIMS
    else:
        assert cause_of(TOKEN, now=now) == "token_expired"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"null",
        PAYLOAD + b" ",
        PAYLOAD.replace(b":", b": ", 1),
        PAYLOAD.replace(b'"exp":1800000300', b'"exp":"1800000300"'),
        PAYLOAD.replace(b'"exp":1800000300', b'"exp":1800000300.0'),
        PAYLOAD.replace(b'"exp":1800000300', b'"exp":01800000300'),
        PAYLOAD.replace(b'"exp":1800000300', b'"exp":-1'),
        PAYLOAD.replace(b'"exp":1800000300', b'"exp":true'),
        PAYLOAD.replace(b'"exp":1800000300', b'"exp":18000003000'),
        PAYLOAD.replace(b'"exp":1800000300,', b""),
        PAYLOAD.replace(b"}", b',"x":1}'),
        PAYLOAD.replace(b"}", b',"kid":"2026-11"}'),
        PAYLOAD.replace(b"0f8fad5b", b"0F8FAD5B"),
        PAYLOAD.replace(b"0f8fad5b-", b"0f8fad5b"),
        PAYLOAD.replace(b"my-agent.my-org", b"my-agent"),
        PAYLOAD.replace(b"my-agent.my-org", b"my-agent.my.org"),
        PAYLOAD.replace(b"my-agent.my-org", b"My-agent.my-org"),
        PAYLOAD.replace(b"n0nce_-", b""),
        PAYLOAD.replace(b"n0nce_-", b"n" * 65),
        PAYLOAD.replace(b"n0nce_-", b"\\u006e"),
        PAYLOAD.replace(b"n0nce_-", "é".encode()),
        PAYLOAD.replace(b"2026-11", b"a b"),
        b"[" * 300,
        b"\xff" * 60,
    ],
)
def test_a_wrong_payload_is_malformed_even_when_signed(payload: bytes) -> None:
    assert payload != PAYLOAD
    assert cause_of(signed(payload)) == "token_malformed"


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "a.b",
        TOKEN + "=",
        TOKEN + "A",
        TOKEN[:-1],
        "A" + TOKEN,
        " " + TOKEN,
        TOKEN + "\n",
        TOKEN + "." + TOKEN,
        TOKEN.replace(".", ""),
        TOKEN.replace(".", ".."),
        TOKEN.replace(".", "=."),
        TOKEN + "é",
        "\ud800" + TOKEN,
        "\uff21" + TOKEN[1:],
        "A" * 513,
        "A" * 10_000_000,
    ],
)
def test_a_wrong_form_is_malformed(token: str) -> None:
    assert cause_of(token) == "token_malformed"


def test_a_second_spelling_of_a_token_is_malformed() -> None:
    # The last character of 32 bytes in base64 carries two bits that belong to no byte.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(TOKEN[-1])
    for other in range(last + 1, last + 4):
        twin = TOKEN[:-1] + alphabet[other]
        decoded = urlsafe_b64decode(twin.partition(".")[2] + "=")
        assert decoded == urlsafe_b64decode(TOKEN.partition(".")[2] + "=")
        assert cause_of(twin) == "token_malformed"


def test_one_flipped_bit_anywhere_refuses() -> None:
    for place, char in enumerate(TOKEN):
        for bit in range(8):
            other = TOKEN[:place] + chr(ord(char) ^ 1 << bit) + TOKEN[place + 1 :]
            assert cause_of(other) in (
                "token_malformed",
                "token_unknown_key",
                "token_bad_signature",
            )


def test_unknown_key() -> None:
    assert cause_of(TOKEN, keys=()) == "token_unknown_key"
    assert cause_of(TOKEN, keys=(OLD_KEY,)) == "token_unknown_key"


def test_another_secret_under_the_same_id() -> None:
    assert cause_of(TOKEN, keys=(TokenKey(KEY.id, b"x" * 32),)) == "token_bad_signature"


def test_a_key_signs_only_under_its_own_id() -> None:
    assert cause_of(signed(PAYLOAD, OLD_KEY), keys=(KEY, OLD_KEY)) == "token_bad_signature"


def test_another_agent() -> None:
    for host in ("my-agent.other", "other.my-org", "my-agent", ""):
        assert cause_of(TOKEN, host=host) == "token_wrong_scope"


def test_the_order_of_checks_is_form_signature_expiry_scope() -> None:
    late, elsewhere = NOW + 1000, "other.my-org"
    assert cause_of(TOKEN + "!", elsewhere, late) == "token_malformed"
    assert cause_of(TOKEN, elsewhere, late, (OLD_KEY,)) == "token_unknown_key"
    assert cause_of(TOKEN, elsewhere, late, (TokenKey(KEY.id, b"x"),)) == "token_bad_signature"
    assert cause_of(TOKEN, elsewhere, late) == "token_expired"
    assert cause_of(TOKEN, elsewhere) == "token_wrong_scope"


@pytest.mark.parametrize("token", ["", "x.y", signed(b"{}")])
def test_inspect_refuses_what_is_no_token(token: str) -> None:
    with pytest.raises(Refusal) as caught:
        inspect(token)
    assert caught.value.cause == "token_malformed"


def test_inspect_needs_no_key() -> None:
    assert inspect(signed(PAYLOAD, OLD_KEY))["nonce"] == "n0nce_-"


@pytest.mark.parametrize(
    "claims",
    [
        replace(CLAIMS, key_id=OLD_KEY.id),
        replace(CLAIMS, service_host="my-agent"),
        replace(CLAIMS, service_host='a.b","sid":"'),
        replace(CLAIMS, session_id="1"),
        replace(CLAIMS, session_id=SESSION.upper()),
        replace(CLAIMS, expires=-1),
        replace(CLAIMS, expires=10**10),
        replace(CLAIMS, nonce=""),
        replace(CLAIMS, nonce='"'),
        replace(CLAIMS, nonce="n\n"),
        replace(CLAIMS, nonce="n" * 65),
    ],
)
def test_claims_that_no_token_can_hold(claims: Claims) -> None:
    with pytest.raises(ValueError, match="no token can hold"):
        mint(claims, KEY)


@pytest.mark.parametrize(
    ("authorization", "query", "path", "found"),
    [
        ([], [], None, None),
        ([], [], "", None),
        ([b"Bearer h"], [b"q"], "p", "h"),
        ([], [b"q"], "p", "q"),
        ([], [], "p", "p"),
        ([b"bEaReR h"], [], None, "h"),
        ([b" Bearer   h "], [], None, "h"),
        ([b"Bearer a b"], [], None, "a b"),
        ([b"Bearer \xff"], [b"q"], None, "\xff"),
        ([b"Basic h"], [b"q"], "p", "q"),
        ([b"Bearerh"], [], "p", "p"),
        ([b"Bearer"], [], "p", "p"),
        ([b"Bearer "], [b"q"], None, "q"),
        ([b""], [b""], "p", "p"),
        ([], [b"a%2Eb%5F"], None, "a.b_"),
        ([], [b"a+b"], None, "a+b"),
        ([], [b"%ff%"], None, "\xff%"),
    ],
)
def test_carriers(
    authorization: list[bytes], query: list[bytes], path: str | None, found: str | None
) -> None:
    assert find_carrier(authorization, query, path) == found


@pytest.mark.parametrize(
    ("authorization", "query", "cause"),
    [
        ([b"Bearer h", b"Bearer h"], [], "authorization_repeated"),
        ([b"Basic h", b"Bearer h"], [], "authorization_repeated"),
        ([], [b"q", b"q"], "token_repeated"),
        ([b"Bearer h"], [b"q", b""], "token_repeated"),
    ],
)
def test_repeated_carriers(authorization: list[bytes], query: list[bytes], cause: str) -> None:
    with pytest.raises(Refusal) as caught:
        find_carrier(authorization, query, "p")
    assert (caught.value.status, caught.value.cause) == (400, cause)


@pytest.mark.parametrize(
    ("presented", "keys", "found"),
    [
        (b"pk_1", ("pk_1",), True),
        (b"pk_2", ("pk_1", "pk_2", "pk_3"), True),
        (b"pk_4", ("pk_1", "pk_2"), False),
        (b"pk_", ("pk_1",), False),
        (b"", ("pk_1",), False),
        (b"pk_1", (), False),
        (b"\xff", ("pk_1",), False),
    ],
)
def test_key_matches(presented: bytes, keys: tuple[str, ...], found: bool) -> None:
    assert key_matches(presented, keys) is found
