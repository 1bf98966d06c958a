"""The inputs of the cases: what callers and bots send; fixed, and with no real secret."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

from relay.policy.catalog import Agent, TokenKey
from relay.policy.tokens import Claims

__all__ = [
    "AGENT",
    "ANSWER",
    "ANSWER_BODY",
    "AUDIO",
    "BODY",
    "CLAIMS",
    "FULL_BODY",
    "INSTANCE",
    "KEYS",
    "NOW",
    "SESSION",
    "START",
    "audio_frame",
    "base64_of",
    "browser_upgrade",
]

NOW = 1_700_000_000.0
INSTANCE = "http://127.0.0.1:7860"
AGENT = Agent("my-agent", "acme", (INSTANCE,))
SESSION = "01234567-89ab-4cde-8f01-23456789abcd"
# The key in use stands behind the next one, as while keys are being replaced.
KEYS = (TokenKey("next", bytes(range(32, 64))), TokenKey("k1", bytes(range(32))))
CLAIMS = Claims(AGENT.service_host, SESSION, int(NOW) + 300, "wtJ2vXyQ4mYp0c3ZbD5e7g", "k1")

BODY = {"caller": "alice", "language": "en-GB", "topic": "a booking that has to be moved"}
FULL_BODY = {"notes": "Why? Because > all know: ü. " * 140}  # nearly the 4096 bytes of a body

# Bytes of a message of 20 ms of 16 kHz audio as a Pipecat client sends it (protobuf).
AUDIO = 651
MASK_BIT, MASK = 0x80, b"\x11\x22\x33\x44"
BINARY = 0x82

START = (
    b"POST /v1/public/my-agent/start HTTP/1.1\r\n"
    b"Host: relay.example.com\r\n"
    b"Authorization: Bearer pk_0123456789abcdef0123456789abcdef\r\n"
    b"Accept: */*\r\n"
    b"Accept-Encoding: gzip, deflate\r\n"
    b"User-Agent: python-client/1.0\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: 60\r\n"
    b"\r\n"
)
ANSWER_BODY = json.dumps(
    {"items": [{"id": number, "name": "item"} for number in range(8)]}
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    b"server: uvicorn\r\n"
    b"content-type: application/json\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n"
    b"\r\n%s" % (len(ANSWER_BODY), ANSWER_BODY)
)


def base64_of(value: object) -> bytes:
    """JSON in base64, as `?body=` carries it: escaped as `encodeURIComponent` does."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return quote(base64.b64encode(data), safe="").encode()


def browser_upgrade(token: str) -> bytes:
    """The head that a browser sends to open a call: the token and a body in the query."""
    return (
        b"GET /ws/generic/my-agent.acme?body=%s&token=%s HTTP/1.1\r\n"
        b"Host: relay.example.com\r\n"
        b"Connection: Upgrade\r\n"
        b"Pragma: no-cache\r\n"
        b"Cache-Control: no-cache\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36"
        b"\r\n"
        b"Upgrade: websocket\r\n"
        b"Origin: https://app.example.com\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Accept-Encoding: gzip, deflate, br\r\n"
        b"Accept-Language: en-GB,en;q=0.9\r\n"
        b"Cookie: theme=dark; visit=0123456789abcdef\r\n"
        b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        b"\r\n" % (base64_of(BODY), token.encode())
    )


def audio_frame(size: int = AUDIO) -> bytes:
    """A whole masked binary frame with `size` bytes, 126 or more, of payload (RFC 6455)."""
    if size < 1 << 16:
        length = bytes((MASK_BIT | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((MASK_BIT | 127,)) + size.to_bytes(8, "big")
    return bytes((BINARY,)) + length + MASK + bytes(size)
