"""Laws of tokens: what was minted verifies where and while it may, nothing else does."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.policy.catalog import AGENT_NAME, ORGANIZATION_NAME, TokenKey
from relay.policy.tokens import MAX_TOKEN, Claims, find_carrier, inspect, mint, verify

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
SAFE = ALPHABET.replace(".", "")
KEYS = st.builds(
    TokenKey,
    id=st.text(ALPHABET, min_size=1, max_size=64),
    secret=st.binary(min_size=32, max_size=64),
)
HOSTS = st.tuples(
    st.from_regex(AGENT_NAME, fullmatch=True), st.from_regex(ORGANIZATION_NAME, fullmatch=True)
).map(".".join)
EXPIRIES = st.integers(1, 9_999_999_999)


@st.composite
def minted(draw: st.DrawFn) -> tuple[str, Claims, TokenKey]:
    key = draw(KEYS)
    claims = Claims(
        service_host=draw(HOSTS),
        session_id=str(draw(st.uuids())),
        expires=draw(EXPIRIES),
        nonce=draw(st.text(SAFE, min_size=1, max_size=64)),
        key_id=key.id,
    )
    return mint(claims, key), claims, key


Minted = tuple[str, Claims, TokenKey]


def refused(token: str, keys: list[TokenKey], claims: Claims, now: float = 0.0) -> str:
    with pytest.raises(Refusal) as caught:
        verify(token, keys, claims.service_host, now)
    assert caught.value.status == 403
    return caught.value.cause


@given(minted(), st.lists(KEYS, max_size=3), st.data())
def test_minted_tokens_verify_until_they_expire(
    sample: Minted, others: list[TokenKey], data: st.DataObject
) -> None:
    token, claims, key = sample
    keys = [key, *(other for other in others if other.id != key.id)][
        :: data.draw(st.sampled_from([1, -1]))
    ]
    now = data.draw(st.floats(0, claims.expires, exclude_max=True))
    assert verify(token, keys, claims.service_host, now) == claims


@given(minted())
def test_a_token_fits_everywhere_a_caller_may_put_it(sample: Minted) -> None:
    token, _, _ = sample
    assert set(token) <= set(ALPHABET)
    assert len(token) <= MAX_TOKEN
    assert find_carrier([b"Bearer " + token.encode()], [], None) == token
    assert find_carrier([], [token.encode()], None) == token
    assert find_carrier([], [], token) == token


@given(minted())
def test_inspect_shows_what_was_minted(sample: Minted) -> None:
    token, claims, _ = sample
    assert Claims(**inspect(token)) == claims  # type: ignore[arg-type]


@given(minted(), st.data())
def test_one_flipped_bit_refuses(sample: Minted, data: st.DataObject) -> None:
    token, claims, key = sample
    place = data.draw(st.integers(0, len(token) - 1))
    for bit in range(8):
        flipped = token[:place] + chr(ord(token[place]) ^ 1 << bit) + token[place + 1 :]
        assert refused(flipped, [key], claims) != "token_expired"


@given(minted(), st.floats(0, 1e12))
def test_an_expired_token_refuses(sample: Minted, later: float) -> None:
    token, claims, key = sample
    assert refused(token, [key], claims, claims.expires + later) == "token_expired"


@given(minted(), HOSTS)
def test_another_host_refuses(sample: Minted, host: str) -> None:
    token, claims, key = sample
    assume(host != claims.service_host)
    assert refused(token, [key], replace(claims, service_host=host)) == "token_wrong_scope"


@given(minted(), KEYS)
def test_another_key_refuses(sample: Minted, other: TokenKey) -> None:
    token, claims, key = sample
    assume(other.id != key.id and other.secret.rstrip(b"\0") != key.secret.rstrip(b"\0"))
    assert refused(token, [other], claims) == "token_unknown_key"
    assert refused(token, [TokenKey(key.id, other.secret)], claims) == "token_bad_signature"


@given(minted(), minted())
def test_a_payload_with_the_signature_of_another_refuses(one: Minted, two: Minted) -> None:
    assume(one[0] != two[0])
    mixed = one[0].partition(".")[0] + "." + two[0].partition(".")[2]
    key = TokenKey(one[2].id, two[2].secret)
    assert refused(mixed, [key], one[1]) == "token_bad_signature"


@given(minted(), st.binary(min_size=32, max_size=32))
def test_a_payload_with_a_made_up_signature_refuses(sample: Minted, signature: bytes) -> None:
    token, claims, key = sample
    text = urlsafe_b64encode(signature).rstrip(b"=").decode()
    made_up = token.partition(".")[0] + "." + text
    assume(made_up != token)
    assert refused(made_up, [key], claims) == "token_bad_signature"


@given(
    minted(),
    st.text(max_size=80) | st.text(ALPHABET, max_size=600) | st.from_regex(r"eyJ[\w-]+\.[\w-]{43}"),
)
def test_random_text_refuses(sample: Minted, text: str) -> None:
    _, claims, key = sample
    assert refused(text, [key], claims) == "token_malformed"


@given(
    st.lists(st.binary(max_size=20), max_size=3),
    st.lists(st.binary(max_size=20), max_size=3),
    st.none() | st.text(max_size=20),
)
def test_only_a_refusal_comes_out_of_the_search(
    authorization: list[bytes], query: list[bytes], path: str | None
) -> None:
    try:
        found = find_carrier(authorization, query, path)
    except Refusal:
        assert len(authorization) > 1 or len(query) > 1
    else:
        assert max(len(authorization), len(query)) <= 1
        assert found != ""
