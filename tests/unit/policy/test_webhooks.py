"""Webhooks: the signature of the standard, what is told, when it is told again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from relay.policy.records import session_record
from relay.policy.sessions import Session, SessionState
from relay.policy.webhooks import (
    FIRST_WAIT,
    LONGEST_WAIT,
    MAX_ATTEMPTS,
    Event,
    Outcome,
    asked_wait,
    fields,
    message,
    outcome_of,
    signature,
    wait,
)

SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ENDED = Session(
    id="5e9e5a5e-0000-4000-8000-000000000000", agent="bot", organization="acme",
    state=SessionState.ENDED, created=1000.0, admitted=1001.0, started=1002.5, ended=1010.0,
    cause="client_closed", took=1.5, cold=False,
)  # fmt: skip


def test_the_signature_is_that_of_the_standard() -> None:
    # From the test vectors of the reference libraries.
    found = signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', SECRET)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_fields_of_an_attempt() -> None:
    event = Event("session.ended", ENDED)
    body = message(event)
    found = fields(event, body, SECRET, 1234.9)
    assert found["webhook-id"] == f"msg_{ENDED.id}_ended"
    assert found["webhook-timestamp"] == "1234"
    signed = f"msg_{ENDED.id}_ended.1234.".encode() + body
    by_hand = hmac.new(SECRET, signed, hashlib.sha256).digest()
    assert found["webhook-signature"] == f"v1,{base64.b64encode(by_hand).decode()}"
    assert found["content-type"] == "application/json"


def test_an_end_is_told_with_the_record_of_the_private_api() -> None:
    told = json.loads(message(Event("session.ended", ENDED)))
    assert told == {
        "type": "session.ended",
        "timestamp": "1970-01-01T00:16:50.000Z",
        "data": session_record(ENDED),
    }


def test_a_start_is_told_as_it_was_however_late() -> None:
    told = json.loads(message(Event("session.started", ENDED, attempts=3)))
    assert told["timestamp"] == told["data"]["updatedAt"] == "1970-01-01T00:16:42.500Z"
    assert told["data"]["endState"] == "active"
    assert told["data"]["endedAt"] is None
    assert [each["eventCode"] for each in told["data"]["events"]][-1] == "REQUEST_ARRIVED_AT_BOT"


@pytest.mark.parametrize(
    ("status", "attempts", "outcome"),
    [
        (200, 1, Outcome.DELIVERED),
        (204, MAX_ATTEMPTS, Outcome.DELIVERED),
        (301, 1, Outcome.FAILED),
        (410, 1, Outcome.GONE),
        (404, 1, Outcome.FAILED),
        (500, MAX_ATTEMPTS - 1, Outcome.FAILED),
        (500, MAX_ATTEMPTS, Outcome.GIVEN_UP),
        (None, 1, Outcome.FAILED),
        (None, MAX_ATTEMPTS, Outcome.GIVEN_UP),
    ],
)
def test_what_an_answer_means(status: int | None, attempts: int, outcome: Outcome) -> None:
    assert outcome_of(status, attempts) is outcome


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("999999999", LONGEST_WAIT),
        ("9" * 30, 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("Fri, 13 Feb 2009 23:31:40 GMT", 10),
        ("Fri, 13 Feb 2009 23:31:20 GMT", 0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", LONGEST_WAIT),
        ("Fri, 13 Feb 2009 23:31:40 -0000", 0),
        ("Fri, 99 Feb 2009 23:31:40 GMT", 0),
    ],
)
def test_the_time_that_a_receiver_asks_for(text: str | None, seconds: float) -> None:
    assert asked_wait(text, 1234567890.0) == seconds


def test_waits_grow_up_to_a_bound() -> None:
    waits = [wait(attempts, 0.0) for attempts in range(1, MAX_ATTEMPTS)]
    assert waits[0] == FIRST_WAIT
    assert waits == sorted(waits)
    assert max(waits) == LONGEST_WAIT
    # Within a day, as `MAX_AGE` wants.
    assert 6 * 3600 < sum(waits) < 12 * 3600
    for attempts, longest in enumerate(waits, 1):
        assert longest * 0.75 == wait(attempts, 1.0) < wait(attempts, 0.5) < longest
