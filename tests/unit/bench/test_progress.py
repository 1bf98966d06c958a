"""The forecast follows the pace so far; without a terminal there are lines, not a bar."""

from __future__ import annotations

import io

import pytest

from bench.report.progress import Progress, left


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("done", "elapsed", "text"),
    [
        (0, 0, "about 60 s left"),
        (30, 30, "about 30 s left"),
        (30, 60, "about 60 s left"),
        (60, 300, "about 1 s left"),
        (1, 10, "about 10 min left"),
        (1, 130, "about 2 h 8 min left"),
    ],
)
def test_the_time_left_follows_the_pace(done: float, elapsed: float, text: str) -> None:
    assert left(60, done, elapsed) == text


def shown(stream: io.StringIO) -> str:
    progress = Progress(10, stream)
    progress.begin("calls, scenario 1 of 1")
    progress.step("calls 1/2 direct")
    progress.done(5)
    progress.step("calls 2/2 relay")
    progress.done(5)
    progress.clear()
    return stream.getvalue()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    text = shown(Terminal())
    assert "\n" not in text
    assert " 50% calls 2/2 relay" in text
    assert text.endswith("\r\x1b[K")


def test_a_file_gets_a_line_per_scenario() -> None:
    assert shown(io.StringIO()) == "bench: calls, scenario 1 of 1, about 10 s left\n"
