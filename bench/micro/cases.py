"""All cases by name, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.micro.case import Case, Loop, Repeated
from bench.micro.policy_cases import POLICY
from bench.micro.pump_cases import PUMP
from bench.micro.wire_cases import WIRE

__all__ = ["CASES", "chosen"]


def nothing(_: ExitStack) -> Loop:
    return Repeated(lambda: None)


NOTHING = Case(
    "nothing",
    "call",
    "an empty function: what the loop adds to every other figure",
    nothing,
    counted=10_000,
)
CASES = {case.name: case for case in (NOTHING, *WIRE, *POLICY, *PUMP)}


def chosen(names: Sequence[str]) -> list[Case]:
    """The cases of these names in the order of the table; all when none is given.

    Raises:
        ValueError: there is no such case.
    """
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f"no case {unknown[0]!r}; expected some of {', '.join(CASES)}")
    return [case for name, case in CASES.items() if not names or name in names]
