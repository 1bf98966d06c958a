"""The seven phases of an exchange (docs/architecture.md, "The seven phases")."""

from __future__ import annotations

__all__ = ["PHASE_FIELDS", "Phase"]

from enum import StrEnum


class Phase(StrEnum):
    """The seven phases of an exchange, in order."""

    __hash__ = str.__hash__  # an enumeration's own is a function in Python

    ACCEPT = "accept"
    PARSE = "parse"
    ROUTE = "route"
    AUTHENTICATE = "authenticate"
    RESOLVE = "resolve"
    RELAY = "relay"
    CLOSE = "close"


# Where a log line says how many milliseconds each one took.
PHASE_FIELDS = {phase: f"{phase.value}_ms" for phase in Phase}
