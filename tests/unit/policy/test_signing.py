"""Signatures against published vectors, and comparison."""

from __future__ import annotations

import pytest

from relay.policy.signing import SIGNATURE_SIZE, equal, sign


# RFC 4231, test cases 1, 2, 3, 4 and 6 (a key longer than the hash's block).
@pytest.mark.parametrize(
    ("key", "data", "digest"),
    [
        (
            b"\x0b" * 20,
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            b"\xaa" * 20,
            b"\xdd" * 50,
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            bytes(range(1, 26)),
            b"\xcd" * 50,
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_published_vectors(key: bytes, data: bytes, digest: str) -> None:
    assert sign(key, data).hex() == digest
    assert len(sign(key, data)) == SIGNATURE_SIZE


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (b"", b"", True),
        (b"a", b"a", True),
        (b"\xff\x00", b"\xff\x00", True),
        (b"a", b"b", False),
        (b"a", b"aa", False),
        (b"", b"a", False),
    ],
)
def test_equal(a: bytes, b: bytes, same: bool) -> None:
    assert equal(a, b) is same
