"""What `relay top` draws of a status."""

from __future__ import annotations

from typing import Any

import pytest

from relay.cli_views import picture
from relay.errors import RelayError


def call(name: str, seconds: float, messages: int, quiet: float) -> dict[str, Any]:
    client = {"messages": messages, "quiet": quiet, "largestGap": 0.1, "heldTime": 0.25}
    bot = {"messages": 0, "quiet": seconds, "largestGap": 0.0, "heldTime": 0.0}
    return {"sessionId": name, "agent": "a", "seconds": seconds, "client": client, "bot": bot}


def status(*calls: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {
        "publicUrl": "http://x", "startedAt": 100.0, "now": 165.0, "reasons": [], "queue": [],
        "pumps": [{"longestTurn": 0.0012}], "callsTotal": len(calls), "calls": list(calls), **given,
    }  # fmt: skip


def rows(lines: list[str]) -> list[list[str]]:
    at = next(number for number, line in enumerate(lines) if line.startswith("SESSION"))
    return [line.split() for line in lines[at + 1 :]]


def test_the_quietest_call_is_first_and_marked() -> None:
    lines = picture(status(call("one", 10, 500, 0.02), call("two", 20, 900, 2.5)), {}, None)
    assert lines[0] == "http://x  up 1m05s  takes new calls"
    assert lines[1] == "2 calls, 0 in the queue, 1 pump, longest turn 1.2 ms"
    assert rows(lines) == [
        ["two", "a", "20s", "45/s", "!2.5s", "0.100s", "0/s", "20.0s", "0.000s", "0.250s"],
        ["one", "a", "10s", "50/s", "0.0s", "0.100s", "0/s", "10.0s", "0.000s", "0.250s"],
    ]


def test_rates_are_those_since_the_picture_before() -> None:
    before = status(call("one", 10, 500, 0.0))
    lines = picture(status(call("one", 12, 700, 0.0)), before, None)
    assert rows(lines)[0][3] == "100/s"


def test_what_does_not_fit_is_counted() -> None:
    calls = [call(str(number), 1, 1, 0.0) for number in range(20)]
    lines = picture(status(*calls, callsTotal=5000), {}, 10)
    assert len(lines) <= 10
    assert lines[-1] == "4996 calls more"


def test_why_no_calls_are_taken() -> None:
    assert picture(status(reasons=["draining", "no pump"]), {}, None)[0].endswith(
        "draining, no pump"
    )


def test_nothing_a_daemon_answers_moves_the_cursor() -> None:
    lines = picture(status(call("\x1b[2Jx", 1, 1, 0.0)), {}, None)
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("wrong", [{"calls": None}, {"calls": [1]}, {"pumps": "x"}])
def test_an_answer_of_something_else(wrong: dict[str, Any]) -> None:
    with pytest.raises(RelayError, match="has no list of"):
        picture(status(**wrong), {}, None)
