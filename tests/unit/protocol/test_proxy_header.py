"""PROXY headers: every form that the specification has, and what is refused."""

from __future__ import annotations

import pytest

from relay.protocol.proxy_header import (
    MAX_HEADER,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderError,
    parse_proxy_header,
)

V4 = bytes((192, 0, 2, 1, 198, 51, 100, 9)) + b"\xdb\xe0\x01\xbb"
V6 = bytes.fromhex("20010db8000000000000000000000001") * 2 + b"\xdb\xe0\x01\xbb"


def binary(command: int, kind: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes((command, kind)) + len(rest).to_bytes(2, "big") + rest


RIGHT = {
    "line of IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.9 56288 443\r\n", "192.0.2.1:56288"),
    "line of IPv6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 56288 443\r\n", "2001:db8::1:56288"),
    "line of an unknown peer": (b"PROXY UNKNOWN\r\n", None),
    "line of an unknown peer with more": (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", None),
    "line with port 0": (b"PROXY TCP4 192.0.2.1 198.51.100.9 0 443\r\n", "192.0.2.1:0"),
    "binary IPv4": (binary(0x21, 0x11, V4), "192.0.2.1:56288"),
    "binary IPv6": (binary(0x21, 0x21, V6), "2001:db8::1:56288"),
    "binary with more behind": (binary(0x21, 0x11, V4 + b"\x04\x00\x01x"), "192.0.2.1:56288"),
    "binary of the balancer itself": (binary(0x20, 0x00, b""), None),
    "binary of itself with addresses": (binary(0x20, 0x11, V4), None),
    "binary of an unspecified peer": (binary(0x21, 0x00, b"abc"), None),
}
WRONG = {
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "lower case": b"proxy TCP4 192.0.2.1 198.51.100.9 1 2\r\n",
    "no family": b"PROXY \r\n",
    "UDP": b"PROXY UDP4 192.0.2.1 198.51.100.9 1 2\r\n",
    "a port too few": b"PROXY TCP4 192.0.2.1 198.51.100.9 1\r\n",
    "a word too many": b"PROXY TCP4 192.0.2.1 198.51.100.9 1 2 3\r\n",
    "two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.9 1 2\r\n",
    "another family's address": b"PROXY TCP4 2001:db8::1 198.51.100.9 1 2\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
    "no address": b"PROXY TCP4 example.com 198.51.100.9 1 2\r\n",
    "a port beyond": b"PROXY TCP4 192.0.2.1 198.51.100.9 65536 2\r\n",
    "a port with a zero": b"PROXY TCP4 192.0.2.1 198.51.100.9 01 2\r\n",
    "a port with a sign": b"PROXY TCP4 192.0.2.1 198.51.100.9 +1 2\r\n",
    "a second port that is none": b"PROXY TCP4 192.0.2.1 198.51.100.9 1 x\r\n",
    "a bare line feed": b"PROXY TCP4 192.0.2.1 198.51.100.9 1 2\n",
    "an endless line": b"PROXY TCP4 " + b"1" * 100,
    "a line of 108 bytes": b"PROXY UNKNOWN" + b" " * 93 + b"\r\n",
    "version 1 in binary": binary(0x11, 0x11, V4),
    "another command": binary(0x22, 0x11, V4),
    "UDP in binary": binary(0x21, 0x12, V4),
    "a Unix socket": binary(0x21, 0x31, bytes(216)),
    "addresses cut off": binary(0x21, 0x11, V4[:-1]),
    "IPv6 that is IPv4": binary(0x21, 0x21, V4),
    "too much behind": binary(0x21, 0x11, V4 + bytes(MAX_HEADER)),
    "a signature with one byte wrong": SIGNATURE[:-1] + b"!" + bytes(20),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    data, peer = RIGHT[name]
    assert parse_proxy_header(data) == ProxyHeader(len(data), peer)
    assert parse_proxy_header(data + b"GET / HTTP/1.1\r\n") == ProxyHeader(len(data), peer)
    for size in range(len(data)):
        assert parse_proxy_header(data[:size]) is None, f"its first {size} bytes"


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    with pytest.raises(ProxyHeaderError, match="expected"):
        parse_proxy_header(WRONG[name])
