"""The table of states and moves, and the names of every way in which a session ends."""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

import pytest

import relay
from relay.policy.sessions import END_STATES, LIVE, MOVES, Move, SessionState, move, public_end
from relay.protocol.lifecycle import ENDINGS, Event
from relay.pump.ending import LOST

RESERVED, WAITING, ACTIVE, ENDED = SessionState

# Rows: the state; columns: ADMIT, GIVE_BACK, ACTIVATE, END.
TABLE = {
    RESERVED: (WAITING, None, None, ENDED),
    WAITING: (None, RESERVED, ACTIVE, ENDED),
    ACTIVE: (None, None, None, ENDED),
    ENDED: (None, None, None, None),
}
# endState and completionStatus that the public API knows.
END_STATE_NAMES = {
    "completed",
    "terminated",
    "agent_error",
    "agent_start_timeout",
    "ended_before_agent_start",
    "unknown",
}
# A side tunnel ends so, never what carries a session.
SIDE_TUNNELS = {ENDINGS[Event.SESSION_ENDED].cause}
STATUS_NAMES = {"WS_CONNECTION_CLOSED", "HTTP_COMPLETED", "HTTP_ERROR", "BOT_CONNECTION_TIMEOUT"}


@pytest.mark.parametrize(("state", "by"), list(product(SessionState, Move)))
def test_each_state_with_each_move(state: SessionState, by: Move) -> None:
    assert move(state, by) is TABLE[state][list(Move).index(by)]


def test_the_table_names_only_legal_moves() -> None:
    assert len(MOVES) == sum(after is not None for row in TABLE.values() for after in row)


def test_ended_is_final_and_every_other_state_is_live() -> None:
    assert all(move(ENDED, by) is None for by in Move)
    assert {*LIVE, ENDED} == set(SessionState)
    assert all(move(state, Move.END) is ENDED for state in LIVE)


def test_names_are_those_of_the_store_and_the_answers() -> None:
    assert [str(state) for state in SessionState] == ["reserved", "waiting", "active", "ended"]


def test_every_ending_of_a_tunnel_has_its_public_names() -> None:
    causes = {ending.cause for ending in ENDINGS.values()} | {LOST}  # ended without one
    assert causes - SIDE_TUNNELS <= END_STATES.keys()


def test_every_cause_in_the_code_has_its_public_names() -> None:
    """Whatever is written into a `SessionEnd`, `Ending` or give-back anywhere, as a literal."""
    assert {"stopped", "lost", "pump_died", "client_left", "bot_refused"} <= _causes()
    assert _causes() - END_STATES.keys() == SIDE_TUNNELS


def test_public_names_are_known_ones() -> None:
    for cause, (state, status) in END_STATES.items():
        assert state in END_STATE_NAMES
        assert status in STATUS_NAMES
        assert public_end(cause, "websocket") == (state, status)


def test_a_session_over_http_closed_no_websocket() -> None:
    for cause, (state, _) in END_STATES.items():
        for transport in ("http", "webrtc", "daily"):
            assert public_end(cause, transport)[0] == state
            assert public_end(cause, transport)[1] in STATUS_NAMES - {"WS_CONNECTION_CLOSED"}
    assert public_end("stopped", "http") == ("terminated", "HTTP_COMPLETED")
    assert public_end("pump_died", "http") == ("unknown", "HTTP_ERROR")
    assert public_end("of another version", "http") == ("unknown", "unknown")


def _causes() -> set[str]:
    found = set()
    for path in Path(relay.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in CALLS and node.args:
                found |= _literals(node.args[0])
    return found | {"stopped", "unused"}  # chosen by the store's sweep, in SQL


CALLS = {"SessionEnd", "Ending", "_give_back"}


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _literals(argument: ast.expr) -> set[str]:
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return {argument.value}
    if isinstance(argument, ast.IfExp):
        return _literals(argument.body) | _literals(argument.orelse)
    return set()
