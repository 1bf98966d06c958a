"""HTTP that is malformed, too large, too slow or cut off: the answer, and the end of it."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.daemon import PUBLIC_KEY, Daemon
from tests.helpers.scripted_bot import scripted_bot
from tests.helpers.shared import MANY, shared_daemon
from tests.helpers.wire import (
    Wire,
    ask,
    exchange_line,
    refused,
    request,
    serves,
    stop,
)

SENT = "a-word-that-only-a-caller-knows"
START = "/v1/public/bot/start"
BEARER = f"Authorization: Bearer {PUBLIC_KEY}"
BODY = b'{"transport": "websocket"}'
CHUNKED = (BEARER, "Transfer-Encoding: chunked")
# One second is the least that the configuration takes.
LIMITS = "head_timeout = 1\nbody_timeout = 1\nmax_target = 2048\nmax_head = 8192"
LIMITS += "\nmax_start_request = 8192"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with (
        scripted_bot() as bot,
        shared_daemon(tmp_path_factory, [bot.url], MANY, LIMITS, secrets=(SENT,)) as daemon,
    ):
        yield daemon


def exchanges(daemon: Daemon) -> int:
    """How many there have been, the one that this makes included."""
    exchange_line(daemon, ask(daemon, request("GET", "/")).headers["x-request-id"])
    return sum(line["event"] == "exchange" for line in daemon.logs())


# --- heads ---


@pytest.mark.parametrize(
    ("data", "status", "cause"),
    [
        (b"GET / HTTP/1.1\nHost: relay\n\n", 400, "bare_line_end"),
        (b"GET / HTTP/1.1\r\nHost: relay\r\nX: a\r\n b\r\n\r\n", 400, "folded_header"),
        (b"GET / HTTP/1.1\r\nHost: relay\r\nX: a\x00b\r\n\r\n", 400, "control_byte"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 400, "control_byte"),
        (b"GET /\r\n\r\n", 400, "bad_request_line"),
        (b"GET  / HTTP/1.1\r\nHost: relay\r\n\r\n", 400, "bad_request_line"),
        (b"GET / HTTP/1.1\r\nHost: relay\r\nno field\r\n\r\n", 400, "bad_head"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_host"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_host"),
        (b"GET / HTTP/2.0\r\nHost: relay\r\n\r\n", 505, "http_version"),
        (b"CONNECT relay:80 HTTP/1.1\r\nHost: relay\r\n\r\n", 501, "method_not_implemented"),
        (request("OPTIONS", "*"), 400, "target_form"),
        (request("GET", "http://elsewhere/"), 400, "target_host"),
        (request("GET", "/\xe9"), 400, "bad_head"),
        (request("GET", "/#" + SENT), 400, "target_byte"),
        (request("GET", f"/?{SENT}%"), 400, "target_percent"),
        (request("POST", START, "Content-Length: 2", "Transfer-Encoding: chunked"),
         400, "two_framings"),
        (request("POST", START, "Content-Length: 2", "Content-Length: 3"), 400, "bad_length"),
        (request("POST", START, "Content-Length: +2"), 400, "bad_length"),
        (request("POST", START, "Transfer-Encoding: gzip"), 501, "transfer_coding"),
        (request("POST", START, "Expect: a-miracle"), 417, "expectation"),
        (request("GET", "/" + "x" * 3000), 414, "target_too_long"),
        (request("GET", "/", "X: " + "x" * 9000), 431, "head_too_long"),
        (request("GET", "/", *[f"X-{n}: x" for n in range(100)]), 431, "too_many_headers"),
    ],
)  # fmt: skip
def test_a_bad_head_is_refused(daemon: Daemon, data: bytes, status: int, cause: str) -> None:
    with Wire(daemon.port) as wire:
        wire.send(data)
        answer = wire.answer()
        error = refused(daemon, answer, status, cause)
        if not cause.startswith("target_") or status == 414:
            assert answer.headers["connection"] == "close"
            assert wire.rest() == b""
    assert error["phase"] == "parse"
    assert SENT not in answer.body.decode()


def test_what_just_fits_is_taken(daemon: Daemon) -> None:
    target = "/" + "x" * (2048 - len("GET / HTTP/1.1"))
    for data in (
        request("GET", target),
        request("GET", "/", "X: " + "x" * 8000),
        request("GET", "/", *[f"X-{n}: x" for n in range(99)]),
        b"\r\n" + request("GET", "/"),
    ):
        refused(daemon, ask(daemon, data), 404, "no_such_path")


def drip(wire: Wire, data: bytes) -> None:
    """Send a byte at a time, never two within a tenth of a second, until something comes back."""
    for at in range(len(data)):
        wire.send(data[at : at + 1])
        if select.select([wire.sock], [], [], 0.1)[0]:
            return
    raise AssertionError("all of it was taken")


def test_a_head_that_comes_too_slowly_is_408(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        drip(wire, request("GET", "/", "X: " + "x" * 200))
        answer = wire.answer()
        refused(daemon, answer, 408, "slow_head")
        assert answer.headers["connection"] == "close"
        line = exchange_line(daemon, answer.headers["x-request-id"])
        assert 950 < line["parse_ms"] < 5000


@pytest.mark.parametrize("data", [b"", b"GET / HT", request("GET", "/")[:-2]])
def test_a_head_that_never_ends_with_the_client_gone_is_no_exchange(
    daemon: Daemon, data: bytes
) -> None:
    before = exchanges(daemon)
    with Wire(daemon.port) as wire:
        wire.send(data)
        wire.sock.shutdown(1)
        assert wire.rest() == b""
    assert exchanges(daemon) == before + 1


# --- bodies ---


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def started(daemon: Daemon, wire: Wire) -> None:
    """The next answer is a session, and the connection goes on."""
    answer = wire.answer()
    assert answer.status == 200, answer
    stop(daemon, answer.json()["sessionId"])
    refused(daemon, wire.ask(request("GET", "/")), 404, "no_such_path")


@pytest.mark.parametrize(
    "body",
    [
        chunks(BODY),
        chunks(*(BODY[at : at + 1] for at in range(len(BODY)))),
        b"1a;name=value\r\n" + BODY + b"\r\n0\r\nX-Trailer: x\r\n\r\n",
    ],
)
def test_a_chunked_body_is_read(daemon: Daemon, body: bytes) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request("POST", START, *CHUNKED, body=body))
        started(daemon, wire)


@pytest.mark.parametrize(
    ("fields", "body", "status", "cause"),
    [
        (CHUNKED, b"xyz\r\n" + BODY, 400, "bad_body"),
        (CHUNKED, b"-1\r\n", 400, "bad_body"),
        (CHUNKED, b"2\r\n{}{}\r\n0\r\n\r\n", 400, "bad_body"),
        (CHUNKED, b"f" * 40 + b"\r\n", 400, "bad_body"),
        (CHUNKED, chunks(*[b"x" * 1000] * 9), 413, "request_too_large"),
        (CHUNKED, b"2000001\r\n" + b"x" * 9000, 413, "request_too_large"),
        (CHUNKED, (b"1;" + b"x" * 60 + b"\r\n \r\n") * 1500, 400, "bad_body"),
        (CHUNKED, b"1\r\n \r\n0\r\n" + b"X: y\r\n" * 2000, 400, "bad_body"),
        ((BEARER, "Content-Length: 8193"), b"", 413, "request_too_large"),
        ((BEARER, "Content-Length: 999999999999999999"), b"", 413, "request_too_large"),
    ],
)
def test_a_bad_body_is_refused_and_ends_the_connection(
    daemon: Daemon, fields: tuple[str, ...], body: bytes, status: int, cause: str
) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request("POST", START, *fields, body=body))
        answer = wire.answer()
        refused(daemon, answer, status, cause)
        assert answer.headers["connection"] == "close"
        assert wire.rest() == b""


@pytest.mark.parametrize(
    ("fields", "part"),
    [((BEARER, "Content-Length: 26"), BODY[:20]), (CHUNKED, b"1a\r\n" + BODY[:9]), (CHUNKED, b"1")],
)
def test_a_body_that_is_cut_off_is_400_and_a_slow_one_408(
    daemon: Daemon, fields: tuple[str, ...], part: bytes
) -> None:
    with Wire(daemon.port) as wire, Wire(daemon.port) as slow:
        for each in (wire, slow):
            each.send(request("POST", START, *fields, body=part))
        wire.sock.shutdown(1)
        refused(daemon, wire.answer(), 400, "bad_body")
        refused(daemon, slow.answer(), 408, "slow_body")
        assert slow.rest() == b""


def test_a_body_a_byte_at_a_time_has_one_limit_for_all_of_it(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request("POST", START, BEARER, "Content-Length: 26"))
        drip(wire, BODY)
        refused(daemon, wire.answer(), 408, "slow_body")


# --- Expect: 100-continue ---

EXPECT = "Expect: 100-continue"


def test_who_expects_100_gets_it_and_then_the_answer(daemon: Daemon) -> None:
    for fields, body in (((BEARER, "Content-Length: 26"), BODY), (CHUNKED, chunks(BODY))):
        with Wire(daemon.port) as wire:
            wire.send(request("POST", START, EXPECT, *fields))
            assert wire.answer().status == 100
            wire.send(body)
            started(daemon, wire)


def test_who_sends_the_body_at_once_needs_no_100(daemon: Daemon) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request("POST", START, EXPECT, BEARER, "Content-Length: 26", body=BODY))
        started(daemon, wire)


@pytest.mark.parametrize(
    ("fields", "status", "cause"),
    [
        (("Content-Length: 26",), 401, "bad_api_key"),
        ((BEARER, "Content-Length: 9000"), 413, "request_too_large"),
    ],
)
def test_a_refusal_comes_instead_of_the_100(
    daemon: Daemon, fields: tuple[str, ...], status: int, cause: str
) -> None:
    with Wire(daemon.port) as wire:
        wire.send(request("POST", START, EXPECT, *fields))
        answer = wire.answer()
        refused(daemon, answer, status, cause)
        assert answer.headers["connection"] == "close"  # the body may still come, or not
        assert wire.rest() == b""


# --- the request's name ---


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a", True),
        ("Az09._:@/+=-", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ('quo"te', False),
        ("caf\xe9", False),
        ("<script>", False),
    ],
)
def test_x_request_id_is_kept_when_it_is_short_and_safe(
    daemon: Daemon, sent: str, kept: bool
) -> None:
    checks: tuple[Callable[[], bytes], ...] = (
        lambda: request("GET", "/", f"X-Request-Id: {sent}"),
        lambda: request("GET", "/%zz", f"X-Request-Id: {sent}"),
    )
    for data in checks:
        name = ask(daemon, data()).headers["x-request-id"]
        assert (name == sent) is kept
        assert len(name) == (len(sent) if kept else 36)


def test_after_all_of_this_a_call_goes_through(daemon: Daemon) -> None:
    serves(daemon)
