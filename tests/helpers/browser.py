"""Chromium with the example page, driven through `tests/clients/browser.mjs`."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.daemon import PATIENCE, PUBLIC_KEY, Daemon

ROOT = Path(__file__).parents[2]
NPM = Path(os.environ.get("CLIENTS_NPM", ROOT / ".clients-npm")).absolute()
SCRIPT = ROOT / "tests" / "clients" / "browser.mjs"

RATE = 16000  # of the microphone, in samples of two bytes
SECOND = 2 * RATE  # in bytes
TONE = 440  # Hz


class Browser:
    """`browser.mjs`, asked by lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.count = 0
        self.origin = self.line()["origin"]

    def line(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"browser.mjs ended: {self.process.wait(PATIENCE)}"
        return json.loads(line)

    def ask(self, *requests: dict[str, Any]) -> list[Any]:
        """What these requests, all sent at once, are answered, in their order."""
        assert self.process.stdin
        wanted = range(self.count, self.count + len(requests))
        self.count += len(requests)
        for number, request in zip(wanted, requests, strict=True):
            self.process.stdin.write(json.dumps({"id": number, **request}) + "\n")
        self.process.stdin.flush()
        answers = [self.line() for _ in requests]
        assert not [each["error"] for each in answers if "error" in each]
        values = {each["id"]: each["value"] for each in answers}
        return [values[number] for number in wanted]


class Caller:
    """One page of a browser."""

    def __init__(self, browser: Browser, daemon: Daemon) -> None:
        self.browser = browser
        self.daemon = daemon
        (self.number,) = browser.ask({"verb": "open"})

    def wish(self, agent: str, key: str, **more: object) -> dict[str, Any]:
        """What a start needs."""
        return {"url": self.daemon.url, "agent": agent, "key": key, **more}

    def to(self, verb: str, **words: object) -> dict[str, Any]:
        """A request, for `Browser.ask`."""
        return {"verb": verb, "caller": self.number, **words}

    def ask(self, verb: str, **words: object) -> Any:
        (answer,) = self.browser.ask(self.to(verb, **words))
        return answer

    def connect(self, agent: str, key: str = PUBLIC_KEY, **more: object) -> Any:
        return self.ask("connect", **self.wish(agent, key, rate=RATE, **more))

    def inside(self, name: str, agent: str, **more: object) -> Any:
        """What a function of `inside.mjs` returns."""
        return self.ask("inside", name=name, argument=self.wish(agent, PUBLIC_KEY, **more))


def tone(path: Path) -> Path:
    """Two seconds of a tone that comes and goes, so that no filter takes it for noise."""
    rate, seconds = 48000, 2
    samples = (
        math.sin(2 * math.pi * TONE * n / rate) * 16000 * (n // (rate // 5) % 2)
        for n in range(rate * seconds)
    )
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, rate * seconds, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", round(each)) for each in samples))
    return path


@contextmanager
def running_browser(folder: Path, chromium: str) -> Iterator[Browser]:
    """Chromium whose microphone hears the tone; ended when the block ends."""
    with (folder / "browser.err").open("w+") as errors:
        process = subprocess.Popen(
            ["node", str(SCRIPT), chromium, str(tone(folder / "tone.wav"))],
            env={**os.environ, "CLIENTS_NPM": str(NPM), "NO_COLOR": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            yield Browser(process)
        finally:
            end(process)
            errors.seek(0)
            print(errors.read())  # shown when a test has failed


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # on this, playwright ends Chromium
        process.wait(PATIENCE)
    finally:
        process.stdout.close()
