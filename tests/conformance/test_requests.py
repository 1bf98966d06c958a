"""RFC 9112 and 9110 over real sockets: what the bot sees is what a strict reader sees.

The cases are data; each is sent with a further request behind it, so that every one shows
where the daemon takes the end of the message to be.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.cases.groups import CASES
from tests.helpers.conformance import Case, Seen
from tests.helpers.conformance_run import Stand, check_seen, converse, sent_bytes, standing
from tests.helpers.strict_http import Message, read_answers

NEXT = Seen(b"GET", b"/next")
# Causes that are known only when a part of the body may have gone to the bot.
IN_THE_BODY = (None, "bad_body")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("relay")) as stand:
        yield stand


def test_the_cases_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) >= 200
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_request(stand: Stand, case: Case) -> None:
    stand.origin.take()
    data = converse(stand.daemon.port, sent_bytes(case, stand.base), ends=case.ends)
    sees_exactly(stand, case)
    is_answered(stand, case, data)


def sees_exactly(stand: Stand, case: Case) -> None:
    """The bot has seen these requests, all of each, and no byte that belongs to none."""
    record, outcome = stand.origin.take(), case.outcome
    assert record.wrong == []
    wanted = [*outcome.seen, *([NEXT] if outcome.goes_on else [])]
    assert len(record.requests) == len(wanted), record.requests
    for message, seen in zip(record.requests, wanted, strict=True):
        check_seen(message, seen, stand.session)
    if (outcome.refused[1] if outcome.refused else None) not in IN_THE_BODY or outcome.goes_on:
        assert record.partial == []
    assert len(record.partial) <= 1


def is_answered(stand: Stand, case: Case, data: bytes) -> None:
    """One answer for each request that was taken or refused, and the end if there is one."""
    outcome = case.outcome
    methods = [seen.method for seen in outcome.seen] + [b"GET"] * 2
    answers, rest = read_answers(data, methods, closed=True)
    assert rest == b""
    finals = [answer for answer in answers if answer.status >= 200]
    wanted = [200] * (len(outcome.seen) + outcome.goes_on)
    assert sorted(answer.status for answer in finals) == sorted(
        [*wanted, *([outcome.refused[0]] if outcome.refused else [])]
    )
    if finals:
        assert finals[-1].value(b"connection") == b"close"
    if outcome.refused:
        (refusal,) = [answer for answer in finals if answer.status != 200]
        is_refused(stand, refusal, outcome.refused[1])


def is_refused(stand: Stand, refusal: Message, cause: str) -> None:
    assert refusal.value(b"content-type") == b"application/json"
    assert stand.line(refusal.value(b"x-request-id"))["cause"] == cause
