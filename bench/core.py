"""The selection that the floors need: which scenario meets which targets, in a quarter of an hour.

A run of everything takes hours, and hours change a machine. What is judged has to be
measured close together, with enough rounds, and without targets that nothing is held against.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.floors import EITHER, JUDGED, PURE

__all__ = ["CORE", "CORE_ROUNDS", "CORE_TARGETS", "CORE_WARMUP", "core_seconds"]

CORE_ROUNDS = 5
CORE_WARMUP = 0.3
SECONDS = 0.7
# Tails need more messages, and a slow reader that has to take all in a second is none.
OWN_SECONDS: Mapping[str, float] = {
    "mixed-http": 1.2,
    "mixed-sessions": 1.2,
    "mixed-bulk": 1.2,
    "slow-reader": 5.0,
}

_CALLS = ("direct", *JUDGED, *EITHER)
_BESIDE = ("direct", *JUDGED, "nginx")
_SETUP = ("direct", "relay", "nginx", "haproxy")
_REQUESTS = ("direct", "relay", "nginx", "aiohttp-uvloop")

CORE: Mapping[str, tuple[str, ...]] = {
    "pingpong": _CALLS,
    "calls": _CALLS,
    "calls-apart": _CALLS,
    "scale-200": _CALLS,
    "bulk-64k": _CALLS,
    "bulk-2x1m": _CALLS,
    "mixed-http": _BESIDE,
    "mixed-sessions": _BESIDE,
    "mixed-bulk": _BESIDE,
    "setup": _SETUP,
    "whole-calls": _SETUP,
    "requests-json": _REQUESTS,
    "requests-up": _REQUESTS,
    "requests-down": _REQUESTS,
    "requests-events": _REQUESTS,
    "slow-reader": (*JUDGED, "nginx"),
    # Opening five thousand tunnels takes its time, and the target is held against itself.
    "mixed-idle": (PURE,),
}
CORE_TARGETS = tuple(dict.fromkeys(name for names in CORE.values() for name in names))


def core_seconds(name: str) -> float:
    """How long a round of a scenario records there."""
    return OWN_SECONDS.get(name, SECONDS)
