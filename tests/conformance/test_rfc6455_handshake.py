"""RFC 6455 section 4, by section: which opening handshakes of a client are taken."""

from __future__ import annotations

from contextlib import suppress

import pytest
from wsproto.utilities import ProtocolError

from relay.errors import Refusal
from relay.protocol.handshake import check_upgrade
from tests.helpers.handshakes import KEY, ask_wsproto, upgrade_request

Changes = dict[str, bytes | list[bytes] | None]
LINE = b"GET /ws/generic/a.b HTTP/1.1"

# section, what; request line; fields changed; status and cause
REFUSED: list[tuple[str, bytes, Changes, int, str]] = [
    ("4.1 1 POST", b"POST / HTTP/1.1", {}, 405, "method_not_allowed"),
    ("4.1 1 HEAD", b"HEAD / HTTP/1.1", {}, 405, "method_not_allowed"),
    ("4.1 1 get", b"get / HTTP/1.1", {}, 405, "method_not_allowed"),
    ("4.1 1 HTTP/1.0", b"GET / HTTP/1.0", {}, 400, "upgrade_version"),
    ("4.1 3 no Upgrade", LINE, {"Upgrade": None}, 426, "upgrade_required"),
    ("4.1 3 another Upgrade", LINE, {"Upgrade": b"h2c"}, 426, "upgrade_required"),
    ("4.1 3 a longer Upgrade", LINE, {"Upgrade": b"websockets"}, 426, "upgrade_required"),
    ("4.1 3 a list of Upgrades", LINE, {"Upgrade": b"websocket, h2c"}, 400, "websocket_handshake"),
    ("4.1 4 no Connection", LINE, {"Connection": None}, 426, "upgrade_required"),
    ("4.1 4 another Connection", LINE, {"Connection": b"keep-alive"}, 426, "upgrade_required"),
    ("4.1 4 not ASCII", LINE, {"Connection": b"Upgrade, \xe9"}, 400, "websocket_handshake"),
    ("4.1 5 no key", LINE, {"Sec-WebSocket-Key": None}, 400, "websocket_key"),
    ("4.1 5 an empty key", LINE, {"Sec-WebSocket-Key": b""}, 400, "websocket_key"),
    ("4.1 5 a key of 15 bytes", LINE, {"Sec-WebSocket-Key": b"A" * 20}, 400, "websocket_key"),
    ("4.1 5 a key of 18 bytes", LINE, {"Sec-WebSocket-Key": b"A" * 24}, 400, "websocket_key"),
    ("4.1 5 no padding", LINE, {"Sec-WebSocket-Key": KEY.rstrip(b"=")}, 400, "websocket_key"),
    ("4.1 5 no base64", LINE, {"Sec-WebSocket-Key": b"!" + KEY[1:]}, 400, "websocket_key"),
    ("4.1 5 URL-safe base64", LINE, {"Sec-WebSocket-Key": b"-_" + KEY[2:]}, 400, "websocket_key"),
    ("4.1 5 a space inside", LINE, {"Sec-WebSocket-Key": b"A " + KEY[1:]}, 400, "websocket_key"),
    ("4.1 5 not ASCII", LINE, {"Sec-WebSocket-Key": b"\xe9" + KEY[1:]}, 400, "websocket_key"),
    ("4.1 5 two keys", LINE, {"Sec-WebSocket-Key": [KEY, KEY]}, 400, "websocket_key"),
    ("4.1 6 no version", LINE, {"Sec-WebSocket-Version": None}, 426, "websocket_version"),
    ("4.1 6 version 8", LINE, {"Sec-WebSocket-Version": b"8"}, 426, "websocket_version"),
    ("4.1 6 a list", LINE, {"Sec-WebSocket-Version": b"13, 8"}, 426, "websocket_version"),
    ("4.1 6 twice", LINE, {"Sec-WebSocket-Version": [b"13"] * 2}, 426, "websocket_version"),
    ("4.1 6 spelt oddly", LINE, {"Sec-WebSocket-Version": b"013"}, 426, "websocket_version"),
    (
        "4.1 10 a subprotocol that is not ASCII",
        LINE,
        {"Sec-WebSocket-Protocol": b"\xe9"},
        400,
        "websocket_handshake",
    ),
    (
        "4.1 11 an extension that is not ASCII",
        LINE,
        {"Sec-WebSocket-Extensions": b"\xe9"},
        400,
        "websocket_handshake",
    ),
    ("4.2.1 a body", LINE, {"Content-Length": b"1"}, 400, "upgrade_with_body"),
    ("4.2.1 chunks", LINE, {"Transfer-Encoding": b"chunked"}, 400, "upgrade_with_body"),
]

BAD_LISTS: list[bytes | list[bytes]] = [
    b"",
    b"a,",
    b",a",
    b"a,,b",
    b"a b",
    b"a, a",
    [b"a", b"a"],
    b"a;b",
    b'"a"',
]
for names in BAD_LISTS:
    changed: Changes = {"Sec-WebSocket-Protocol": names}
    REFUSED.append((f"4.1 10 names {names!r}", LINE, changed, 400, "websocket_subprotocol"))

TAKEN: list[tuple[str, Changes]] = [
    ("4.1 as it is written", {}),
    ("4.1 3 in capitals", {"Upgrade": b"WebSocket"}),
    ("4.1 4 a list", {"Connection": b"keep-alive, Upgrade"}),
    ("4.1 4 empty members", {"Connection": [b",Upgrade,", b""]}),
    ("4.1 4 two lines", {"Connection": [b"upgrade", b"keep-alive"]}),
    ("4.1 5 any key", {"Sec-WebSocket-Key": b"A" * 22 + b"=="}),
    ("4.1 8 an origin", {"Origin": b"https://app.example"}),
    ("4.1 8 an opaque origin", {"Origin": b"null"}),
    ("4.1 10 subprotocols", {"Sec-WebSocket-Protocol": b"chat,superchat , v1.chat"}),
    ("4.1 10 over two lines", {"Sec-WebSocket-Protocol": [b"a", b"b"]}),
    ("4.1 11 an extension", {"Sec-WebSocket-Extensions": b"permessage-deflate; a; b=1"}),
    ("4.1 11 over two lines", {"Sec-WebSocket-Extensions": [b"a", b"b; c"]}),
    ("4.1 12 other fields", {"Cookie": b"a=b", "X-A": [b"1", b"2"]}),
    ("4.2.1 an empty body", {"Content-Length": b"0"}),
]


@pytest.mark.parametrize(
    ("line", "changed", "status", "cause"),
    [pytest.param(*row[1:], id=row[0]) for row in REFUSED],
)
def test_refused(line: bytes, changed: Changes, status: int, cause: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_upgrade(upgrade_request(line=line, changed=changed))
    assert (caught.value.status, caught.value.cause) == (status, cause)


@pytest.mark.parametrize("changed", [pytest.param(row[1], id=row[0]) for row in TAKEN])
def test_taken(changed: Changes) -> None:
    request = upgrade_request(changed=changed)
    upgrade = check_upgrade(request)
    assert tuple(ask_wsproto(request).subprotocols) == upgrade.subprotocols


def test_wsproto_alone_would_take_some_that_are_refused() -> None:
    """The rules around wsproto are needed: without them these would go through."""
    lenient = set()
    for what, line, changed, _, _ in REFUSED:
        with suppress(ProtocolError, ValueError):
            request = upgrade_request(line=line, changed=changed)
            if request.method == b"GET":
                ask_wsproto(request)
                lenient.add(what)
    assert {"4.1 5 two keys", "4.1 5 no base64", "4.2.1 a body", "4.1 6 twice"} <= lenient
