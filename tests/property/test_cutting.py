"""Laws of cutting: how the bytes of a client or a bot come in pieces makes no other exchange."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.protocol.bot_http import BotEnd, BotHead, BotTalk
from tests.helpers.conformance import PROBE
from tests.helpers.conformance_run import written
from tests.helpers.frames import cut_up
from tests.helpers.front import Talk, talk
from tests.helpers.messages_made import messages, spoilt
from tests.helpers.strict_http import read_answers

CUTS = st.lists(st.integers(0, 800), max_size=12)


def talked(pieces: list[bytes]) -> Talk:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(talk, pieces, clock=clock)


def up_to_a_refusal(found: Talk) -> list[tuple[int, bytes]]:
    """The answers up to the first refusal: behind one that leaves a body unread the connection
    goes on only if all of that is there."""
    answers, rest = read_answers(found.finals, [], closed=True)
    assert rest == b""
    told = []
    for answer in answers:
        told.append((answer.status, answer.body))
        if answer.status != 200:
            break
    return told


@given(st.data(), CUTS)
def test_of_requests(data: st.DataObject, cuts: list[int]) -> None:
    first = b"POST /x HTTP/1.1\r\nHost: a.example"
    sent = b"".join(each.data for each in data.draw(st.lists(messages(first), max_size=3)))
    if data.draw(st.booleans()):
        sent = data.draw(spoilt(sent))
    sent = written(sent + PROBE, b"")
    assert up_to_a_refusal(talked(cut_up(sent, cuts))) == up_to_a_refusal(talked([sent]))


@dataclass
class Answer:
    """What became of a bot's bytes."""

    heads: list[BotHead] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    cause: str = ""


def answer_of(pieces: list[bytes]) -> Answer:
    """Read the pieces, and then the end."""
    bot_talk = BotTalk(b"GET")
    answer = Answer()
    try:
        for piece in [*pieces, b""]:
            bot_talk.receive(piece)
            while (event := bot_talk.next_event()) is not None:
                if isinstance(event, BotEnd):
                    answer.whole = True
                    return answer
                if isinstance(event, BotHead):
                    answer.heads.append(event)
                else:
                    answer.body += event
    except Refusal as refusal:
        answer.cause = refusal.cause
    return answer


@given(st.data(), CUTS)
def test_of_answers(data: st.DataObject, cuts: list[int]) -> None:
    said = data.draw(messages(b"HTTP/1.1 200 OK")).data
    if data.draw(st.booleans()):
        said = b"HTTP/1.1 103 Early Hints\r\n\r\n" + said
    if data.draw(st.booleans()):
        said = data.draw(spoilt(said))
    # An empty piece would be the end.
    pieces = [piece for piece in cut_up(said, cuts) if piece]
    assert answer_of(pieces) == answer_of([said])
