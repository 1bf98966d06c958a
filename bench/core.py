"""The selection that the floors need: which scenario meets which targets, and how often.

What is judged has to be measured close together, with enough rounds, and without targets that
nothing is held against: larger buffers change nothing for messages of some hundred bytes, and
the default ones lose by factors where messages are large. A run of everything has them all.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench import targets
from bench.floors import JUDGED, PURE
from bench.scenarios import SCENARIOS

__all__ = ["CORE", "CORE_TARGETS", "LIMITED", "core_rounds"]

CORE_ROUNDS = 5
# Calls sleep between their messages, and what waking up costs differs by round; beside another load
# a scheduler that is free packs the processes of one round and spreads those of the next.
OWN_ROUNDS: Mapping[str, int] = {
    **dict.fromkeys(("calls", "calls-apart", "calls-halting", "scale-200"), 7),
    **dict.fromkeys(("mixed-http", "mixed-sessions", "mixed-bulk"), 9),
}

_SMALL = ("direct", *JUDGED, "nginx", "haproxy")
_LARGE = ("direct", *JUDGED, "nginx-large", "haproxy-large")
_BESIDE = (PURE, "nginx")
_BODIES = ("relay", "nginx", "aiohttp-uvloop")

CORE: Mapping[str, tuple[str, ...]] = {
    # First, while its memory is that of a fresh start. Opening five thousand tunnels takes its
    # time, and the target is held against itself.
    "mixed-idle": (PURE,),
    "pingpong": _SMALL,
    "calls": _SMALL,
    "calls-apart": _SMALL,
    "calls-halting": _BESIDE,
    "scale-200": _SMALL,
    "bulk-64k": _LARGE,
    "bulk-2x1m": _LARGE,
    "mixed-http": _BESIDE,
    "mixed-sessions": _BESIDE,
    "mixed-bulk": _BESIDE,
    "mixed-scrapes": (PURE,),
    "setup": ("direct", "relay", "nginx"),
    "requests-json": ("direct", *_BODIES),
    "requests-up": _BODIES,
    "requests-down": _BODIES,
    "requests-events": _BODIES,
    "slow-reader": JUDGED,
}
CORE_TARGETS = tuple(dict.fromkeys(name for names in CORE.values() for name in names))


# What a run of everything leaves out to take less than an hour: in a series the slower one of two
# ways to do the same, which would only fill its plots; and where each of five thousand sessions is
# set up and ended by what is measured, all but one of a kind.
_SERIES = tuple(name for name in targets.NAMES if name not in ("aiohttp", "trio-tasks"))
LIMITED: Mapping[str, tuple[str, ...]] = {
    **{name: _SERIES for name, one in SCENARIOS.items() if one.series},
    "mixed-idle": (PURE, "nginx", "haproxy"),
}


def core_rounds(name: str) -> int:
    """How often a scenario meets each of its targets there."""
    return OWN_ROUNDS.get(name, CORE_ROUNDS)
