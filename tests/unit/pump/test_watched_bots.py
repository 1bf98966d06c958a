"""A watched bot that closes without a Close: the control process says whether it has failed."""

from __future__ import annotations

import pytest

from relay.protocol.lifecycle import Event
from relay.pump.channel import BotEnded
from relay.pump.pump import SWEEP_CLOSING
from relay.pump.tunnel import ANSWER_TIMEOUT
from tests.helpers.pump import Call, Rig, frame

QUESTION = BotEnded("call", "session of call")


def left(r: Rig) -> Call:
    """A call whose bot has just closed its connection; the question has been taken."""
    call = r.call(watched=True)
    r.talk(call)
    call.bot.sock.close()
    r.settle()
    assert r.pump.take_questions() == [QUESTION]
    return call


@pytest.mark.parametrize(
    ("event", "cause", "code", "reason"),
    [
        (Event.UPSTREAM_LOST, "bot_lost", 1011, "bot lost"),
        (Event.UPSTREAM_EOF, "bot_ended", 1000, ""),
    ],
)
def test_the_answer_decides(r: Rig, event: Event, cause: str, code: int, reason: str) -> None:
    call = left(r)
    assert not call.client.closes()
    r.pump.end("call", event)
    r.settle()
    assert call.client.closes() == [(code, reason)]
    call.client.close_frame(code)
    r.ended(cause, code, reason)
    r.pump.end("call", event)  # a second one finds nothing
    assert not r.pump.take_questions()


def test_without_an_answer_the_bot_has_finished(r: Rig) -> None:
    call = left(r)
    r.advance(ANSWER_TIMEOUT / 2)
    assert not call.client.closes()
    r.advance(ANSWER_TIMEOUT / 2 + SWEEP_CLOSING)
    assert call.client.closes() == [(1000, "")]
    call.client.close_frame(1000)
    r.ended("bot_ended", 1000)


def test_what_the_client_sends_meanwhile_changes_nothing(r: Rig) -> None:
    call = left(r)
    for _ in range(5):  # the first is answered by a reset, the next ones fail
        call.client.say(b"is anybody there?")
        r.settle()
    r.pump.end("call", Event.UPSTREAM_LOST)
    r.settle()
    assert call.client.closes() == [(1011, "bot lost")]


def test_what_the_bot_said_last_arrives_before_the_close(r: Rig) -> None:
    call = r.call(watched=True)
    call.bot.say(b"a last word")
    call.bot.shut()
    r.settle()
    assert call.client.payloads() == [b"a last word"]
    r.pump.end("call", Event.UPSTREAM_LOST)
    r.settle()
    assert call.client.closes() == [(1011, "bot lost")]


@pytest.mark.parametrize(
    ("event", "cause"), [(Event.STOP, "bot_ended"), (Event.DRAIN, "bot_ended")]
)
def test_another_end_comes_first(r: Rig, event: Event, cause: str) -> None:
    call = left(r)
    r.pump.end("call", event)
    r.settle()
    call.client.close_frame(1000)
    r.ended(cause, 1000)
    r.pump.end("call", Event.UPSTREAM_LOST)


def test_a_client_that_closes_meanwhile_is_answered(r: Rig) -> None:
    call = left(r)
    call.client.close_frame(1000, "bye")
    r.settle()
    assert [code for code, _ in call.client.closes()] == [1000]
    assert r.report().cause == "bot_ended"


def test_no_question_where_the_end_is_clear(r: Rig) -> None:
    for name, how in (("closed", "close"), ("half", "half"), ("reset", "reset")):
        call = r.call(name, watched=True)
        if how == "close":
            call.bot.close_frame(1000)
            call.bot.shut()
        elif how == "half":
            call.bot.send(frame(b"h" * 100)[:50])
            call.bot.shut()
        else:
            call.bot.reset()
        r.settle()
    unwatched = r.call("unwatched")
    unwatched.bot.shut()
    r.settle()
    assert unwatched.client.closes() == [(1000, "")]
    assert not r.pump.take_questions()


def test_an_answer_that_nobody_waits_for_is_ignored(r: Rig) -> None:
    call = r.call(watched=True)
    r.talk(call)
    for event in (Event.UPSTREAM_EOF, Event.UPSTREAM_LOST):
        r.pump.end("call", event)
    r.settle()
    call.bot.say(b"still here")
    r.settle()
    assert call.client.payloads()[-1] == b"still here"
