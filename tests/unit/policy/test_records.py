"""Records of the private API: from a stored session to what a caller reads."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy import records
from relay.policy.catalog import Agent
from relay.policy.sessions import END_STATES, Session, SessionState

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
START, ARRIVED, COMPLETED, TIMEOUT = (
    "SESSION_START_INITIATED",
    "REQUEST_ARRIVED_AT_BOT",
    "SESSION_COMPLETED",
    "SESSION_TIMEOUT",
)


def session(**fields: Any) -> Session:
    base: dict[str, Any] = {
        "id": ID,
        "agent": "bot",
        "organization": "acme",
        "state": SessionState.RESERVED,
        "created": 1000.0,
    }
    return Session(**base | fields)


def codes(record: dict[str, Any]) -> list[str]:
    return [event["eventCode"] for event in record["events"]]


def test_a_session_that_went_well() -> None:
    whole = session(
        state=SessionState.ENDED,
        created=1_700_000_000.0,
        admitted=1_700_000_001.25,
        started=1_700_000_003.0,
        took=1.75,
        cold=True,
        ended=1_700_000_010.5,
        cause="client_closed",
    )
    assert records.session_record(whole) == {
        "sessionId": ID,
        "serviceId": "bot.acme",
        "organizationId": "acme",
        "deploymentId": None,
        "createdAt": "2023-11-14T22:13:20.000Z",
        "updatedAt": "2023-11-14T22:13:30.500Z",
        "endedAt": "2023-11-14T22:13:30.500Z",
        "botStartSeconds": 2,
        "coldStart": True,
        "completionStatus": "WS_CONNECTION_CLOSED",
        "endState": "completed",
        "events": [
            {"eventCode": START, "eventTs": "2023-11-14T22:13:20.000Z"},
            {"eventCode": ARRIVED, "eventTs": "2023-11-14T22:13:23.000Z"},
            {"eventCode": COMPLETED, "eventTs": "2023-11-14T22:13:30.500Z"},
        ],
    }


@pytest.mark.parametrize(
    ("state", "times", "updated", "events"),
    [
        (SessionState.RESERVED, {}, 0, [START]),
        (SessionState.WAITING, {"admitted": 1001.0}, 1, [START]),
        (
            SessionState.ACTIVE,
            {"admitted": 1001.0, "started": 1002.0, "took": 1.0, "cold": False},
            2,
            [START, ARRIVED],
        ),
    ],
)
def test_a_session_that_is_not_over_is_active(
    state: SessionState, times: dict[str, Any], updated: int, events: list[str]
) -> None:
    record: Any = records.session_record(session(state=state, **times))
    assert record["endState"] == "active"
    assert record["endedAt"] is record["completionStatus"] is None
    assert record["updatedAt"] == f"1970-01-01T00:16:4{updated}.000Z"
    assert codes(record) == events
    served = "started" in times
    assert (record["coldStart"], record["botStartSeconds"]) == (
        (False, 1) if served else (None, None)
    )


@pytest.mark.parametrize("cause", sorted(END_STATES))
def test_every_cause_has_its_end_state(cause: str) -> None:
    ended = session(state=SessionState.ENDED, ended=1009.0, cause=cause)
    record: Any = records.session_record(ended)
    assert (record["endState"], record["completionStatus"]) == END_STATES[cause]
    assert cause in records.causes_of(record["endState"])
    assert record["endState"] in records.end_states()
    assert codes(record) == [START, TIMEOUT if cause == "no_instance" else COMPLETED]


@pytest.mark.parametrize("cause", [None, "of_a_later_version"])
def test_a_cause_that_is_not_known(cause: str | None) -> None:
    record = records.session_record(session(state=SessionState.ENDED, ended=1.0, cause=cause))
    assert record["endState"] == "unknown"


def test_end_states_are_those_of_the_official_clients() -> None:
    assert set(records.end_states()) == {
        "active",
        "completed",
        "ended_before_agent_start",
        "agent_start_timeout",
        "terminated",
        "agent_error",
        "unknown",
    }
    found = [cause for state in records.end_states() for cause in records.causes_of(state)]
    assert sorted(found) == sorted(END_STATES)
    assert records.causes_of("active") == records.causes_of("nonsense") == ()


def test_details_are_the_record_and_more() -> None:
    details = records.session_details(session())
    assert details == {
        **records.session_record(session()),
        "resourceMetrics": None,
        "meetingIds": [],
    }


steps = st.floats(0, 1e6, allow_nan=False)


@given(st.floats(0, 4e9), steps, steps, steps, st.sampled_from(sorted(END_STATES)))
def test_times_are_readable_and_in_order(
    created: float, wait: float, start: float, last: float, cause: str
) -> None:
    admitted, started = created + wait, created + wait + start
    whole = session(
        state=SessionState.ENDED,
        created=created,
        admitted=admitted,
        started=started,
        ended=started + last,
        cause=cause,
    )
    record: Any = records.session_record(whole)
    times = [event["eventTs"] for event in record["events"]]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (record["createdAt"], record["endedAt"])
    assert record["updatedAt"] == record["endedAt"]
    for text in times:
        assert TIME.fullmatch(text)
        datetime.fromisoformat(text)


def test_an_agent_in_a_list_has_every_key_that_clients_need() -> None:
    record = records.service_record(Agent("bot", "acme", ("http://a:1",)))
    assert (record["id"], record["name"], record["organizationId"]) == ("bot.acme", "bot", "acme")
    needed = {"name", "region", "id", "activeDeploymentId", "createdAt", "updatedAt"}
    assert needed <= set(record)


def test_the_state_of_an_agent() -> None:
    agent = Agent("bot", "acme", ("http://a:1", "http://a:2"), max_session_duration=90.5)
    status: Any = records.service_status(agent, ready=True, available=False, active=3)
    assert (status["ready"], status["available"]) == (True, False)
    assert status["activeDeploymentReady"] is True
    assert status["activeSessionCount"] == 3
    assert status["autoScaling"] == {"minReplicas": 2, "maxReplicas": 2}
    assert status["errors"] == []
    spec = status["deployment"]["manifest"]["spec"]
    assert spec == {"maxSessionDurationSeconds": 90.5}


def test_the_bounds_of_an_agent_whose_bots_are_started() -> None:
    agent = Agent("bot", "acme", command=("bot",), min_agents=1, max_agents=5)
    status: Any = records.service_status(agent, ready=True, available=True, active=0)
    assert status["autoScaling"] == {"minReplicas": 1, "maxReplicas": 5}


def test_the_state_of_an_agent_without_an_instance_says_why() -> None:
    agent = Agent("bot", "acme", ("http://a:1",))
    status: Any = records.service_status(agent, ready=False, available=False, active=0)
    assert [error["code"] for error in status["errors"]] == ["PCC-1001"]
    assert "http://a:1" not in str(status)
    spec = status["deployment"]["manifest"]["spec"]
    assert str(spec) == "{'maxSessionDurationSeconds': 7200}"
