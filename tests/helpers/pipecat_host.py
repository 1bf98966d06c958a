"""The Pipecat host as a process, and the few protobuf messages that its example bot speaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.daemon import Process, wait_until

ROOT = Path(__file__).parents[2]
CLIENTS = Path(os.environ.get("CLIENTS_VENV", ROOT / ".venv-clients")).absolute()
PYTHON = CLIENTS / "bin" / "python"
HOST = ROOT / "examples" / "pipecat" / "host.py"
BOT = HOST.with_name("bot.py")

# Field numbers of pipecat's Frame, of its AudioRawFrame and of its MessageFrame.
AUDIO, MESSAGE = 2, 4
SAMPLES, RATE, CHANNELS = 3, 4, 5
DATA = 1


@dataclass
class Host:
    """A running host."""

    process: Process
    url: str


@contextmanager
def running_host(folder: Path, bot: Path = BOT, name: str = "bot", **env: str) -> Iterator[Host]:
    """A host that serves a bot's file on a free port; its output is in files of `folder`."""
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        popen = subprocess.Popen(
            [PYTHON, HOST, bot, "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | env,
            start_new_session=True,
        )
    process = Process(popen, out, err)

    def url() -> str | None:
        if popen.poll() is not None:
            raise AssertionError(f"the host ended: {process.errors()}")
        found = [line for line in process.output().splitlines() if line.startswith("listening on")]
        return found[0].split()[-1] if found else None

    try:
        yield Host(process, wait_until(url, "the host listens"))
    finally:
        process.end(signal.SIGKILL)


def launched(name: str, places: int = 1, auth: str = "token") -> str:
    """The table of an agent whose bots the daemon starts: a host with the example bot each."""
    command = json.dumps([str(PYTHON), str(HOST), str(BOT), "--port", "{port}"])
    return f"""
[agents.{name}]
organization = "acme"
websocket_auth = "{auth}"
command = {command}
# The tests' own interpreters turn warnings into errors; Pipecat's must not.
env = {{ SHUTDOWN_TIMEOUT = "0", PYTHONWARNINGS = "default" }}
max_agents = {places}
settle_time = 0.05
"""


# --- protobuf by hand: length-delimited fields and varints of one message ---


def varint(value: int) -> bytes:
    """An unsigned integer, seven bits to a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    """One field with its tag."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data: bytes) -> dict[int, int | bytes]:
    """The fields of a message, by their numbers."""
    found: dict[int, int | bytes] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        value = number()
        if tag & 7 == 0:
            found[tag >> 3] = value
        else:
            assert tag & 7 == 2, f"wire type {tag & 7}"
            found[tag >> 3] = data[at : at + value]
            at += value
    return found


def audio_frame(samples: bytes, rate: int) -> bytes:
    """What a client sends: 16-bit mono PCM."""
    return field(AUDIO, field(SAMPLES, samples) + field(RATE, rate) + field(CHANNELS, 1))


def audio_of(frame: str | bytes) -> tuple[bytes, int, int]:
    """Samples, rate and channels of an audio frame."""
    assert isinstance(frame, bytes), frame
    audio = fields(frame)[AUDIO]
    assert isinstance(audio, bytes)
    found = fields(audio)
    samples, rate, channels = found[SAMPLES], found[RATE], found[CHANNELS]
    assert isinstance(samples, bytes)
    assert isinstance(rate, int)
    assert isinstance(channels, int)
    return samples, rate, channels


def message_of(frame: str | bytes) -> bytes:
    """The JSON of a message frame."""
    assert isinstance(frame, bytes), frame
    message = fields(frame)[MESSAGE]
    assert isinstance(message, bytes)
    data = fields(message)[DATA]
    assert isinstance(data, bytes)
    return data
