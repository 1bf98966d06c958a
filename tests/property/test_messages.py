"""Whatever the chunking, the same messages are read; wsproto's whole parser is the judge."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage

from relay.protocol.lifecycle import Kind
from relay.protocol.messages import MessageReader
from tests.helpers.frames import Stream, cut_up, judge, streams


def read(chunks: list[bytes], masked: bool) -> list[Event | Kind]:
    reader = MessageReader(masked=masked)
    return [event for chunk in chunks for event in reader.feed(chunk)]


def merged(events: list[Event | Kind]) -> list[Event | Kind]:
    """Pieces of one message put together as far as nothing came between."""
    found: list[Event | Kind] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, TextMessage) and isinstance(last, TextMessage):
            if not last.message_finished:
                finished = event.message_finished
                found[-1] = TextMessage(last.data + event.data, message_finished=finished)
                continue
        elif (
            isinstance(event, BytesMessage)
            and isinstance(last, BytesMessage)
            and not last.message_finished
        ):
            finished = event.message_finished
            found[-1] = BytesMessage(last.data + event.data, message_finished=finished)
            continue
        found.append(event)
    return found


@given(streams(), st.lists(st.integers(0, 5000), max_size=6))
def test_the_chunking_does_not_matter(stream: Stream, cuts: list[int]) -> None:
    if stream.deflate:
        stream = Stream(stream.masked, False, tuple(_plain(each) for each in stream.frames))
    whole = merged(read([stream.data], stream.masked))
    assert merged(read(cut_up(stream.data, cuts), stream.masked)) == whole
    verdict = judge(stream.data, masked=stream.masked, deflate=False)
    messages = [
        each
        for each in whole
        if isinstance(each, TextMessage | BytesMessage) and each.message_finished
    ]
    assert len(messages) == verdict.messages
    assert isinstance(whole[-1], CloseConnection) if verdict.closed else True


def _plain(one: bytes) -> bytes:
    """The frame without the bit that says that it is compressed."""
    return bytes((one[0] & ~0x40,)) + one[1:]
