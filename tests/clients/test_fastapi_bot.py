"""A FastAPI bot on uvicorn behind a real daemon, and its users: `make test-clients`.

`RELAY_SSE_SECONDS` says for how long server-sent events are listened to; 3 without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from tests.helpers.daemon import PATIENCE, PUBLIC_KEY, Daemon, Process, running_daemon, wait_until
from tests.helpers.pipecat_host import PYTHON
from tests.helpers.wire import call, keeps_secrets

BOT = Path(__file__).with_name("fastapi_bot.py")
PIECE = 64 * 1024
LARGE = 50 * 1024 * 1024
SSE_SECONDS = float(os.environ.get("RELAY_SSE_SECONDS", "3"))
SSE_PAUSE = 0.1
CLIENTS = 50
ROUNDS = 6


@contextlib.contextmanager
def running_bot(folder: Path) -> Iterator[str]:
    """The bot's URL."""
    out, err = folder / "bot.out", folder / "bot.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        popen = subprocess.Popen(
            [PYTHON, BOT], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
    process = Process(popen, out, err)
    try:
        wait_until(lambda: "listening on" in process.output(), f"the bot: {process.errors()}")
        yield process.output().split("listening on ")[1].strip()
        assert process.errors() == ""
    finally:
        process.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("relay")
    with (
        running_bot(tmp_path_factory.mktemp("bot")) as url,
        running_daemon(folder, [url], "sessions_per_instance = 100") as daemon,
    ):
        yield daemon
        keeps_secrets(daemon)


class User:
    """A caller of one session, with a connection of its own that it keeps."""

    def __init__(self, daemon: Daemon, session: str) -> None:
        self.session = session
        self._base = f"/v1/public/bot/sessions/{session}"
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def open(
        self, method: str, path: str, body: Any = None, **fields: str
    ) -> http.client.HTTPResponse:
        """The answer, of which only the head has been read."""
        headers = {"Authorization": f"Bearer {PUBLIC_KEY}"}
        headers |= {name.replace("_", "-"): value for name, value in fields.items()}
        self.connection.request(method, self._base + path, body, headers)
        return self.connection.getresponse()

    def ask(self, method: str, path: str, value: Any = None) -> Any:
        """The JSON that answers JSON."""
        if value is None:
            answer = self.open(method, path)
        else:
            answer = self.open(method, path, json.dumps(value), Content_Type="application/json")
        data = answer.read()
        assert answer.status == 200, (answer.status, data)
        assert answer.getheader("X-Daily-Session-Id") == self.session
        return json.loads(data)


@dataclass
class Live:
    """A call and its session."""

    ws: ClientConnection
    session: str

    def echoes(self, messages: Sequence[str | bytes]) -> bool:
        for message in messages:
            self.ws.send(message)
        return [self.ws.recv(PATIENCE) for _ in messages] == [*messages]


@pytest.fixture
def live(daemon: Daemon) -> Iterator[Live]:
    started = daemon.start_when_free()
    with call(daemon, token=started["token"]) as ws:
        live = Live(ws, started["sessionId"])
        assert live.echoes(["hello"])
        yield live
    daemon.wait_ended(live.session)


@pytest.fixture
def user(daemon: Daemon, live: Live) -> Iterator[User]:
    with User(daemon, live.session) as user:
        yield user


def made(seed: int, size: int) -> list[bytes]:
    """As in the bot."""
    source = random.Random(seed)
    return [source.randbytes(min(PIECE, size - at)) for at in range(0, size, PIECE)]


def digest_of(pieces: list[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def test_status_context_and_speak(live: Live, user: User) -> None:
    assert user.ask("GET", "/status") == {"session": user.session, "call": True, "context": {}}
    values = {"user_name": "Bob", "preferences": {"language": "Français"}}
    assert user.ask("POST", "/context", values) == values
    assert user.ask("GET", "/status")["context"] == values
    assert user.ask("POST", "/speak", {"text": "Hello, ß!"}) == {"said": "Hello, ß!"}
    assert live.ws.recv(PATIENCE) == "Hello, ß!"


def test_what_fastapi_refuses_is_passed_on(user: User) -> None:
    answer = user.open("POST", "/speak", b"{}", Content_Type="application/json")
    assert (answer.status, json.loads(answer.read())["detail"][0]["loc"]) == (422, ["body", "text"])
    answer = user.open("GET", "/nothing")
    assert (answer.status, json.loads(answer.read())) == (404, {"detail": "Not Found"})
    answer = user.open("DELETE", "/status")
    assert (answer.status, answer.getheader("Allow")) == (405, "GET")
    answer.read()


def test_a_file_of_50_mib_is_uploaded_as_a_form(user: User) -> None:
    pieces = made(1, LARGE)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = [head, *pieces, b"\r\n--b--\r\n"]
    length = str(sum(map(len, body)))
    fields = {"Content_Type": "multipart/form-data; boundary=b", "Content_Length": length}
    answer = user.open("POST", "/upload", iter(body), **fields)
    assert json.loads(answer.read()) == {
        "name": "a.wav",
        "size": LARGE,
        "sha256": digest_of(pieces),
    }


@pytest.mark.parametrize("framed", [True, False])
def test_a_body_of_50_mib_is_uploaded(user: User, framed: bool) -> None:
    pieces = made(2, LARGE)
    fields = {"Content_Length": str(LARGE)} if framed else {}
    answer = user.open("PUT", "/upload", iter(pieces), **fields)
    assert json.loads(answer.read()) == {"size": LARGE, "sha256": digest_of(pieces)}


@pytest.mark.parametrize("framed", [True, False])
def test_50_mib_are_downloaded(user: User, framed: bool) -> None:
    answer = user.open("GET", f"/download?seed=3&size={LARGE}&framed={framed}")
    assert (answer.getheader("Content-Length") == str(LARGE)) is framed
    digest, size = hashlib.sha256(), 0
    while piece := answer.read(PIECE):
        digest.update(piece)
        size += len(piece)
    assert (size, digest.hexdigest()) == (LARGE, digest_of(made(3, LARGE)))


def test_events_come_as_they_are_sent(daemon: Daemon, user: User) -> None:
    """The bot sends each event when the one before it was heard: nothing is held back."""
    answer = user.open("GET", "/heard-events?count=20")
    assert answer.getheader("Content-Type", "").startswith("text/event-stream")
    for number in range(20):
        assert answer.readline() == b"data: event %d\n" % number
        assert answer.readline() == b"\n"
        with User(daemon, user.session) as other:
            heard = other.open("POST", "/heard")
            assert (heard.status, heard.read()) == (204, b"")
    assert answer.read() == b""


def test_events_for_a_while(live: Live, user: User) -> None:
    count = int(SSE_SECONDS / SSE_PAUSE)
    answer = user.open("GET", f"/events?count={count}&pause={SSE_PAUSE}")
    for number in range(count):
        lines = [answer.readline() for _ in range(3)]
        assert lines == [b"id: %d\n" % number, b"data: event %d\n" % number, b"\n"]
        if number % 10 == 0:  # the call goes on beside it
            assert live.echoes([str(number)])
    assert answer.read() == b""


def test_offers_of_a_session_over_http(daemon: Daemon) -> None:
    headers = {"Authorization": f"Bearer {PUBLIC_KEY}"}
    body = {"transport": "webrtc"}
    started = daemon.request("POST", "/v1/public/bot/start", body, **headers).json()
    with User(daemon, started["sessionId"]) as user:
        answer = user.ask("POST", "/api/offer", {"type": "offer", "sdp": "v=0 caf\u00e9"})
        assert answer == {"type": "answer", "sdp": "\u00e9fac 0=v", "pc_id": "pc-1"}
        patch = {"pc_id": answer["pc_id"], "candidates": [{"candidate": "a"}, {"candidate": "b"}]}
        assert user.ask("PATCH", "/api/offer", patch) == {
            "status": "success",
            "candidates": 2,
            "pc_id": "pc-1",
        }
        assert user.ask("GET", "/status")["call"] is False
        assert user.ask("POST", "/over") == {}
    assert daemon.wait_ended(started["sessionId"])["cause"] == "bot_completed"


def test_offers_are_not_for_a_call(user: User) -> None:
    answer = user.open("POST", "/api/offer", b"{}", Content_Type="application/json")
    assert answer.status == 409
    answer.read()


def work(daemon: Daemon, session: str, number: int) -> int:
    """What one of many clients does; how many requests it made."""
    with User(daemon, session) as user:
        for turn in range(ROUNDS):
            seed, size = number * 100 + turn, 1000 * (number + turn)
            pieces = made(seed, size)
            assert user.ask("GET", "/status")["session"] == session
            key = f"{number}-{turn}"
            assert user.ask("POST", "/context", {key: turn})[key] == turn
            uploaded = json.loads(user.open("PUT", "/upload", iter(pieces)).read())
            assert uploaded == {"size": size, "sha256": digest_of(pieces)}
            downloaded = user.open("GET", f"/download?seed={seed}&size={size}").read()
            assert downloaded == b"".join(pieces)
    return 4 * ROUNDS


def test_fifty_clients_beside_a_call(daemon: Daemon, live: Live, user: User) -> None:
    """Every message of the call comes back, in order, while fifty clients ask its bot."""
    done = threading.Event()
    source = random.Random(4)

    def talk() -> int:
        count = 0
        while not done.wait(0.02):
            assert live.echoes([f"{count} {source.random()}", source.randbytes(640)])
            count += 2
        return count

    with ThreadPoolExecutor(CLIENTS + 1) as threads:
        talking = threads.submit(talk)
        clients = [threads.submit(work, daemon, user.session, n) for n in range(CLIENTS)]
        try:
            requests = sum(client.result() for client in clients)
        finally:
            done.set()
        assert talking.result() > 0
    assert requests == CLIENTS * ROUNDS * 4
