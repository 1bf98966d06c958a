"""A bot that misbehaves as its arguments say; of the standard library alone, so it starts quickly.

    python naughty_bot.py --port 7860 [what it does wrong]

Without more arguments it is a good bot: it echoes texts of at most 125 bytes on /ws, answers
`{}` to POST /bot at once, 200 to every GET, and says what it can do. GET /deaf closes the
listening socket. These texts are commands:

    !pid         answers the process id
    !exit N      ends the process with status N
    !kill        ends the process by SIGKILL
    !flood N     prints N bytes, then answers "flooded"
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
FOR_EVER = 3600.0
CAPABILITIES = b'{"version": 1, "capabilities": {"transport.websocket": {"available": true}}}'
LINE = b"x" * 99 + b"\n"


def flood(size: int) -> None:
    for _ in range(0, size, len(LINE) * 1000):
        sys.stdout.buffer.write(LINE * 1000)
    sys.stdout.flush()


class Bot:
    def __init__(self, options: argparse.Namespace) -> None:
        self.post: str = options.post
        self.listener = socket.create_server(("127.0.0.1", options.port), backlog=64)

    def serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:  # deaf from now on
                time.sleep(FOR_EVER)
            threading.Thread(target=self.converse, args=(sock,), daemon=True).start()

    def converse(self, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as file:
                line, fields = read_head(file)
                if fields.get(b"upgrade"):
                    accept(sock, fields[b"sec-websocket-key"])
                    self.talk(sock, file)
                elif line.startswith(b"POST /bot "):
                    self.run_session()
                    answer(sock, b"{}")
                else:
                    if line.startswith(b"GET /deaf "):
                        self.listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
                        self.listener.close()
                    answer(sock, CAPABILITIES if b" /pcc/capabilities " in line else b"{}")
        except OSError:
            pass  # the caller has left

    def run_session(self) -> None:
        if self.post == "hold":
            time.sleep(FOR_EVER)
        elif self.post == "die":
            os._exit(7)

    def talk(self, sock: socket.socket, file: BinaryIO) -> None:
        while head := file.read(2):
            mask = file.read(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(file.read(head[1] & 127)))
            if head[0] & 15 == 8:
                sock.sendall(bytes((0x88, len(data))) + data)
                return
            said = self.obey(data.decode())
            sock.sendall(bytes((0x81, len(said))) + said)

    def obey(self, text: str) -> bytes:
        word, _, rest = text.partition(" ")
        if word == "!pid":
            return str(os.getpid()).encode()
        if word == "!exit":
            os._exit(int(rest))
        if word == "!kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "!flood":
            flood(int(rest))
            return b"flooded"
        return text.encode()


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


def read_head(file: BinaryIO) -> tuple[bytes, dict[bytes, bytes]]:
    """The request line and the fields; a body is read too, and dropped."""
    line, fields = file.readline(), dict[bytes, bytes]()
    while (field := file.readline()) not in (b"\r\n", b""):
        name, _, value = field.partition(b":")
        fields[name.lower()] = value.strip()
    file.read(int(fields.get(b"content-length", b"0")))
    return line, fields


def answer(sock: socket.socket, body: bytes) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def accept(sock: socket.socket, key: bytes) -> None:
    accepted = base64.b64encode(hashlib.sha1(key + GUID).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    sock.sendall(head + b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n")


def leave_child() -> None:
    """A process in a session of its own, which no signal to the bot's group reaches."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(FOR_EVER)


def lose_port(first: Path, port: int) -> None:
    """Somebody else takes the port, once: the second bot finds the file and is left alone."""
    try:
        first.touch(exist_ok=False)
    except FileExistsError:
        return
    with socket.create_server(("127.0.0.1", port)):
        socket.create_server(("127.0.0.1", port))


def main() -> None:
    parser = argparse.ArgumentParser(description="A bot that misbehaves.")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT"))
    parser.add_argument("--exit", type=int, help="end at once with this status")
    parser.add_argument("--gate", type=Path, help="listen once this file exists")
    parser.add_argument("--flood", type=int, default=0, help="print so many bytes first")
    parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--child", action="store_true", help="start a child that leaves the group")
    parser.add_argument("--rival", type=Path, help="find the port taken, unless this file exists")
    parser.add_argument("--post", choices=("answer", "hold", "die"), default="answer")
    options = parser.parse_args()
    if options.exit is not None:
        sys.exit("this bot is broken" if options.exit == 1 else options.exit)
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.child:
        leave_child()
    flood(options.flood)
    if options.rival:
        lose_port(options.rival, options.port)
    if options.gate:
        wait_for(options.gate)
    Bot(options).serve()


if __name__ == "__main__":
    main()
