"""Keyed signatures and comparisons that tell nothing by the time they take.

The only place that knows which hash is used. RFC 2104 (HMAC), FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import hmac

__all__ = ["SIGNATURE_SIZE", "equal", "sign"]

# Bytes of a SHA-256 digest.
SIGNATURE_SIZE = 32


def sign(secret: bytes, data: bytes) -> bytes:
    """The HMAC-SHA256 of the data under the secret: `SIGNATURE_SIZE` bytes."""
    return hmac.digest(secret, data, "sha256")


def equal(a: bytes, b: bytes) -> bool:
    """Whether two byte strings are the same, in time that tells at most their lengths."""
    return hmac.compare_digest(a, b)
